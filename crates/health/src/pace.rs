//! When a server is to be looked at quickly, and which looks still count. No I/O, no clock.
//!
//! In: when looks begin and end. Out: when the next one is due.
//! Keeps true: one look at a time while the server answers; while it does not, a new one every [`SUSPECT_EVERY`] without
//! waiting for those before, so that a way that only loses looks shows it at once; an answer ends every look that began before it.

use std::time::Duration;

use crate::verdict::SUSPECT_EVERY;

/// The looks at one server by one observer.
#[derive(Clone, Debug)]
pub struct Pace {
    every: Duration,
    due: Option<Duration>,
    is_failing: bool,
    next: u64,
    underway: Vec<u64>,
}

impl Pace {
    /// The first look is due at once, the others so often while the server answers.
    #[must_use]
    pub fn new(every: Duration) -> Self {
        Self { every, due: Some(Duration::ZERO), is_failing: false, next: 0, underway: Vec::new() }
    }

    /// When the next look is due; `None` while an answer is waited for.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.due
    }

    /// A look begins.
    pub fn begin(&mut self, now: Duration) -> u64 {
        self.next += 1;
        self.underway.push(self.next);
        self.due = self.is_failing.then(|| now + SUSPECT_EVERY);
        self.next
    }

    /// A look ends. False when it does not count: the server has answered since it began.
    pub fn end(&mut self, look: u64, is_bad: bool, now: Duration) -> bool {
        if !self.underway.contains(&look) {
            return false;
        }
        self.is_failing = is_bad;
        if is_bad {
            self.underway.retain(|other| *other != look);
            let soon = now + SUSPECT_EVERY;
            self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
        } else {
            self.underway.clear();
            self.due = Some(now + self.every);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(2);

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn one_at_a_time_while_it_answers() {
        let mut pace = Pace::new(EVERY);
        let look = pace.begin(at(0.0));
        assert_eq!(pace.due(), None);
        assert!(pace.end(look, false, at(1.0)));
        assert_eq!(pace.due(), Some(at(3.0)));
    }

    #[test]
    fn failing_ones_are_not_waited_for_and_an_answer_ends_them() {
        let mut pace = Pace::new(EVERY);
        let first = pace.begin(at(0.0));
        assert!(pace.end(first, true, at(3.0)));
        assert_eq!(pace.due(), Some(at(3.5)));
        let lost = pace.begin(at(3.5));
        assert_eq!(pace.due(), Some(at(4.0)));
        let answered = pace.begin(at(4.0));
        assert!(pace.end(answered, false, at(4.1)));
        assert!(!pace.end(lost, true, at(6.5)), "it began before the answer");
        assert_eq!(pace.due(), Some(at(6.1)));
    }
}
