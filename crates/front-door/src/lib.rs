//! Front doors: the stock proxies that users reach. Tells them to end sessions, and keeps a copy of the routes for them.
//!
//! In: routes and front doors from the database. Out: ended sessions; the routes file.
//! Keeps true: an address that changes sides is cut at every door that can cut; what could not be cut is told, never
//! passed over in silence.
//! Not here: deciding that somebody moves, holding log-ins (`database::route`).

mod cut;
mod routes_file;
mod watch;

pub use cut::{Cut, FrontDoors, Uncut};
pub use watch::{Watch, run};
