//! Is a mail server there? Checks of it, and what many checks by several observers come to.
//!
//! [`probe`] looks; [`verdict`] and [`decide`] judge and do no I/O: time is what their callers say it is, so that no clock that jumps
//! changes what they say.

pub mod decide;
pub mod looking;
pub mod pace;
pub mod probe;
pub mod verdict;
