//! The routes under `/api/v1`: one file per noun holds its routes, request and response types and handlers.

pub(crate) mod actions;
pub(crate) mod events;
pub(crate) mod held;
pub(crate) mod history;
pub(crate) mod mailboxes;
pub(crate) mod nginx;
pub(crate) mod protect;
pub(crate) mod routes;
pub(crate) mod runs;
pub(crate) mod servers;
pub(crate) mod status;
pub(crate) mod switches;
pub(crate) mod tokens;

mod candidates;
mod server_rules;
