//! Quiet hours: until when something that can wait waits.

use chrono::{DateTime, FixedOffset, NaiveTime, TimeDelta, Utc};

/// When the quiet hours end that `now` falls into; none when it falls into none. `from` after `to` reaches over midnight.
pub(crate) fn ends(
    now: DateTime<Utc>,
    from: NaiveTime,
    to: NaiveTime,
    utc_offset_minutes: i32,
) -> Option<DateTime<Utc>> {
    let offset = FixedOffset::east_opt(utc_offset_minutes * 60)?;
    let local = now.with_timezone(&offset);
    let time = local.time();
    let is_quiet = if from <= to { from <= time && time < to } else { time >= from || time < to };
    if !is_quiet {
        return None;
    }
    let today = local.date_naive().and_time(to).and_local_timezone(offset).single()?;
    let end = if today > local { today } else { today + TimeDelta::days(1) };
    Some(end.with_timezone(&Utc))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_hours_reach_over_midnight() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().expect("a time");
        let time = |text: &str| text.parse::<NaiveTime>().expect("a time of day");
        let (from, to) = (time("22:00:00"), time("06:00:00"));
        assert_eq!(ends(at("2026-11-22T12:00:00Z"), from, to, 0), None);
        assert_eq!(ends(at("2026-11-22T23:00:00Z"), from, to, 0), Some(at("2026-11-23T06:00:00Z")));
        assert_eq!(ends(at("2026-11-22T05:59:59Z"), from, to, 0), Some(at("2026-11-22T06:00:00Z")));
        assert_eq!(ends(at("2026-11-22T06:00:00Z"), from, to, 0), None);
        // 21:30 UTC is 22:30 there.
        assert_eq!(ends(at("2026-11-22T21:30:00Z"), from, to, 60), Some(at("2026-11-23T05:00:00Z")));
        assert_eq!(
            ends(at("2026-11-22T13:00:00Z"), time("12:00:00"), time("14:00:00"), 0),
            Some(at("2026-11-22T14:00:00Z"))
        );
    }
}
