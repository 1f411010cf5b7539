//! Which settings a running server can change, and in which keys two settings differ. It changes
//! nothing by itself.

use super::{Config, EdgeConfig, WakeConfig};

/// Keys that a running server keeps: sockets, folders and processes depend on them, or they are
/// read once at the start.
pub const NEED_RESTART: [&str; 12] = [
    "domain",
    "edge.kind",
    "edge.listen",
    "edge.templates",
    "edge.user",
    "home",
    "log.format",
    "log.level",
    "run",
    "supervisor.kind",
    "user",
    "wake.max_at_once",
];

/// A key with two values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// With its section: `edge.listen`.
    pub key: String,
    /// The value in the first settings, as written in a config file.
    pub one: String,
    /// The value in the second settings.
    pub other: String,
}

impl Config {
    /// The new settings, as far as a server that runs with these can change.
    #[must_use]
    pub fn taking_over(&self, new: &Self) -> Self {
        Self {
            file: new.file.clone(),
            home: self.home.clone(),
            run: self.run.clone(),
            domain: self.domain.clone(),
            user: self.user.clone(),
            edge: EdgeConfig {
                kind: self.edge.kind,
                listen: self.edge.listen.clone(),
                max_body: new.edge.max_body,
                per_client: new.edge.per_client,
                shared_addresses: new.edge.shared_addresses.clone(),
                trusted_proxies: new.edge.trusted_proxies.clone(),
                public_scheme: new.edge.public_scheme,
                public_port: new.edge.public_port,
                templates: self.edge.templates.clone(),
                user: self.edge.user.clone(),
            },
            supervisor: self.supervisor,
            idle: new.idle,
            wake: WakeConfig {
                max_at_once: self.wake.max_at_once,
                ..new.wake
            },
            stop: new.stop,
            ports: new.ports,
            log: self.log.clone(),
            events: new.events,
            limits: new.limits,
            rules: new.rules.clone(),
        }
    }
}

/// The keys in which two texts of [`Config::to_toml`] differ, sorted.
///
/// # Errors
/// One of them is no such text: it is from another version of acc.
pub fn differences(one: &str, other: &str) -> Result<Vec<Difference>, toml::de::Error> {
    let (one, other) = (flat(one)?, flat(other)?);
    let keys: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    // A key that another version does not have.
    let value = |table: &toml::Table, key: &str| {
        table
            .get(key)
            .map_or_else(|| "nothing".to_owned(), ToString::to_string)
    };
    let differs = |key: &&String| one.get(*key) != other.get(*key);
    Ok(keys
        .into_iter()
        .filter(differs)
        .map(|key| Difference {
            key: key.clone(),
            one: value(&one, key),
            other: value(&other, key),
        })
        .collect())
}

/// The values of all sections, each under its full key.
fn flat(text: &str) -> Result<toml::Table, toml::de::Error> {
    let mut flat = toml::Table::new();
    for (name, value) in text.parse::<toml::Table>()? {
        match value {
            toml::Value::Table(section) => flat.extend(
                section
                    .into_iter()
                    .map(|(key, value)| (format!("{name}.{key}"), value)),
            ),
            value => drop(flat.insert(name, value)),
        }
    }
    Ok(flat)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::env::Env;
    use crate::config::parse;

    fn config(text: &str) -> Config {
        parse(text, None, &Env::bare(0, "/nowhere")).unwrap_or_else(|e| panic!("{e}"))
    }

    fn keys(one: &Config, other: &Config) -> Vec<String> {
        differences(&one.to_toml(), &other.to_toml())
            .unwrap()
            .into_iter()
            .map(|d| d.key)
            .collect()
    }

    /// Every setting differs: what is not taken over must be listed as needing a restart.
    #[test]
    fn what_is_not_taken_over_is_said() {
        let old = config("home = \"/a/h\"\nrun = \"/a/r\"\n");
        let new = config(
            "home = \"/b/h\"\nrun = \"/b/r\"\ndomain = \"b.localhost\"\nuser = \"nobody\"\n\
             [edge]\nkind = \"builtin\"\nlisten = [\"127.0.0.1:81\"]\nmax_body = \"1MiB\"\nper_client = 7\nshared_addresses = [\"10.7.0.0/16\"]\ntrusted_proxies = [\"10.7.0.1\"]\npublic_scheme = \"https\"\npublic_port = 7443\ntemplates = \"/usr\"\nuser = \"www-data\"\n\
             [supervisor]\nkind = \"builtin\"\n\
             [idle]\ntimeout = \"7m\"\nmin_awake = \"7s\"\ncheck_every = \"7s\"\nsilent_connections = \"7m\"\n\
             [wake]\ntimeout = \"7s\"\npage_after = \"7s\"\nmax_waiting = 7\nmax_at_once = 7\nper_client = 7\n\
             [stop]\ndrain = \"7s\"\ndrain_streams = \"7s\"\ntimeout = \"7s\"\n[ports]\nrange = \"21000-21007\"\n\
             [log]\nlevel = \"debug\"\nformat = \"json\"\n[events]\nkeep = 777\nkeep_for = \"7d\"\n\
             [limits]\nopen_files = 777\nprocesses = 77\nmemory = \"7GiB\"\nfile_size = \"7GiB\"\ncore = \"7MiB\"\n[[rules]]\npath = \"/\"\ncounts = false\n",
        );
        let all = keys(&old, &new);
        assert_eq!(
            all.len(),
            flat(&old.to_toml()).unwrap().len(),
            "a key is the same in both: {all:?}"
        );
        let taken = old.taking_over(&new);
        assert_eq!(keys(&taken, &new), NEED_RESTART);
        assert_eq!(keys(&old, &taken).len(), all.len() - NEED_RESTART.len());
        assert_eq!(keys(&new, &new), [""; 0]);
    }

    #[test]
    fn both_values_are_shown_as_in_a_file() {
        let found = differences(
            "[edge]\nlisten = [\"a:1\"]\n",
            "[edge]\nlisten = [\"a:2\"]\nmore = 1\n",
        )
        .unwrap();
        let texts: Vec<_> = found
            .iter()
            .map(|d| (d.key.as_str(), d.one.as_str(), d.other.as_str()))
            .collect();
        assert_eq!(
            texts,
            [
                ("edge.listen", "[\"a:1\"]", "[\"a:2\"]"),
                ("edge.more", "nothing", "1")
            ]
        );
        assert!(differences("=", "").is_err());
    }
}
