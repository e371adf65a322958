//! The outage verdict: what many observations by several observers come to. No I/O, no clock.
//!
//! In: [`Observation`]s with the moment they came, on a clock that only goes forward. Out: a [`Judgement`] of one server.
//! Keeps true: a failure from before somebody saw the server answer does not count; silence of an observer is no vote; one that
//! sees nothing of what others see has no vote; who did not look for a while (this process stood still) holds that against nobody.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use understudy_protocol::policy::Degradation;

/// The recovery gateway itself.
pub const RECOVERY: &str = "recovery";
/// The source gateway.
pub const SOURCE: &str = "source";
/// How often a server that answers is looked at quickly, and thoroughly.
pub const QUICK_EVERY: Duration = Duration::from_secs(2);
pub const DEEP_EVERY: Duration = Duration::from_secs(30);
/// How often one that does not answer is looked at, either way.
pub const SUSPECT_EVERY: Duration = Duration::from_millis(500);
/// A quick look that takes longer has failed.
pub const LOOK_TIMEOUT: Duration = Duration::from_secs(3);
/// An observer elsewhere says at least so often that a server answers.
pub const REPORT_EVERY: Duration = Duration::from_secs(5);
/// What an observer said counts for so long.
const FRESH: Duration = Duration::from_secs(15);
/// The last of many failures must not be older: an observer that sees failures says each of them.
const FRESH_BAD: Duration = Duration::from_secs(6);
/// So many looks in a row must have failed: a way that loses every third of them loses four in a row now and then.
const LEAST_BAD: u32 = 9;
/// Or so many over so long, by an observer that looks less often than ours.
const LEAST_BAD_SLOWLY: u32 = 4;
const SLOWLY: Duration = Duration::from_secs(20);
/// So many thorough looks must have failed or been slow.
const LEAST_DEGRADED: usize = 3;
/// Thorough looks remembered of each observer.
const DEEP_KEPT: usize = 256;
/// When nothing was looked at for so long, this process stood still.
const STOOD_STILL: Duration = Duration::from_secs(5);
/// From so many primaries on, most of them failing at once for a single observer means that it is the observer.
const MANY: usize = 3;

/// What one look found.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    pub kind: Kind,
    pub outcome: Outcome,
    pub took: Duration,
}

/// How thoroughly somebody looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Connection, TLS, greeting.
    Quick,
    /// Log-in, a folder, a message; writing and delivery where that may be tried.
    Deep,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Good,
    /// And why.
    Bad(String),
    /// It answered, and for reasons of our own nothing more was learned: a refused password is no outage.
    Unknown(String),
}

/// When a server counts as down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    pub threshold: Duration,
    /// So many observers must find so, and more than find otherwise.
    pub quorum: usize,
    pub degradation: Option<Degradation>,
}

/// What a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Up,
    /// Somebody finds it down; too few, or not for long enough.
    Suspect,
    Down,
}

/// What one observer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vote {
    Up,
    /// And why.
    Down(String),
    /// It has not seen enough.
    Unsure,
    /// It was not heard of lately, or sees nothing of what others see.
    Silent,
}

/// What observers find of a server together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    pub verdict: Verdict,
    /// For people.
    pub reason: String,
    pub votes: BTreeMap<String, Vote>,
}

/// What one observer saw of one server.
#[derive(Clone, Debug, Default)]
struct Seen {
    last: Duration,
    good: Option<Duration>,
    bad_since: Option<Duration>,
    bad: u32,
    reason: String,
    deep: VecDeque<(Duration, Outcome, Duration)>,
}

/// Everything that was observed, by server and observer.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    servers: BTreeMap<String, BTreeMap<String, Seen>>,
    /// Primaries, of which many failing at once means something else than one failing.
    primaries: Vec<String>,
    looked: Option<Duration>,
}

impl Observed {
    /// These are the servers looked at; others are forgotten.
    pub fn keep(&mut self, primaries: &[String], standbys: &[String]) {
        self.servers.retain(|name, _| primaries.contains(name) || standbys.contains(name));
        self.primaries = primaries.to_vec();
    }

    /// Somebody looked at a server.
    pub fn note(&mut self, now: Duration, server: &str, observer: &str, observation: &Observation) {
        let seen = self.servers.entry(server.to_owned()).or_default().entry(observer.to_owned()).or_default();
        seen.last = now;
        match (observation.kind, &observation.outcome) {
            (Kind::Quick, Outcome::Bad(reason)) => {
                seen.bad_since.get_or_insert(now);
                seen.bad = seen.bad.saturating_add(1);
                seen.reason.clone_from(reason);
            }
            // Whatever came of it, somebody answered.
            (Kind::Quick, _) | (Kind::Deep, Outcome::Good | Outcome::Unknown(_)) => {
                seen.good = Some(now);
                seen.bad_since = None;
                seen.bad = 0;
            }
            (Kind::Deep, Outcome::Bad(_)) => {}
        }
        if observation.kind == Kind::Deep {
            if seen.deep.len() >= DEEP_KEPT {
                seen.deep.pop_front();
            }
            seen.deep.push_back((now, observation.outcome.clone(), observation.took));
        }
    }

