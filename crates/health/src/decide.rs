//! From a verdict to what is done about it. No I/O, no clock.
//!
//! Keeps true: nothing is moved by itself that policy did not say, in maintenance, to a standby that does not answer, or past a
//! fence that nobody has seen hold.

use std::time::Duration;

use understudy_protocol::policy::Automatic;

use crate::verdict::Verdict;

/// An attempt that moved fewer than all is made again after this.
const AGAIN: Duration = Duration::from_secs(60);

/// Everything a decision rests on, for the mailboxes of one policy on one primary.
#[derive(Clone, Debug)]
pub struct Situation {
    pub automatic: Automatic,
    pub verdict: Verdict,
    pub in_maintenance: bool,
    /// Mailboxes on the primary that no hold-down keeps there.
    pub movable: usize,
    /// Those that were moved too lately.
    pub held_down: usize,
    /// Of the standbys they would go to, those that do not answer.
    pub standbys_down: Vec<String>,
    pub fence: Fence,
    pub restart: Restart,
    /// Since the last attempt in this outage.
    pub attempted: Option<Duration>,
    /// A change of side of some of them is under way.
    pub is_moving: bool,
}

/// Can users reach the primary past the front doors?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fence {
    /// It was tried, and they cannot.
    Holds(Kept),
    /// They can.
    Open(String),
    /// Nobody has tried.
    Unknown(String),
}

/// What keeps users who are on the standby from the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It lets users in from the front doors only.
    ByAddress,
    /// It asks at each log-in whether the user is its own now, and lets nobody in without an answer.
    ByLease,
}

/// The operator's own attempt to get the primary back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// There is none.
    None,
    Untried,
    /// It was begun so long ago; it has so long.
    Tried {
        ago: Duration,
        patience: Duration,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing, and nothing needs saying.
    Nothing,
    /// Nothing yet.
    Wait(&'static str),
    /// It would be done and must not be: why, and what to do about that.
    Refused {
        reason: String,
        remedy: String,
    },
    Restart,
    Switch,
    /// In shadow mode: what would have been done.
    WouldRestart,
    WouldSwitch,
}

/// What to do.
#[must_use]
pub fn decide(now: &Situation) -> Decision {
    if now.automatic == Automatic::Off || now.verdict != Verdict::Down {
        return Decision::Nothing;
    }
    if now.is_moving {
        return Decision::Wait("a change of side is under way");
    }
    if now.movable == 0 {
        return match now.held_down {
            0 => Decision::Nothing,
            _ => Decision::Wait("the mailboxes were moved too lately to be moved again by themselves"),
        };
    }
    if now.in_maintenance {
        return Decision::Wait("it is a time of maintenance");
    }
    if !now.standbys_down.is_empty() {
        return Decision::Refused {
            reason: format!(
                "the standby {} does not answer either: nobody is routed anywhere new",
                now.standbys_down.join(", ")
            ),
            remedy: "Get one of the two servers back; `understudy server show NAME` says what was found.".to_owned(),
        };
    }
    match &now.fence {
        Fence::Holds(_) => {}
        Fence::Open(reason) | Fence::Unknown(reason) => {
            return Decision::Refused {
                reason: reason.clone(),
                remedy: "Close that way (docs/front-doors.md, \"The fence at the primary\"), and name a canary with a password so that it can be tried; \
                         or switch over by hand: `understudy switchover --server NAME --mode emergency`."
                    .to_owned(),
            };
        }
    }
    let shadow = now.automatic == Automatic::Shadow;
    match now.restart {
        Restart::Untried if shadow => return Decision::WouldRestart,
        Restart::Untried => return Decision::Restart,
        Restart::Tried { ago, patience } if ago < patience => return Decision::Wait("a restart was tried"),
        Restart::None | Restart::Tried { .. } => {}
    }
    if now.attempted.is_some_and(|ago| ago < AGAIN) {
        return Decision::Wait("it was tried a moment ago");
    }
    if shadow { Decision::WouldSwitch } else { Decision::Switch }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outage() -> Situation {
        Situation {
            automatic: Automatic::On,
            verdict: Verdict::Down,
            in_maintenance: false,
            movable: 3,
            held_down: 0,
            standbys_down: Vec::new(),
            fence: Fence::Holds(Kept::ByAddress),
            restart: Restart::None,
            attempted: None,
            is_moving: false,
        }
    }

    #[test]
    fn an_outage_moves_users_unless_something_speaks_against_it() {
        assert_eq!(decide(&outage()), Decision::Switch);
        assert_eq!(decide(&Situation { fence: Fence::Holds(Kept::ByLease), ..outage() }), Decision::Switch);
        assert_eq!(decide(&Situation { automatic: Automatic::Off, ..outage() }), Decision::Nothing);
        assert_eq!(decide(&Situation { verdict: Verdict::Suspect, ..outage() }), Decision::Nothing);
        assert_eq!(decide(&Situation { automatic: Automatic::Shadow, ..outage() }), Decision::WouldSwitch);
        for waiting in [
            Situation { in_maintenance: true, ..outage() },
            Situation { movable: 0, held_down: 3, ..outage() },
            Situation { is_moving: true, ..outage() },
            Situation { attempted: Some(Duration::from_secs(5)), ..outage() },
        ] {
            assert!(matches!(decide(&waiting), Decision::Wait(_)), "{waiting:?}");
        }
        for refused in [
            Situation { standbys_down: vec!["dr-1".to_owned()], ..outage() },
            Situation { fence: Fence::Open("users get in".to_owned()), ..outage() },
            Situation { fence: Fence::Unknown("nobody tried".to_owned()), ..outage() },
        ] {
            assert!(matches!(decide(&refused), Decision::Refused { .. }), "{refused:?}");
        }
    }

    #[test]
    fn a_restart_is_tried_once_and_first() {
        let restart = |restart| decide(&Situation { restart, ..outage() });
        let tried = |ago| Restart::Tried { ago: Duration::from_secs(ago), patience: Duration::from_secs(30) };
        assert_eq!(restart(Restart::Untried), Decision::Restart);
        assert_eq!(restart(tried(3)), Decision::Wait("a restart was tried"));
        assert_eq!(restart(tried(30)), Decision::Switch);
        let shadow = Situation { automatic: Automatic::Shadow, restart: Restart::Untried, ..outage() };
        assert_eq!(decide(&shadow), Decision::WouldRestart);
    }
}
