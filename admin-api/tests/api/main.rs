//! The admin API called in process, on a fresh database for each test.
#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that is not as expected")]

mod access;
mod audit;
mod billing;
mod events;
mod examples;
mod groups;
mod held;
mod idempotency;
mod inside;
mod mailboxes;
mod many;
mod notifications;
mod openapi;
mod people;
mod policies;
mod protect;
mod routes;
mod runs;
mod secrets;
mod servers;
mod service;
mod status;
mod switches;
mod tenants;