    /// The clock went on. Whoever did not look for a while because this process stood still begins anew.
    pub fn tick(&mut self, now: Duration) {
        let stood_still = self.looked.is_some_and(|looked| now.saturating_sub(looked) >= STOOD_STILL);
        self.looked = Some(now);
        if stood_still {
            for seen in self.servers.values_mut().flat_map(BTreeMap::values_mut) {
                seen.bad_since = None;
                seen.bad = 0;
                seen.deep.clear();
            }
        }
    }

    /// Is it to be looked at more often, as this observer sees it?
    #[must_use]
    pub fn is_suspect(&self, server: &str, observer: &str) -> bool {
        self.servers.get(server).and_then(|seen| seen.get(observer)).is_some_and(|seen| seen.bad > 0)
    }

    /// When this observer last found that the server answers.
    #[must_use]
    pub fn last_good(&self, server: &str, observer: &str) -> Option<Duration> {
        self.servers.get(server)?.get(observer)?.good
    }

    /// What is found of a server.
    #[must_use]
    pub fn judge(&self, server: &str, rules: &Rules, now: Duration) -> Judgement {
        let Some(seen) = self.servers.get(server) else {
            let reason = "nobody has looked at it yet".to_owned();
            return Judgement { verdict: Verdict::Up, reason, votes: BTreeMap::new() };
        };
        // Who saw it answer and does not now speaks for what was before: no failure counts from before that.
        let alone: Vec<(&Seen, Vote)> = seen.values().map(|seen| (seen, vote(seen, rules, now))).collect();
        let answered = alone.iter().filter(|(_, vote)| *vote != Vote::Up).filter_map(|(seen, _)| seen.good).max();
        let votes: BTreeMap<String, Vote> = seen
            .iter()
            .map(|(observer, seen)| {
                let vote = vote_since(seen, rules, now, answered.unwrap_or_default());
                let blind = matches!(vote, Vote::Down(_))
                    && !self.saw_others(server, observer, seen.bad_since.max(answered), rules, now)
                    && self.is_blind(observer, rules, now);
                (observer.clone(), if blind { Vote::Silent } else { vote })
            })
            .collect();
        let count = |wanted: fn(&Vote) -> bool| votes.values().filter(|vote| wanted(vote)).count();
        let (up, down) = (count(|vote| *vote == Vote::Up), count(|vote| matches!(vote, Vote::Down(_))));
        let why = votes.iter().find_map(|(observer, vote)| match vote {
            Vote::Down(why) => Some(format!("{observer}: {why}")),
            _ => None,
        });
        let (verdict, reason) = match why {
            None if count(|vote| *vote == Vote::Unsure) > 0 && up == 0 => {
                (Verdict::Suspect, "it has not answered lately, and not for long enough".to_owned())
            }
            None if up == 0 => (Verdict::Up, "nobody has looked at it lately".to_owned()),
            None => (Verdict::Up, "it answers".to_owned()),
            Some(why) if down < rules.quorum => {
                (Verdict::Suspect, format!("{down} of the {} observers needed find it down ({why})", rules.quorum))
            }
            // In an outage nobody stays unsure for long.
            Some(why) if count(|vote| *vote == Vote::Unsure) > 0 => {
                (Verdict::Suspect, format!("not every observer has seen enough yet ({why})"))
            }
            Some(why) if up >= down => (Verdict::Suspect, format!("{down} find it down and {up} do not ({why})")),
            Some(why) if down == 1 && self.fails_everywhere(&votes, rules, now) => (
                Verdict::Suspect,
                format!("most primaries fail at once and one observer sees it: it may be the observer ({why})"),
            ),
            Some(why) => (Verdict::Down, format!("{down} of {} observers find it down ({why})", votes.len())),
        };
        Judgement { verdict, reason, votes }
    }

