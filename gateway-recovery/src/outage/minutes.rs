//! What was found of servers, added up by the minute until it is written down.

use std::collections::HashMap;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use understudy_database::health::Minute;
use understudy_health::verdict::{Kind, Observation, Outcome};

/// Minutes not yet written down.
#[derive(Default)]
pub(super) struct Minutes(HashMap<(i64, String, &'static str, DateTime<Utc>), Minute>);

/// As interfaces spell it.
pub(super) fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Quick => "quick",
        Kind::Deep => "deep",
    }
}

impl Minutes {
    pub(super) fn add(&mut self, server_id: i64, observer: &str, observation: &Observation) {
        let now = Utc::now();
        let at = now.duration_trunc(TimeDelta::minutes(1)).unwrap_or(now);
        let kind = kind(observation.kind);
        let minute = self.0.entry((server_id, observer.to_owned(), kind, at)).or_insert_with(|| Minute {
            server_id,
            observer: observer.to_owned(),
            kind: kind.to_owned(),
            minute: at,
            ..Minute::default()
        });
        match &observation.outcome {
            Outcome::Bad(reason) => {
                minute.bad += 1;
                minute.reason.clone_from(reason);
            }
            Outcome::Good => minute.good += 1,
            Outcome::Unknown(reason) => {
                minute.good += 1;
                minute.reason.clone_from(reason);
            }
        }
        minute.seconds_sum += observation.took.as_secs_f64();
        minute.seconds_max = minute.seconds_max.max(observation.took.as_secs_f64());
    }

    /// Everything, to be written down.
    pub(super) fn take(&mut self) -> Vec<Minute> {
        std::mem::take(&mut self.0).into_values().collect()
    }
}
