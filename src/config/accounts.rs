//! The accounts of an installation whose acc is root: the user of instances, and the user of
//! nginx's workers.
//!
//! It looks them up and changes nothing.

use nix::unistd::{User, geteuid};

use crate::config::{Config, EDGE_ACCOUNT, EdgeKind};
use crate::domain::account::Account;

/// An account, by its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
}

impl Owner {
    /// Looks up the account of this name; `None`: no name was given, or acc is not root and runs
    /// everything as its own user.
    ///
    /// # Errors
    /// There is no such account, or the lookup failed.
    pub fn of(user: Option<&str>) -> Result<Option<Self>, String> {
        let Some(name) = user.filter(|_| geteuid().is_root()) else {
            return Ok(None);
        };
        match User::from_name(name) {
            Ok(Some(user)) => Ok(Some(Self {
                uid: user.uid.as_raw(),
                gid: user.gid.as_raw(),
            })),
            Ok(None) => Err(format!("there is no user `{name}` on this host")),
            Err(e) => Err(format!("could not look up user `{name}`: {e}")),
        }
    }
}

/// Both accounts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accounts {
    /// `user`: what instances run under.
    pub instances: Account,
    /// `edge.user`: the user of nginx's workers; `None`: acc's own. acc's own edge has none.
    pub edge: Option<Owner>,
}

/// The accounts of the settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AccountFault {
    /// What is wrong.
    pub message: String,
    /// How to fix it.
    pub hint: String,
}

impl Accounts {
    /// Looks up the accounts of these settings.
    ///
    /// # Errors
    /// One does not exist, the lookup failed, or instances could control nginx's workers.
    pub fn of(config: &Config) -> Result<Self, AccountFault> {
        if !geteuid().is_root() {
            return Ok(Self::default());
        }
        let look_up = |key: &str, name: Option<&str>| {
            Owner::of(name).map_err(|why| AccountFault {
                message: format!("`{key}` in the config cannot be used: {why}"),
                hint: format!(
                    "create it with `useradd --system {}`, or name another user",
                    name.unwrap_or_default()
                ),
            })
        };
        let user = config.user.as_deref();
        let instances = match look_up("user", user)?.zip(user) {
            Some((Owner { uid, gid }, name)) => Account::User {
                name: name.into(),
                uid,
                gid,
            },
            None => Account::SameAsAcc,
        };
        let edge = config.edge.user.as_deref();
        if edge.is_some() && edge == config.user.as_deref() {
            return Err(shared(edge.unwrap_or_default()));
        }
        if config.edge.kind != EdgeKind::Nginx {
            return Ok(Self {
                instances,
                edge: None,
            });
        }
        let accounts = Self {
            instances,
            edge: look_up("edge.user", edge)?,
        };
        accounts.apart(edge)?;
        Ok(accounts)
    }

    /// Refuses workers that instances could stop, and workers that could be directed to sockets of
    /// root.
    fn apart(&self, edge: Option<&str>) -> Result<(), AccountFault> {
        let Some(instances) = self.instances.uid().filter(|uid| *uid != 0) else {
            return Ok(());
        };
        let name = edge.unwrap_or_default();
        match self.edge {
            None => Err(AccountFault {
                message: format!(
                    "there is no user for nginx's workers: neither `{EDGE_ACCOUNT}` nor one of www-data, nginx and nobody that differs from `user`"
                ),
                hint: format!("create one with `{MAKE}`, or set `edge.user`"),
            }),
            Some(owner) if owner.uid == instances => Err(shared(name)),
            Some(owner) if owner.uid == 0 => Err(AccountFault {
                message: format!(
                    "`edge.user` in the config is `{name}`, which is root: an instance could make nginx's workers connect to root's sockets"
                ),
                hint: format!(
                    "create another user with `{MAKE}` and remove `edge.user` from the config"
                ),
            }),
            Some(_) => Ok(()),
        }
    }
}

/// The command that makes the account which acc chooses by default.
pub const MAKE: &str =
    "useradd --system --user-group --no-create-home --shell /usr/sbin/nologin acc-edge";

fn shared(name: &str) -> AccountFault {
    AccountFault {
        message: format!(
            "`edge.user` in the config is `{name}`, which instances also run as: each instance could stop nginx's workers"
        ),
        hint: format!("create another user with `{MAKE}` and remove `edge.user` from the config"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::env::Env;
    use crate::config::parse;

    fn of(text: &str) -> Result<Accounts, AccountFault> {
        Accounts::of(&parse(text, None, &Env::bare(0, "/nowhere")).unwrap())
    }

    #[test]
    fn workers_that_instances_could_stop_are_refused() {
        if !geteuid().is_root() {
            assert_eq!(
                of("user = \"no-such-user\"\n"),
                Ok(Accounts::default()),
                "an ordinary user runs everything as himself"
            );
            return;
        }
        for (text, why) in [
            (
                "user = \"no-such-user\"\n",
                "there is no user `no-such-user`",
            ),
            (
                "user = \"nobody\"\n",
                "there is no user for nginx's workers",
            ),
            (
                "user = \"nobody\"\n[edge]\nuser = \"no-such-user\"\n",
                "`edge.user` in the config cannot be used",
            ),
            (
                "user = \"nobody\"\n[edge]\nuser = \"nobody\"\n",
                "which instances also run as",
            ),
            (
                "user = \"nobody\"\n[edge]\nkind = \"builtin\"\nuser = \"nobody\"\n",
                "which instances also run as",
            ),
            (
                "user = \"nobody\"\n[edge]\nuser = \"root\"\n",
                "which is root",
            ),
        ] {
            let fault = of(text).unwrap_err();
            assert!(
                fault.message.contains(why) && !fault.hint.is_empty(),
                "{text}: {fault:?}"
            );
        }
        let apart = of("user = \"nobody\"\n[edge]\nuser = \"daemon\"\n").unwrap();
        assert_ne!(Some(apart.edge.unwrap().uid), apart.instances.uid());
        assert_eq!(
            of("user = \"nobody\"\n[edge]\nkind = \"builtin\"\n")
                .unwrap()
                .edge,
            None
        );
        assert_eq!(of("").unwrap(), Accounts::default());
        assert!(of("[edge]\nuser = \"daemon\"\n").unwrap().edge.is_some());
    }
}