    /// Does this observer see nothing at all, while another sees some of the same?
    fn is_blind(&self, observer: &str, rules: &Rules, now: Duration) -> bool {
        let mine = || self.servers.values().filter_map(|seen| Some((seen, seen.get(observer)?)));
        let others_see = |seen: &BTreeMap<String, Seen>| {
            seen.iter().any(|(other, seen)| other != observer && vote(seen, rules, now) == Vote::Up)
        };
        mine().all(|(_, seen)| vote(seen, rules, now) != Vote::Up)
            && mine().any(|(all, seen)| seen.bad_since.is_some() && others_see(all))
    }

    /// Did this observer lately see another server answer, when it had found this one failing since `since` for long enough? Then
    /// it was not blind, though it may lose a look at the others just now.
    fn saw_others(&self, server: &str, observer: &str, since: Option<Duration>, rules: &Rules, now: Duration) -> bool {
        let others = self.servers.iter().filter(|(name, _)| *name != server);
        let saw = others.filter_map(|(_, seen)| seen.get(observer)?.good).max();
        since.zip(saw).is_some_and(|(since, saw)| saw >= since + rules.threshold && now.saturating_sub(saw) <= FRESH)
    }

    /// Does the only observer that finds a server down find most of many primaries down?
    fn fails_everywhere(&self, votes: &BTreeMap<String, Vote>, rules: &Rules, now: Duration) -> bool {
        let Some((observer, _)) = votes.iter().find(|(_, vote)| matches!(vote, Vote::Down(_))) else { return false };
        let all: Vec<&Seen> = self.primaries.iter().filter_map(|name| self.servers.get(name)?.get(observer)).collect();
        let down = all.iter().filter(|seen| matches!(vote(seen, rules, now), Vote::Down(_))).count();
        all.len() >= MANY && down * 2 > all.len()
    }
}

/// What one observer says of one server, by itself.
fn vote(seen: &Seen, rules: &Rules, now: Duration) -> Vote {
    vote_since(seen, rules, now, Duration::ZERO)
}

/// The same, where somebody else saw it answer as late as `answered`.
fn vote_since(seen: &Seen, rules: &Rules, now: Duration, answered: Duration) -> Vote {
    if now.saturating_sub(seen.last) > FRESH {
        return Vote::Silent;
    }
    if let Some(since) = seen.bad_since {
        // From the first to the last failure: of the time after that nobody knows.
        let so_long = seen.last.saturating_sub(since.max(answered));
        let is_fresh = now.saturating_sub(seen.last) <= FRESH_BAD;
        let is_enough = seen.bad >= LEAST_BAD || seen.bad >= LEAST_BAD_SLOWLY && so_long >= SLOWLY;
        if is_enough && so_long >= rules.threshold && is_fresh {
            return Vote::Down(seen.reason.clone());
        }
        return Vote::Unsure;
    }
    if let Some(why) = rules.degradation.and_then(|degradation| degraded(seen, degradation, now)) {
        return Vote::Down(why);
    }
    match seen.good {
        Some(good) if now.saturating_sub(good) <= FRESH => Vote::Up,
        _ => Vote::Unsure,
    }
}

