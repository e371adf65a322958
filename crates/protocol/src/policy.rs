//! How mailboxes are treated: one document, written by people, read by every part that has a choice.
//!
//! Keeps true: what a document does not say is as in [`Policy::default`]; a document that [`Policy::problems`] finds nothing wrong
//! with can be acted upon.

use chrono::{DateTime, Datelike, NaiveTime, Utc, Weekday};
use serde::{Deserialize, Serialize};

/// The name of the policy that mailboxes have unless they are given another.
pub const DEFAULT: &str = "default";
/// The longest command or file name.
const LONGEST_NAME: usize = 200;
/// A day has so many minutes.
const MINUTES_OF_A_DAY: i32 = 24 * 60;

/// How mailboxes are treated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// What is done by itself when a primary is down.
    pub switchover: Automatic,
    /// A primary must have been silent for so long.
    pub threshold_seconds: f64,
    /// After a change of side a mailbox is not moved again by itself for so long.
    pub hold_down_seconds: f64,
    /// So many observers must find a primary down.
    pub quorum: u32,
    /// Transactions of a mailbox that may be lost in a switchover by itself; any number when null.
    pub max_loss: Option<u32>,
    /// Whether mailboxes come home by themselves.
    pub switchback: Switchback,
    /// When slow answers and failing log-ins count as an outage; never when null.
    pub degradation: Option<Degradation>,
    /// When nothing is moved by itself.
    pub maintenance: Vec<Window>,
    /// Tried once before a switchover by itself.
    pub restart: Option<Restart>,
    /// Before and after each change of side.
    pub before: Vec<Hook>,
    pub after: Vec<Hook>,
    /// How much may be removed before a person is asked; what lacks is as in the configuration.
    pub brake: Brake,
    /// Lower is served earlier.
    pub priority: i32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            switchover: Automatic::Off,
            threshold_seconds: 15.0,
            hold_down_seconds: 3600.0,
            quorum: 2,
            max_loss: None,
            switchback: Switchback::Off,
            degradation: None,
            maintenance: Vec::new(),
            restart: None,
            before: Vec::new(),
            after: Vec::new(),
            brake: Brake::default(),
            priority: 100,
        }
    }
}

/// What is done by itself when a primary is down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Automatic {
    #[default]
    Off,
    /// It is recorded what would have been done.
    Shadow,
    On,
}

/// Whether mailboxes come home by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Switchback {
    #[default]
    Off,
    On,
}

/// When a primary that answers counts as down all the same.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Degradation {
    /// A deep check that takes longer has failed.
    pub latency_seconds: f64,
    /// Every deep check must have failed for so long.
    pub seconds: f64,
}

/// A time of the week in which nothing is moved by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Days on which it begins; every day when there are none.
    #[serde(default)]
    pub days: Vec<Day>,
    /// `22:00`.
    pub from: String,
    /// `04:00`; when it is not after `from`, on the day after.
    pub to: String,
    /// East of Greenwich.
    #[serde(default)]
    pub utc_offset_minutes: i32,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Day {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

/// Something outside that is called.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hook {
    /// A file in the recovery gateway's folder of hooks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Where a signed request goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// A file in the recovery gateway's folder of hooks: its first line signs the requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<String>,
    /// The request may go to an address that is not public.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_private: bool,
    /// What takes longer has failed; 30 when null.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<f64>,
}

impl Hook {
    /// What takes longer has failed.
    #[must_use]
    pub fn timeout_seconds(&self) -> f64 {
        self.timeout_seconds.unwrap_or(30.0)
    }

    /// For people.
    #[must_use]
    pub fn name(&self) -> &str {
        self.command.as_deref().or(self.webhook.as_deref()).unwrap_or_default()
    }
}

/// An attempt to get the primary back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    pub hook: Hook,
    /// So long the primary has to answer again.
    #[serde(default = "half_a_minute")]
    pub wait_seconds: f64,
}

fn half_a_minute() -> f64 {
    30.0
}

