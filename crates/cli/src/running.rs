//! What the roles need around them: the lock on `data_dir`, the database, the link's secret, signals, and somebody who
//! starts a role again when it falls.
//!
//! Keeps true: nothing is started before the lock is held; the database stops after the last role.

mod content;
mod data_dir;
mod database;
mod listener;
mod secret;
mod signals;
mod supervisor;

pub(crate) use content::content_config;
pub(crate) use data_dir::{DataDir, create as create_data_dir};
pub(crate) use database::{Database, cluster_config, cluster_failure};
pub(crate) use listener::{Door, web_address};
pub(crate) use secret::{LinkEnds, first_line, link_secret};
pub(crate) use signals::Signals;
pub(crate) use supervisor::Roles;