/// Why a server that answers is no use all the same.
fn degraded(seen: &Seen, degradation: Degradation, now: Duration) -> Option<String> {
    let slow = Duration::try_from_secs_f64(degradation.latency_seconds).ok()?;
    let needed = Duration::try_from_secs_f64(degradation.seconds).ok()?;
    let is_bad = |(_, outcome, took): &(Duration, Outcome, Duration)| match outcome {
        Outcome::Bad(_) => true,
        Outcome::Good => *took > slow,
        Outcome::Unknown(_) => false,
    };
    let failing: Vec<_> = seen.deep.iter().rev().take_while(|look| is_bad(look)).collect();
    let (since, latest) = (failing.last()?.0, failing.first()?);
    if failing.len() < LEAST_DEGRADED || now.saturating_sub(since) < needed {
        return None;
    }
    let why = match &latest.1 {
        Outcome::Bad(why) => why.clone(),
        _ => format!("a thorough check took {:.1} s", latest.2.as_secs_f64()),
    };
    Some(format!("degraded for {} s: {why}", now.saturating_sub(since).as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { threshold: Duration::from_secs(5), quorum: 2, degradation: None };

    fn look(kind: Kind, outcome: Outcome) -> Observation {
        Observation { kind, outcome, took: Duration::from_millis(5) }
    }

    fn good() -> Observation {
        look(Kind::Quick, Outcome::Good)
    }

    fn bad() -> Observation {
        look(Kind::Quick, Outcome::Bad("connection refused".to_owned()))
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn two_must_find_it_for_as_long_as_was_said() {
        let mut observed = Observed::default();
        for half in 0..20 {
            let now = Duration::from_millis(500 * half);
            observed.tick(now);
            observed.note(now, "a", RECOVERY, &bad());
            if half >= 6 {
                observed.note(now, "a", SOURCE, &bad());
            }
            let expected = if half < 16 { Verdict::Suspect } else { Verdict::Down };
            assert_eq!(observed.judge("a", &RULES, now).verdict, expected, "after {now:?}");
        }
        observed.note(at(10), "a", SOURCE, &good());
        // Who alone sees nothing is blind.
        let judged = observed.judge("a", &RULES, at(10));
        assert_eq!((judged.verdict, &judged.votes[RECOVERY]), (Verdict::Up, &Vote::Silent));
    }

    #[test]
    fn silence_is_no_vote_and_a_refused_password_is_an_answer() {
        let mut observed = Observed::default();
        let refused = look(Kind::Deep, Outcome::Unknown("refused".to_owned()));
        observed.note(at(0), "a", SOURCE, &refused);
        observed.note(at(0), "a", RECOVERY, &good());
        assert_eq!(observed.judge("a", &RULES, at(1)).verdict, Verdict::Up);
        let later = observed.judge("a", &RULES, at(100));
        assert_eq!((later.verdict, &later.votes[SOURCE]), (Verdict::Up, &Vote::Silent));
    }

    #[test]
    fn a_blind_observer_has_no_vote() {
        let mut observed = Observed::default();
        observed.keep(&["a".into(), "b".into()], &["dr".into()]);
        for second in 0..20 {
            observed.tick(at(second));
            for server in ["a", "b"] {
                observed.note(at(second), server, "witness", &bad());
                observed.note(at(second), server, SOURCE, &good());
            }
            // The recovery site loses its way to one of them.
            observed.note(at(second), "a", RECOVERY, &bad());
            observed.note(at(second), "dr", RECOVERY, &good());
        }
        let judged = observed.judge("a", &RULES, at(20));
        assert_eq!((judged.verdict, &judged.votes["witness"]), (Verdict::Suspect, &Vote::Silent));
        // Two primaries that everybody finds down are down: that is no blindness.
        for second in 20..40 {
            observed.tick(at(second));
            for (server, observer) in [("a", SOURCE), ("b", SOURCE), ("a", RECOVERY), ("b", RECOVERY)] {
                observed.note(at(second), server, observer, &bad());
            }
        }
        for server in ["a", "b"] {
            assert_eq!(observed.judge(server, &RULES, at(40)).verdict, Verdict::Down, "{server}");
        }
    }

    #[test]
    fn slow_answers_count_where_they_are_to() {
        let degradation = Some(Degradation { latency_seconds: 1.0, seconds: 60.0 });
        let strict = Rules { degradation, ..RULES };
        let mut observed = Observed::default();
        for round in 0..4 {
            let now = at(round * 30);
            observed.tick(now);
            for observer in [RECOVERY, SOURCE] {
                let slow = Observation { took: Duration::from_secs(3), ..look(Kind::Deep, Outcome::Good) };
                observed.note(now, "a", observer, &slow);
            }
            assert_eq!(observed.judge("a", &RULES, now).verdict, Verdict::Up);
        }
        // The process stood still between the looks: nothing is held against anybody.
        assert_eq!(observed.judge("a", &strict, at(90)).verdict, Verdict::Up);
        for second in 90..200 {
            observed.tick(at(second));
            if second % 30 == 0 {
                for observer in [RECOVERY, SOURCE] {
                    let failed = look(Kind::Deep, Outcome::Bad("no INBOX".to_owned()));
                    observed.note(at(second), "a", observer, &failed);
                }
            }
            if second % 2 == 0 {
                observed.note(at(second), "a", RECOVERY, &good());
                observed.note(at(second), "a", SOURCE, &good());
            }
        }
        assert_eq!(observed.judge("a", &strict, at(200)).verdict, Verdict::Down);
        assert_eq!(observed.judge("a", &RULES, at(200)).verdict, Verdict::Up);
    }

    #[test]
    fn a_lonely_observer_of_many_failures_may_be_the_cause() {
        let lonely = Rules { quorum: 1, ..RULES };
        let mut observed = Observed::default();
        observed.keep(&["a".into(), "b".into(), "c".into()], &[]);
        for second in 0..20 {
            observed.tick(at(second));
            for server in ["a", "b"] {
                observed.note(at(second), server, RECOVERY, &bad());
            }
            observed.note(at(second), "c", RECOVERY, &good());
        }
        assert_eq!(observed.judge("a", &lonely, at(20)).verdict, Verdict::Suspect);
        observed.note(at(20), "b", RECOVERY, &good());
        assert_eq!(observed.judge("a", &lonely, at(20)).verdict, Verdict::Down);
    }
}
