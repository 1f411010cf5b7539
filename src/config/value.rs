//! Parses and writes single values: durations, sizes, addresses, paths. Each parser returns the
//! value or the reason why it is wrong, and each writer returns a text that its parser reads as the
//! same value.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeValue;

use crate::domain::port::PortRange;

/// Longest duration: far above any use, and far below the point where adding two overflows.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// A value, or why it is wrong.
pub(crate) type Parsed<T> = Result<T, String>;

/// A text.
pub(crate) fn text(value: &DeValue<'_>) -> Parsed<String> {
    value
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| "must be a quoted string".to_owned())
}

/// A non-empty text without control characters.
pub(crate) fn line(value: &DeValue<'_>) -> Parsed<String> {
    let text = text(value)?;
    if text.chars().any(char::is_control) {
        Err("must not contain control characters".to_owned())
    } else {
        Ok(text)
    }
}

/// A text that can be passed to a program as an argument or a variable: without a zero byte.
pub(crate) fn argument(value: &DeValue<'_>) -> Parsed<String> {
    let text = text(value)?;
    if text.contains('\0') {
        Err("must not contain a zero byte".to_owned())
    } else {
        Ok(text)
    }
}

/// A text; an empty one means none.
pub(crate) fn or_none<T>(
    value: &DeValue<'_>,
    parse: impl FnOnce(&DeValue<'_>) -> Parsed<T>,
) -> Parsed<Option<T>> {
    if value.as_str() == Some("") {
        Ok(None)
    } else {
        parse(value).map(Some)
    }
}

/// A value, or the word for none.
pub(crate) fn or_word<T>(
    value: &DeValue<'_>,
    word: &'static str,
    parse: impl FnOnce(&DeValue<'_>) -> Parsed<T>,
) -> Parsed<Option<T>> {
    if value.as_str() == Some(word) {
        return Ok(None);
    }
    parse(value)
        .map(Some)
        .map_err(|reason| format!("{reason}, or \"{word}\""))
}

/// `true` or `false`.
pub(crate) fn boolean(value: &DeValue<'_>) -> Parsed<bool> {
    value
        .as_bool()
        .ok_or_else(|| "must be true or false".to_owned())
}

/// A whole number between these limits.
pub(crate) fn whole(least: usize, most: usize) -> impl FnOnce(&DeValue<'_>) -> Parsed<usize> {
    move |value| {
        let number = value
            .as_integer()
            .and_then(|i| usize::from_str_radix(i.as_str(), i.radix()).ok());
        number
            .filter(|n| (least..=most).contains(n))
            .ok_or_else(|| format!("must be a whole number from {least} to {most}"))
    }
}

/// One word of a list.
pub(crate) fn one_of<T: Copy>(words: &[(&str, T)]) -> impl Fn(&DeValue<'_>) -> Parsed<T> {
    move |value| {
        let found = value
            .as_str()
            .and_then(|text| words.iter().find(|(word, _)| *word == text));
        let all = || {
            words
                .iter()
                .map(|(word, _)| format!("\"{word}\""))
                .collect::<Vec<_>>()
                .join(", ")
        };
        found
            .map(|(_, meaning)| *meaning)
            .ok_or_else(|| format!("must be one of {}", all()))
    }
}

/// A duration such as `15m` or `1h 30m`.
pub(crate) fn duration(value: &DeValue<'_>) -> Parsed<Duration> {
    let wrong = || "not a duration such as \"15m\", \"30s\", \"1h 30m\" or \"500ms\"".to_owned();
    let parsed =
        humantime::parse_duration(value.as_str().ok_or_else(wrong)?).map_err(|_| wrong())?;
    if parsed > LONGEST {
        Err("must be at most 365 days".to_owned())
    } else {
        Ok(parsed)
    }
}

/// A duration that is not zero.
pub(crate) fn some_time(value: &DeValue<'_>) -> Parsed<Duration> {
    let parsed = duration(value)?;
    if parsed.is_zero() {
        Err("must be longer than zero".to_owned())
    } else {
        Ok(parsed)
    }
}

/// A time after which something ends, or `never`.
pub(crate) fn never(value: &DeValue<'_>) -> Parsed<Option<Duration>> {
    if value.as_str() == Some("never") {
        return Ok(None);
    }
    some_time(value)
        .map(Some)
        .map_err(|reason| format!("{reason}, nor \"never\""))
}

/// A pause, or `off`.
pub(crate) fn pause(value: &DeValue<'_>) -> Parsed<Option<Duration>> {
    if value.as_str() == Some("off") {
        return Ok(None);
    }
    let parsed = duration(value).map_err(|reason| format!("{reason}, nor \"off\""))?;
    if parsed < Duration::from_millis(10) {
        Err("must be \"off\" or at least 10ms".to_owned())
    } else {
        Ok(Some(parsed))
    }
}

/// Writes a duration for a file: many days as days, because a month of 30.44 days is never what was
/// meant.
pub(crate) fn show_duration(duration: Duration) -> String {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let days = duration.as_secs() / DAY.as_secs();
    if days >= 30 && DAY.saturating_mul(u32::try_from(days).unwrap_or(u32::MAX)) == duration {
        return format!("{days}days");
    }
    humantime::format_duration(duration).to_string()
}

/// A number of bytes such as `1GiB` or `20 MB`.
pub(crate) fn size(value: &DeValue<'_>) -> Parsed<u64> {
    let wrong = || "not a size such as \"1GiB\", \"20MB\" or \"65536B\"".to_owned();
    let parsed = value
        .as_str()
        .ok_or_else(wrong)?
        .parse::<bytesize::ByteSize>()
        .map_err(|_| wrong())?
        .as_u64();
    // nginx reads 0 as "no limit", the opposite of what it says.
    if parsed == 0 {
        Err("must be more than zero".to_owned())
    } else {
        Ok(parsed)
    }
}

/// A number of bytes, at least this many.
pub(crate) fn size_of(least: u64) -> impl FnOnce(&DeValue<'_>) -> Parsed<u64> {
    move |value| {
        size(value).and_then(|bytes| {
            if bytes < least {
                Err(format!("must be at least \"{}\"", show_size(least)))
            } else {
                Ok(bytes)
            }
        })
    }
}

/// A number of bytes, or `off` for none at all.
pub(crate) fn size_or_off(value: &DeValue<'_>) -> Parsed<u64> {
    if value.as_str() == Some("off") {
        Ok(0)
    } else {
        size(value).map_err(|reason| format!("{reason}, nor \"off\""))
    }
}

/// Writes a number of bytes for a file: in the largest unit that divides it.
pub(crate) fn show_size(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = units
        .into_iter()
        .find(|(_, bits)| bytes.trailing_zeros() >= *bits);
    unit.map_or_else(
        || format!("{bytes}B"),
        |(name, bits)| format!("{}{name}", bytes >> bits),
    )
}

/// An address with a port.
pub(crate) fn address(value: &DeValue<'_>) -> Parsed<SocketAddr> {
    let parsed = value
        .as_str()
        .and_then(|text| text.parse::<SocketAddr>().ok());
    let parsed = parsed.ok_or_else(|| {
        "not an address with a port such as \"127.0.0.1:8080\" or \"[::]:80\"".to_owned()
    })?;
    if parsed.port() == 0 {
        Err("the port must be from 1 to 65535".to_owned())
    } else {
        Ok(parsed)
    }
}

/// A port.
pub(crate) fn port(value: &DeValue<'_>) -> Parsed<u16> {
    whole(1, 65_535)(value).map(|port| u16::try_from(port).unwrap_or(u16::MAX))
}

/// Two ports and a dash.
pub(crate) fn port_range(value: &DeValue<'_>) -> Parsed<PortRange> {
    let ends = value.as_str().and_then(|text| text.split_once('-'));
    let ends = ends
        .and_then(|(a, b)| Some((a.trim().parse::<u16>().ok()?, b.trim().parse::<u16>().ok()?)));
    let (first, last) =
        ends.ok_or_else(|| "not a range of ports such as \"20000-29999\"".to_owned())?;
    if first > last {
        Err("the first port is above the last".to_owned())
    } else if first < 1024 {
        Err("ports below 1024 are reserved for the system".to_owned())
    } else {
        Ok(PortRange { first, last })
    }
}

/// An absolute path that every configuration of acc can contain without quoting.
pub(crate) fn absolute(value: &DeValue<'_>) -> Parsed<PathBuf> {
    let path = PathBuf::from(text(value)?);
    check_path(&path).map(|()| path)
}

/// Why a folder cannot be used, if so. nginx cannot express a `$` in a path and ends a socket's
/// path at a colon; supervisord interprets `%` and ` ;`: such paths are refused rather than half
/// supported.
pub(crate) fn check_path(path: &Path) -> Parsed<()> {
    let plain = |c: char| c.is_alphanumeric() || "/._-+@=~".contains(c);
    if !path.is_absolute() {
        Err("must be an absolute path".to_owned())
    } else if path
        .components()
        .any(|part| part == std::path::Component::ParentDir)
    {
        Err("must not contain `..`".to_owned())
    } else if path == Path::new("/") {
        Err("must not be the root folder".to_owned())
    } else if !path.to_str().is_some_and(|text| text.chars().all(plain)) {
        Err("only letters, digits and / . _ - + @ = ~ are allowed in it".to_owned())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> DeValue<'_> {
        DeValue::String(text.into())
    }

    #[test]
    fn what_is_written_is_read_back() {
        for bytes in [1, 1000, 1024, 1536, 1 << 20, (1 << 30) + 1, 5 << 40] {
            assert_eq!(size(&string(&show_size(bytes))), Ok(bytes));
        }
        assert_eq!(show_size(1 << 30), "1GiB");
        for ms in [1, 500, 1_500, 90_000, 5_400_000, 86_400_000 * 300] {
            assert_eq!(
                duration(&string(&show_duration(Duration::from_millis(ms)))),
                Ok(Duration::from_millis(ms))
            );
        }
        assert_eq!(show_duration(Duration::from_secs(900)), "15m");
    }

    #[test]
    fn paths_that_a_configuration_cannot_hold_are_refused() {
        for good in ["/run/acc", "/home/é/x-1_2.3"] {
            assert!(check_path(Path::new(good)).is_ok(), "{good}");
        }
        for bad in [
            "/", "run", "/a/../b", "/a b", "/a$b", "/a:b", "/a%b", "/a\nb", "/a;b", "/a\"b", "/a{b",
        ] {
            assert!(check_path(Path::new(bad)).is_err(), "{bad}");
        }
    }
}
