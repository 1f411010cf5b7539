//! Rules about requests: which may not wake an instance, and which do not count as use. The first
//! match decides.

use std::net::IpAddr;

use ipnet::IpNet;

/// One `[[rules]]` entry. A missing condition matches everything; all given ones must match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// The path begins with this.
    pub path: Option<String>,
    /// The method is this (upper case).
    pub method: Option<String>,
    /// The user agent contains this, ignoring case.
    pub user_agent: Option<String>,
    /// The client's address is in this network.
    pub client: Option<IpNet>,
    /// Whether such a request may wake an instance.
    pub wake: bool,
    /// Whether such a request counts as use.
    pub counts: bool,
}

/// The parts of a request that rules check.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Path without the query.
    pub path: &'a str,
    /// Method.
    pub method: &'a str,
    /// User agent; empty if not sent.
    pub user_agent: &'a str,
    /// The client's address, if known.
    pub client: Option<IpAddr>,
}

/// What the rules say about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// It may wake an instance.
    pub wake: bool,
    /// It counts as use.
    pub counts: bool,
}

impl Rule {
    fn matches(&self, f: &Facts<'_>) -> bool {
        self.path
            .as_ref()
            .is_none_or(|p| f.path.starts_with(p.as_str()))
            && self.method.as_ref().is_none_or(|m| m == f.method)
            && self.user_agent.as_ref().is_none_or(|u| {
                f.user_agent
                    .to_ascii_lowercase()
                    .contains(&u.to_ascii_lowercase())
            })
            && self
                .client
                .is_none_or(|net| f.client.is_some_and(|ip| net.contains(&ip.to_canonical())))
    }
}

/// The result of the first matching rule; without a match a request may wake and counts.
#[must_use]
pub fn judge(rules: &[Rule], facts: &Facts<'_>) -> Verdict {
    rules.iter().find(|r| r.matches(facts)).map_or(
        Verdict {
            wake: true,
            counts: true,
        },
        |r| Verdict {
            wake: r.wake,
            counts: r.counts,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_match_decides() {
        let rules = [
            Rule {
                path: Some("/health".into()),
                method: Some("GET".into()),
                wake: false,
                counts: false,
                ..Rule::default()
            },
            Rule {
                user_agent: Some("UptimeBot".into()),
                wake: true,
                counts: false,
                ..Rule::default()
            },
            Rule {
                client: "10.0.0.0/8".parse().ok(),
                wake: false,
                counts: true,
                ..Rule::default()
            },
        ];
        let facts = |path, method, user_agent, ip: &str| {
            judge(
                &rules,
                &Facts {
                    path,
                    method,
                    user_agent,
                    client: ip.parse().ok(),
                },
            )
        };
        assert_eq!(
            facts("/healthz", "GET", "", "1.1.1.1"),
            Verdict {
                wake: false,
                counts: false
            }
        );
        assert_eq!(
            facts("/healthz", "POST", "", "1.1.1.1"),
            Verdict {
                wake: true,
                counts: true
            }
        );
        assert_eq!(
            facts("/", "GET", "x uptimebot/2", "1.1.1.1"),
            Verdict {
                wake: true,
                counts: false
            }
        );
        assert_eq!(
            facts("/", "GET", "", "10.2.3.4"),
            Verdict {
                wake: false,
                counts: true
            }
        );
        assert_eq!(
            facts("/", "GET", "", "::ffff:10.2.3.4"),
            Verdict {
                wake: false,
                counts: true
            }
        );
        assert_eq!(
            facts("/", "GET", "", "nobody"),
            Verdict {
                wake: true,
                counts: true
            }
        );
    }
}
