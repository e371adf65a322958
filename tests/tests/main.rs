//! Scenarios: the whole product between real mail servers, compared by an independent client.
//!
//! `UNDERSTUDY_LONG=1` makes them longer; `UNDERSTUDY_SEED` repeats a random one.

mod backpressure;
mod brake;
mod canary;
mod content_store;
mod continuity;
mod crashes;
mod cyrus;
mod damage;
mod fence;
mod front_doors;
mod gateways;
mod hooks;
mod hung;
mod kills;
mod kinds;
mod large;
mod layouts;
mod levels;
mod lists;
mod merge;
mod mirroring;
mod not_ready;
mod odd_mail;
mod outage;
mod pairing;
mod partition;
mod parts;
mod primary_only_read;
mod random_walk;
mod restored;
mod rig;
mod somebody;
mod switch_doors;
mod switch_walk;
mod switchover;
mod together;
mod troubles;
mod tutorial;
mod verify;

/// How much more a long run does.
fn times(long: usize) -> usize {
    if std::env::var_os("UNDERSTUDY_LONG").is_some() { long } else { 1 }
}
