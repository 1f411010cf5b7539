//! Times, durations and foreign texts as people read them. Pure.

use std::time::Duration;

use super::escape;
use crate::domain::time::WallTime;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// What stands for "nothing" in a table.
pub const NONE: &str = "-";

/// An RFC 3339 time as "3 min ago"; older than a month, or in the future (the clock was set back),
/// as it is; text that is not a time as it is.
#[must_use]
pub fn ago(now: WallTime, at: &str) -> String {
    let Ok(time) = at.parse::<jiff::Timestamp>() else {
        return clean(at);
    };
    let seconds = now.0.div_euclid(1000) - time.as_second();
    match seconds {
        -2..=1 => "just now".to_owned(),
        2..MINUTE => format!("{seconds} s ago"),
        MINUTE..HOUR => format!("{} min ago", seconds / MINUTE),
        HOUR..DAY => format!("{} h ago", seconds / HOUR),
        DAY..2_592_000 => format!(
            "{} {} ago",
            seconds / DAY,
            if seconds < 2 * DAY { "day" } else { "days" }
        ),
        _ => time.strftime("%Y-%m-%d %H:%M").to_string(),
    }
}

/// What stands for a time that there was none of.
pub const NEVER: &str = "never";

/// The same, or "never".
#[must_use]
pub fn maybe_ago(now: WallTime, at: Option<&str>) -> String {
    at.map_or_else(|| NEVER.to_owned(), |at| ago(now, at))
}

/// A duration with the one or two units that matter: "52 ms", "1.3 s", "2 min 5 s", "15 min", "3
/// h".
#[must_use]
pub fn duration(d: Duration) -> String {
    let ms = d.as_millis();
    let seconds = d.as_secs();
    let pair = |big: u64, name: &str, small: u64, small_name: &str| match small {
        0 => format!("{big} {name}"),
        _ => format!("{big} {name} {small} {small_name}"),
    };
    match ms {
        0..1000 => format!("{ms} ms"),
        _ if ms < 60_000 && ms.is_multiple_of(1000) => format!("{seconds} s"),
        1000..60_000 => format!("{:.1} s", (ms / 100) as f64 / 10.0),
        60_000..3_600_000 => pair(seconds / 60, "min", seconds % 60, "s"),
        _ => pair(seconds / 3600, "h", seconds % 3600 / 60, "min"),
    }
}

/// Text from outside on one line, see `escape`.
#[must_use]
pub fn clean(text: &str) -> String {
    escape::line(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_people_say_them() {
        let now = WallTime(1_767_323_045_999); // 2026-01-02T03:04:05Z
        for (at, text) in [
            ("2026-01-02T03:04:05Z", "just now"),
            ("2026-01-02T03:04:06Z", "just now"),
            ("2026-01-02T03:04:00.9Z", "5 s ago"),
            ("2026-01-02T03:01:05Z", "3 min ago"),
            ("2026-01-02T04:01:05+01:00", "3 min ago"),
            ("2026-01-01T22:04:05Z", "5 h ago"),
            ("2026-01-01T03:04:05Z", "1 day ago"),
            ("2025-12-30T03:04:05Z", "3 days ago"),
            ("2025-10-02T03:04:05Z", "2025-10-02 03:04"),
            ("2027-10-02T03:04:05Z", "2027-10-02 03:04"),
            ("soon", "soon"),
        ] {
            assert_eq!(ago(now, at), text, "{at}");
        }
        assert_eq!(maybe_ago(now, None), "never");
    }

    #[test]
    fn durations_have_the_units_that_matter() {
        for (ms, text) in [
            (0, "0 ms"),
            (52, "52 ms"),
            (1000, "1 s"),
            (1349, "1.3 s"),
            (59_990, "59.9 s"),
            (60_000, "1 min"),
            (125_000, "2 min 5 s"),
            (900_000, "15 min"),
            (3_600_000, "1 h"),
            (5_400_000, "1 h 30 min"),
        ] {
            assert_eq!(duration(Duration::from_millis(ms)), text, "{ms}");
        }
    }
}
