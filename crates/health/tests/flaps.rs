//! Thousands of seeded stories of networks and servers, told to the verdict in simulated time: no story without an outage ends in
//! one, and no outage is missed.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{collections::BTreeMap, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use understudy_health::{
    pace::Pace,
    verdict::{
        Kind, LOOK_TIMEOUT, Observation, Observed, Outcome, QUICK_EVERY, RECOVERY, REPORT_EVERY, Rules, SOURCE, Verdict,
    },
};

const STORIES: u64 = 1000;
/// With `UNDERSTUDY_LONG`.
const MANY_STORIES: u64 = 10_000;
/// Of simulated time.
const STORY: Duration = Duration::from_secs(150);
const STEP: Duration = Duration::from_millis(250);
const WITNESS: &str = "witness";

/// A time in which something is so, in seconds.
type Span = (f64, f64);

/// What happens to what one observer asks of one server.
#[derive(Clone, Debug, Default)]
struct Path {
    /// This part of all looks is lost.
    loss: f64,
    /// The way is cut.
    cut: Vec<Span>,
    /// Answers take so long.
    slow: f64,
}

/// One story.
#[derive(Clone, Debug)]
struct Story {
    threshold: Duration,
    primaries: Vec<String>,
    observers: Vec<&'static str>,
    paths: BTreeMap<(String, &'static str), Path>,
    /// When a server does not answer anybody; whether connections are refused at once or nothing comes back.
    down: BTreeMap<String, Vec<Span>>,
    refused: bool,
    /// The recovery gateway's process stands still.
    still: Vec<Span>,
    /// What the others say arrives only afterwards.
    stalled: Vec<Span>,
    blind: bool,
}

fn within(spans: &[Span], at: f64) -> bool {
    spans.iter().any(|&(from, to)| from <= at && at < to)
}

impl Story {
    fn told(random: &mut StdRng) -> Self {
        let threshold = Duration::from_secs(*[5, 8, 15, 30].choose(random).unwrap());
        let primaries: Vec<String> = (0..random.random_range(1..=3)).map(|n| format!("mail-{n}")).collect();
        let mut observers = vec![RECOVERY, SOURCE];
        let has_witness = random.random_bool(0.6);
        if has_witness {
            observers.push(WITNESS);
        }
        let mut paths = BTreeMap::new();
        for server in primaries.iter().cloned().chain(["dr".to_owned()]) {
            for &observer in &observers {
                let mut path = Path { slow: 0.01, ..Path::default() };
                match random.random_range(0..5) {
                    0 => path.loss = random.random_range(0.0..0.3),
                    1 => path.slow = random.random_range(0.1..2.5),
                    // One observer alone loses its way, for as long as it likes.
                    2 if observer == RECOVERY && server != "dr" => {
                        let from = random.random_range(0.0..60.0);
                        path.cut.push((from, from + random.random_range(1.0..90.0)));
                    }
                    _ => {}
                }
                paths.insert((server.clone(), observer), path);
            }
        }
        Self {
            threshold,
            primaries,
            observers,
            paths,
            down: BTreeMap::new(),
            refused: random.random_bool(0.5),
            still: spans(random, 0.3, 6.0..60.0),
            stalled: spans(random, 0.3, 1.0..60.0),
            blind: has_witness && random.random_bool(0.5),
        }
    }

    /// Servers that stay away for less than the threshold, and come back for a while.
    fn with_blips(mut self, random: &mut StdRng) -> Self {
        let longest = self.threshold.as_secs_f64() - 1.5;
        for server in self.primaries.clone() {
            let mut at = random.random_range(5.0..40.0);
            let mut blips = Vec::new();
            while at < STORY.as_secs_f64() && random.random_bool(0.8) {
                let long = random.random_range(0.2..longest);
                blips.push((at, at + long));
                at += long + random.random_range(4.0..40.0);
            }
            self.down.insert(server.clone(), blips);
            // Somebody who loses every third look may take two blips for one; that is two stories.
            for &observer in &self.observers {
                if let Some(path) = self.paths.get_mut(&(server.clone(), observer)) {
                    path.loss = 0.0;
                }
            }
        }
        self
    }

    /// What one look finds, and how long it takes.
    fn look(&self, server: &str, observer: &'static str, at: f64, random: &mut StdRng) -> (Outcome, f64) {
        let path = &self.paths[&(server.to_owned(), observer)];
        let gone = |why: &str| (Outcome::Bad(why.to_owned()), LOOK_TIMEOUT.as_secs_f64());
        if observer == WITNESS && self.blind || within(&path.cut, at) {
            return gone("no answer");
        }
        if self.down.get(server).is_some_and(|spans| within(spans, at)) {
            return if self.refused {
                (Outcome::Bad("connection refused".to_owned()), 0.01)
            } else {
                gone("no answer")
            };
        }
        if random.random_bool(path.loss) {
            return gone("no answer");
        }
        (Outcome::Good, path.slow)
    }

