//! The recovery gateway as a source gateway sees it: over the link, on a fresh database for each test.
//!
//! The standbys lead nowhere: what is received is never applied, and no mail server is needed.
#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that is not as expected")]

mod damage;
mod handed;
mod heartbeat;
mod known;
mod lossy;
mod order;
mod parts;
mod restart;
mod secret;
mod shipment;
mod site;
mod strangers;
