//! Every SQL statement, one file per noun, and the one [`MIGRATOR`].
//!
//! Functions take `impl PgExecutor<'_>` or `&mut PgConnection`, so that callers compose a transaction.
//! Not here: what the values mean (`protocol`), deciding anything (`replication`, the roles).

pub mod account;
pub mod alone;
pub mod audit;
pub mod billing;
pub mod brake;
pub mod canary;
pub mod cluster;
mod columns;
pub mod content;
pub mod continuity;
pub mod error;
pub mod event;
pub mod front_door;
pub mod group;
pub mod health;
pub mod idempotency;
pub mod inside;
pub mod journal;
pub mod line;
pub mod link;
pub mod mailbox;
pub mod mirror;
pub mod notice;
pub mod pair;
pub mod pairing;
pub mod part;
pub mod policy;
pub mod proof;
pub mod route;
pub mod run;
pub mod scope;
pub mod server;
pub mod session;
pub mod source;
pub mod status;
pub mod step;
pub mod switch;
pub mod tenant;
pub mod token;

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

pub use error::{Error, Result};
pub use sqlx::{PgConnection, PgPool};

/// The schema, in order.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations");

/// How long a caller waits for a free connection before it is told that the database is overloaded.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

/// A pool for `options`, at most `connections` wide. Nothing is connected yet.
///
/// Without just-in-time compilation: on these short statements it costs ten times what it saves (a page of 1,000 out of
/// 50,000 mailboxes: 0.8 s against 0.07 s). With one plan for all parameters: every statement goes by keys, and planning
/// each of the first five runs anew, on each connection, cost more than running them.
pub fn pool(options: PgConnectOptions, connections: u32) -> PgPool {
    planned_pool(options, connections, "force_generic_plan")
}

/// Connections for what people ask. Their statements have filters that are mostly left out, and the one plan for all of them reads
/// everything (a page of 100 out of 50,000 mailboxes: 0.6 s against 0.002 s, planning included).
pub fn asking_pool(options: PgConnectOptions, connections: u32) -> PgPool {
    planned_pool(options, connections, "force_custom_plan")
}

fn planned_pool(options: PgConnectOptions, connections: u32, plans: &str) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_lazy_with(options.options([("jit", "off"), ("plan_cache_mode", plans)]))
}

/// Brings the schema up to date; safe to call from several processes at once.
pub async fn migrate(pool: &PgPool) -> Result<()> {
    MIGRATOR.run(pool).await.map_err(Error::Migration)
}