    /// When each server was first found down.
    fn play(&self, seed: u64) -> BTreeMap<String, f64> {
        let random = &mut StdRng::seed_from_u64(seed);
        let mut observed = Observed::default();
        observed.keep(&self.primaries, &["dr".to_owned()]);
        let rules = Rules { threshold: self.threshold, quorum: 2, degradation: None };
        // Of each way: how looks are paced, those under way, and when it was last said that all is well.
        let mut paces: BTreeMap<(String, &str), Pace> = BTreeMap::new();
        let mut looks: Vec<(f64, u64, String, &'static str, Outcome)> = Vec::new();
        let mut said: BTreeMap<(String, &str), f64> = BTreeMap::new();
        let mut underway: Vec<(f64, String, &'static str, Outcome)> = Vec::new();
        let mut found = BTreeMap::new();
        let mut now = Duration::ZERO;
        while now < STORY {
            let at = now.as_secs_f64();
            let is_still = within(&self.still, at);
            for (server, observer) in self.paths.keys() {
                let key = (server.clone(), *observer);
                let (server, observer) = (server.as_str(), *observer);
                // Who stands still does not look; the source gateway looks at primaries only.
                if is_still && observer == RECOVERY || observer == SOURCE && server == "dr" {
                    continue;
                }
                let pace = paces.entry(key).or_insert_with(|| Pace::new(QUICK_EVERY));
                if pace.due().is_some_and(|due| due <= now) {
                    let (outcome, took) = self.look(server, observer, at, random);
                    looks.push((at + took, pace.begin(now), server.to_owned(), observer, outcome));
                }
            }
            looks.sort_by(|one, other| one.0.total_cmp(&other.0));
            let (ended, under_way): (Vec<_>, Vec<_>) = looks
                .into_iter()
                .partition(|(ends, _, _, observer, _)| *ends <= at && !(is_still && *observer == RECOVERY));
            looks = under_way;
            for (ends, look, server, observer, outcome) in ended {
                let key = (server.clone(), observer);
                let ends = Duration::from_secs_f64(ends).max(now.saturating_sub(STEP));
                let pace = paces.get_mut(&key).unwrap();
                if !pace.end(look, outcome != Outcome::Good, ends) {
                    continue;
                }
                // A good look is said now and then only, once it has been said that all is well.
                let was_said = said.get(&key).is_some_and(|&said| at - said < REPORT_EVERY.as_secs_f64());
                if observer == RECOVERY || outcome != Outcome::Good || !was_said {
                    if outcome == Outcome::Good {
                        said.insert(key, at);
                    } else {
                        said.remove(&key);
                    }
                    let travels = if observer == RECOVERY { 0.0 } else { random.random_range(0.0..0.5) };
                    underway.push((at + travels, server, observer, outcome));
                }
            }
            if !is_still {
                observed.tick(now);
                let held_up = within(&self.stalled, at);
                underway.retain(|(arrives, server, observer, outcome)| {
                    if *arrives > at || held_up && *observer != RECOVERY {
                        return true;
                    }
                    let look = Observation { kind: Kind::Quick, outcome: outcome.clone(), took: Duration::ZERO };
                    observed.note(now, server, observer, &look);
                    false
                });
                for server in &self.primaries {
                    if observed.judge(server, &rules, now).verdict == Verdict::Down {
                        found.entry(server.clone()).or_insert(at);
                    }
                }
            }
            now += STEP;
        }
        found
    }
}

fn spans(random: &mut StdRng, often: f64, long: std::ops::Range<f64>) -> Vec<Span> {
    if !random.random_bool(often) {
        return Vec::new();
    }
    let from = random.random_range(0.0..STORY.as_secs_f64());
    vec![(from, from + random.random_range(long))]
}

fn seeds() -> std::ops::Range<u64> {
    0..if std::env::var_os("UNDERSTUDY_LONG").is_some() { MANY_STORIES } else { STORIES }
}

#[test]
fn a_thousand_stories_without_an_outage_end_in_none() {
    for seed in seeds() {
        let random = &mut StdRng::seed_from_u64(seed);
        let story = Story::told(random);
        let story = if random.random_bool(0.5) { story.with_blips(random) } else { story };
        let found = story.play(seed);
        assert!(found.is_empty(), "seed {seed}: found {found:?} in {story:#?}");
    }
}

#[test]
fn a_thousand_outages_are_all_found() {
    for seed in seeds() {
        let random = &mut StdRng::seed_from_u64(seed);
        let mut story = Story::told(random);
        // Nobody can be asked for what a process that stands still, or a link that does, does not hear.
        let began = random.random_range(20.0..50.0);
        story.still.retain(|(_, to)| *to < began);
        story.stalled.retain(|(_, to)| *to < began);
        let dead = story.primaries.choose(random).unwrap().clone();
        story.down.insert(dead.clone(), vec![(began, f64::MAX)]);
        let found = story.play(seed);
        let Some(&at) = found.get(&dead) else { panic!("seed {seed}: the outage was missed: {story:#?}") };
        // Looks that are lost take their time.
        let is_clear = story.refused && story.paths.values().all(|path| path.cut.is_empty() && path.loss == 0.0);
        let latest = began + story.threshold.as_secs_f64() + if is_clear { 6.0 } else { 16.0 };
        assert!(at >= began && at <= latest, "seed {seed}: began at {began:.1} s, found at {at:.1} s in {story:#?}");
        assert_eq!(found.len(), 1, "seed {seed}: {found:?}");
    }
}
