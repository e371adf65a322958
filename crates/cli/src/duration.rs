//! Durations as people write them: `500ms`, `60s`, `5m`, `1h30m`, `2d`, or a bare number of seconds.

use std::time::Duration;

/// Reads a duration; the error says what is wrong with it.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is no duration: write 500ms, 60s, 5m, 1h30m or 2d");
    let text_trimmed = text.trim();
    if let Ok(seconds) = text_trimmed.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut rest = text_trimmed;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, after) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let milliseconds = match unit.trim() {
            "ms" => 1,
            "s" | "sec" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let part = number.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = after;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let check = |text: &str, milliseconds: u64| {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        };
        check("60s", 60_000);
        check("60", 60_000);
        check("500ms", 500);
        check("5m", 300_000);
        check("1h30m", 5_400_000);
        check("2d", 172_800_000);
        check(" 10 s ", 10_000);
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "s", "5 parsecs", "-3s", "1.5h", "5m3", "99999999999999999999s", "99999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
