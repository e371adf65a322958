//! The journal's protocol, simulated: two gateways that act on `replication::shipping` over a network that loses, delays, doubles and
//! reorders what they say, is cut, and carries answers to requests long given up; both crash, the source loses its database or gets an
//! old one back, the recovery site too. Time is simulated, one seed decides everything, and the invariants are checked after every event.
//!
//! The real gateways over a real and lossy link: `gateway-recovery/tests/link/lossy.rs`. Why not turmoil: `docs/decisions/simulation.md`.

mod world;

use world::{Faults, Tally, World};

/// Seeds of a short run, and of a long one.
const SEEDS: (u64, u64) = (1_500, 100_000);

fn seeds() -> std::ops::Range<u64> {
    match std::env::var("UNDERSTUDY_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None if std::env::var_os("UNDERSTUDY_LONG").is_some() => 0..SEEDS.1,
        None => 0..SEEDS.0,
    }
}

fn simulate(faults: Faults) {
    let mut total = Tally::default();
    for seed in seeds() {
        match std::panic::catch_unwind(|| World::new(seed, faults).live()) {
            Ok(tally) => total += tally,
            Err(cause) => {
                eprintln!("UNDERSTUDY_SEED={seed}");
                std::panic::resume_unwind(cause);
            }
        }
    }
    println!("{total:?}");
    if seeds().count() > 1 {
        total.assert_that_things_happened(faults);
    }
}

#[test]
fn nothing_is_lost_doubled_or_reordered_by_a_bad_network_and_crashes() {
    simulate(Faults { lost_databases: false });
}

#[test]
fn journals_that_came_apart_find_together_again() {
    simulate(Faults { lost_databases: true });
}
