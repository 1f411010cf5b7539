//! Names of instances and hosts: what is allowed, and one normal form for each.
//!
//! A value of these types is always valid: the only way to make one from a text is `parse`.

use std::fmt;
use std::sync::Arc;

/// Longest instance name: a DNS label (RFC 1035 section 2.3.4).
pub const NAME_MAX: usize = 63;

/// Names that could be confused with acc's own parts.
const RESERVED: &[&str] = &["acc", "nginx", "server", "supervisord", "localhost"];

/// An instance's name: a DNS label in lower case, not reserved, not only digits (those are numbers
/// of instances).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceName(String);

/// A host name in normal form: lower case, no port, no trailing dot. Copies share the text: the map
/// of hosts is copied whenever an instance gets a task.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(Arc<str>);

/// An instance's number; used once only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub i64);

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameFault {
    /// It is empty.
    #[error("it is empty")]
    Empty,
    /// Longer than DNS allows.
    #[error("it has {0} characters, the most is {1}")]
    TooLong(usize, usize),
    /// A character outside `a-z 0-9 -`, or a dash at an end of a label.
    #[error("only a-z, 0-9 and inner dashes are allowed")]
    Character,
    /// A name that acc itself uses.
    #[error("it is reserved for acc itself")]
    Reserved,
    /// Only digits: that would be read as a number.
    #[error("a name of digits only would be read as an instance's number")]
    Digits,
}

/// Whether it is a DNS label in lower case.
#[must_use]
pub fn is_label(s: &str) -> bool {
    !s.is_empty()
        && s.len() <= NAME_MAX
        && s.bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !s.starts_with('-')
        && !s.ends_with('-')
}

impl InstanceName {
    /// Checks `text`. Upper case is refused rather than converted, so that a name has one spelling
    /// only.
    pub fn parse(text: &str) -> Result<Self, NameFault> {
        if text.is_empty() {
            return Err(NameFault::Empty);
        }
        if text.len() > NAME_MAX {
            return Err(NameFault::TooLong(text.chars().count(), NAME_MAX));
        }
        if !is_label(text) {
            return Err(NameFault::Character);
        }
        if RESERVED.contains(&text) {
            return Err(NameFault::Reserved);
        }
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NameFault::Digits);
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A free name for an instance of `model`: `hello`, `hello-2`, `hello-3` …, shortened to remain a
/// label. If the model's own name is not allowed for an instance, `app`. It makes only a few
/// checks, however many instances there are: if numbers are missing in the sequence, the result
/// need not be the first free name.
///
/// # Errors
/// Those of `taken`.
pub fn free_name<E>(
    model: &str,
    taken: impl Fn(&str) -> Result<bool, E>,
) -> Result<InstanceName, E> {
    let base = InstanceName::parse(model).unwrap_or_else(|_| InstanceName("app".to_owned()));
    if !taken(&base.0)? {
        return Ok(base);
    }
    let numbered = |n: u64| {
        let ending = format!("-{n}");
        let kept = base.0.get(..NAME_MAX - ending.len()).unwrap_or(&base.0);
        format!("{}{ending}", kept.trim_end_matches('-'))
    };
    // `below` is taken (the first one has no number), `free` is not. Once they are neighbours,
    // `free` is the name.
    let (mut below, mut free) = (1, 2);
    while taken(&numbered(free))? {
        (below, free) = (free, free * 2);
    }
    while free - below > 1 {
        let middle = below + (free - below) / 2;
        if taken(&numbered(middle))? {
            below = middle
        } else {
            free = middle
        }
    }
    Ok(InstanceName(numbered(free)))
}

impl HostName {
    /// Parses a host from a `Host` header or the command line: converts it to lower case, removes a
    /// port and one trailing dot.
    pub fn parse(text: &str) -> Result<Self, NameFault> {
        let host = match text.rsplit_once(':') {
            Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
                host
            }
            Some((host, "")) => host,
            _ => text,
        };
        let host = host.strip_suffix('.').unwrap_or(host);
        if host.is_empty() {
            return Err(NameFault::Empty);
        }
        if host.len() > 253 {
            return Err(NameFault::TooLong(host.chars().count(), 253));
        }
        let host = host.to_ascii_lowercase();
        if !host.split('.').all(is_label) {
            return Err(NameFault::Character);
        }
        Ok(Self(host.into()))
    }

    /// The default domain of instances: it reaches this host without any DNS.
    #[must_use]
    pub fn default_domain() -> Self {
        Self("apps.localhost".into())
    }

    /// The host of `name` on the domain.
    #[must_use]
    pub fn on_domain(name: &InstanceName, domain: &Self) -> Self {
        Self(format!("{}.{}", name.0, domain.0).into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_names_are_dns_labels() {
        for good in ["a", "shop", "a-1", "0x", &"a".repeat(63)] {
            assert!(InstanceName::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a_b",
            "a.b",
            "é",
            "12",
            "acc",
            "nginx",
            &"a".repeat(64),
            "a b",
            "../a",
        ] {
            assert!(InstanceName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_free_name_is_always_a_name() {
        let free = |model: &str, taken: &[&str]| {
            free_name(model, |n| Ok::<_, ()>(taken.contains(&n)))
                .unwrap()
                .0
        };
        assert_eq!(free("hello", &[]), "hello");
        assert_eq!(free("hello", &["hello", "hello-2"]), "hello-3");
        assert_eq!(free("nginx", &[]), "app");
        assert_eq!(free("12", &["app"]), "app-2");
        let long = format!("{}-a", "a".repeat(61));
        let cut = free(&long, &[&long]);
        assert_eq!(cut, format!("{}-2", "a".repeat(61)));
        assert!(InstanceName::parse(&cut).is_ok());
    }

    #[test]
    fn a_free_name_is_found_without_asking_for_all() {
        let asked = std::cell::Cell::new(0);
        let taken = |n: &str| {
            asked.set(asked.get() + 1);
            Ok::<_, ()>(
                n == "hello" || n.strip_prefix("hello-").unwrap().parse::<u64>().unwrap() < 10_000,
            )
        };
        assert_eq!(free_name("hello", taken).unwrap().0, "hello-10000");
        assert!(asked.get() < 40, "{}", asked.get());
    }

    #[test]
    fn the_default_domain_is_a_host() {
        assert_eq!(
            HostName::parse("apps.localhost"),
            Ok(HostName::default_domain())
        );
    }

    #[test]
    fn hosts_have_one_normal_form() {
        for spelling in [
            "Shop.Example.org",
            "shop.example.org.",
            "shop.example.org:8080",
            "SHOP.example.org.:80",
        ] {
            assert_eq!(
                HostName::parse(spelling).unwrap().as_str(),
                "shop.example.org"
            );
        }
        let long = format!("{}.org", "a.".repeat(150));
        for bad in [
            "",
            ".",
            "a..b",
            "a_b.org",
            "-a.org",
            "ä.org",
            "a b",
            "[::1]",
            "a/b",
            "..",
            &long,
            "a.org:80:90",
            "a.org:x",
        ] {
            assert!(HostName::parse(bad).is_err(), "{bad}");
        }
    }
}