/// Limits of the mass-change brake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Brake {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// More than this share of a mailbox, from 0 to 1, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// … and at least so many messages, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<u32>,
    /// … within this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within_seconds: Option<u64>,
}

/// Something wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where (RFC 6901).
    pub pointer: String,
    pub detail: String,
}

impl Policy {
    /// Everything that is wrong with the document.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Problems(Vec::new());
        found.within("/threshold_seconds", self.threshold_seconds, 2.0, 86_400.0);
        found.within("/hold_down_seconds", self.hold_down_seconds, 0.0, 604_800.0);
        found.within("/quorum", f64::from(self.quorum), 1.0, 9.0);
        found.within("/priority", f64::from(self.priority), 0.0, 1000.0);
        if let Some(degradation) = self.degradation {
            found.within("/degradation/latency_seconds", degradation.latency_seconds, 0.05, 600.0);
            found.within("/degradation/seconds", degradation.seconds, 5.0, 86_400.0);
        }
        for (index, window) in self.maintenance.iter().enumerate() {
            for (name, text) in [("from", &window.from), ("to", &window.to)] {
                if time_of(text).is_none() {
                    found.add(
                        format!("/maintenance/{index}/{name}"),
                        format!("\"{text}\" is no time such as \"22:30\""),
                    );
                }
            }
            if window.utc_offset_minutes.abs() > MINUTES_OF_A_DAY {
                found.add(format!("/maintenance/{index}/utc_offset_minutes"), "an offset is at most a day".to_owned());
            }
        }
        if let Some(restart) = &self.restart {
            found.within("/restart/wait_seconds", restart.wait_seconds, 0.0, 3600.0);
            found.hook("/restart/hook", &restart.hook);
        }
        for (list, hooks) in [("before", &self.before), ("after", &self.after)] {
            for (index, hook) in hooks.iter().enumerate() {
                found.hook(&format!("/{list}/{index}"), hook);
            }
        }
        if let Some(share) = self.brake.share {
            found.within("/brake/share", share, 0.0, 1.0);
        }
        if self.brake.messages == Some(0) {
            found.add("/brake/messages".to_owned(), "it is at least 1".to_owned());
        }
        if let Some(within) = self.brake.within_seconds
            && !(1..=604_800).contains(&within)
        {
            found.add("/brake/within_seconds".to_owned(), "it is from 1 to 604800".to_owned());
        }
        found.0
    }

    /// Is nothing to be moved by itself at this moment?
    #[must_use]
    pub fn in_maintenance(&self, now: DateTime<Utc>) -> bool {
        self.maintenance.iter().any(|window| window.contains(now))
    }
}

impl Window {
    /// Whether a moment lies within. A window whose ends are the same lasts a whole day.
    #[must_use]
    pub fn contains(&self, now: DateTime<Utc>) -> bool {
        let (Some(from), Some(to)) = (time_of(&self.from), time_of(&self.to)) else { return false };
        let Some(offset) = chrono::Duration::try_minutes(i64::from(self.utc_offset_minutes)) else { return false };
        let local = now.naive_utc() + offset;
        let begins_on = |day: Weekday| self.days.is_empty() || self.days.iter().any(|given| given.weekday() == day);
        let (today, time) = (local.weekday(), local.time());
        if from < to {
            return begins_on(today) && time >= from && time < to;
        }
        (begins_on(today) && time >= from) || (begins_on(today.pred()) && time < to)
    }
}

impl Day {
    fn weekday(self) -> Weekday {
        match self {
            Self::Monday => Weekday::Mon,
            Self::Tuesday => Weekday::Tue,
            Self::Wednesday => Weekday::Wed,
            Self::Thursday => Weekday::Thu,
            Self::Friday => Weekday::Fri,
            Self::Saturday => Weekday::Sat,
            Self::Sunday => Weekday::Sun,
        }
    }
}

fn time_of(text: &str) -> Option<NaiveTime> {
    NaiveTime::parse_from_str(text, "%H:%M").ok()
}

struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, pointer: String, detail: String) {
        self.0.push(Problem { pointer, detail });
    }

    fn within(&mut self, pointer: &str, value: f64, low: f64, high: f64) {
        if !(low..=high).contains(&value) {
            self.add(pointer.to_owned(), format!("{value} is not from {low} to {high}"));
        }
    }

    fn hook(&mut self, pointer: &str, hook: &Hook) {
        match (&hook.command, &hook.webhook) {
            (Some(command), None) => {
                if !is_file_name(command) {
                    let why = "a command is the name of a file in the folder of hooks, without a path";
                    self.add(format!("{pointer}/command"), why.to_owned());
                }
                if hook.secret_file.is_some() || hook.allow_private {
                    self.add(pointer.to_owned(), "`secret_file` and `allow_private` belong to a webhook".to_owned());
                }
            }
            (None, Some(url)) => {
                if !(url.starts_with("https://") || url.starts_with("http://")) {
                    self.add(format!("{pointer}/webhook"), "a webhook is a URL: https://…".to_owned());
                }
                match &hook.secret_file {
                    Some(file) if is_file_name(file) => {}
                    Some(_) => {
                        let why = "it is the name of a file in the folder of hooks, without a path";
                        self.add(format!("{pointer}/secret_file"), why.to_owned());
                    }
                    None => {
                        self.add(pointer.to_owned(), "a webhook needs a `secret_file`: requests are signed".to_owned())
                    }
                }
            }
            _ => self.add(pointer.to_owned(), "a hook has either a `command` or a `webhook`".to_owned()),
        }
        self.within(&format!("{pointer}/timeout_seconds"), hook.timeout_seconds(), 0.1, 3600.0);
    }
}

fn is_file_name(name: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty() && name.len() <= LONGEST_NAME && !name.starts_with('.') && name.chars().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Policy {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_built_in_policy_is_good_and_does_nothing_by_itself() {
        let policy = read("{}");
        assert_eq!((policy.problems(), policy.switchover), (Vec::new(), Automatic::Off));
        assert_eq!(policy.switchback, Switchback::Off);
        let again = serde_json::from_value::<Policy>(serde_json::to_value(&policy).unwrap()).unwrap();
        assert_eq!(again, policy);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = read(
            r#"{"threshold_seconds": 0, "quorum": 0, "degradation": {"latency_seconds": 0, "seconds": 60},
                "maintenance": [{"from": "25:00", "to": "04:00"}], "restart": {"hook": {"command": "/bin/sh"}},
                "before": [{}], "after": [{"webhook": "ftp://x"}], "brake": {"share": 2, "messages": 0}}"#,
        );
        let pointers: Vec<String> = wrong.problems().into_iter().map(|problem| problem.pointer).collect();
        let expected = [
            "/threshold_seconds",
            "/quorum",
            "/degradation/latency_seconds",
            "/maintenance/0/from",
            "/restart/hook/command",
            "/before/0",
            "/after/0/webhook",
            "/after/0",
            "/brake/share",
            "/brake/messages",
        ];
        assert_eq!(pointers, expected);
        assert!(serde_json::from_str::<Policy>(r#"{"treshold_seconds": 5}"#).is_err());
    }

    #[test]
    fn windows_go_over_midnight_and_know_where_they_are() {
        let window: Window =
            serde_json::from_str(r#"{"days": ["saturday"], "from": "22:00", "to": "04:00", "utc_offset_minutes": 60}"#)
                .unwrap();
        let at = |text: &str| window.contains(text.parse::<DateTime<Utc>>().unwrap());
        // 2026-11-21 is a Saturday.
        assert!(!at("2026-11-21T20:59:00Z") && at("2026-11-21T21:00:00Z") && at("2026-11-22T02:59:00Z"));
        assert!(!at("2026-11-22T03:00:00Z") && !at("2026-11-22T22:00:00Z"));
    }
}
