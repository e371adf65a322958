//! The routes under `/api/v1`: one file per noun holds its routes, request and response types and handlers.

pub(crate) mod actions;
pub(crate) mod audit;
pub(crate) mod canaries;
pub(crate) mod events;
pub(crate) mod groups;
pub(crate) mod health;
pub(crate) mod held;
pub(crate) mod history;
pub(crate) mod inside;
pub(crate) mod invoices;
pub(crate) mod link;
pub(crate) mod mailboxes;
pub(crate) mod map;
pub(crate) mod me;
pub(crate) mod nginx;
pub(crate) mod notifications;
pub(crate) mod policies;
pub(crate) mod prices;
pub(crate) mod protect;
pub(crate) mod reports;
pub(crate) mod routes;
pub(crate) mod runs;
pub(crate) mod servers;
pub(crate) mod sessions;
pub(crate) mod settings;
pub(crate) mod status;
pub(crate) mod switches;
pub(crate) mod tenants;
pub(crate) mod tokens;
pub(crate) mod users;

mod candidates;
mod server_rules;
