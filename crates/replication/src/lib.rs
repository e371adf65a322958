//! The pipeline's decisions, and the files contents rest in. Used in both directions.
//!
//! Not here: SQL (`database`), tasks and wiring (the roles), IMAP itself (`imap-session`).

pub mod check;
pub mod fidelity;
pub mod folders;
pub mod inventory;
pub mod pack;
pub mod plan;
pub mod shipping;
mod software;
pub mod trouble;
