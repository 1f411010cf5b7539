//! The account of the host that an instance runs under. It looks up nothing and decides nothing.

use std::sync::Arc;

/// The account that an instance runs under.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Account {
    /// acc's own: acc is not root, or no user is set.
    #[default]
    SameAsAcc,
    /// A user of the host; acc is root.
    User {
        /// Its name.
        name: Arc<str>,
        /// Its number.
        uid: u32,
        /// Its primary group.
        gid: u32,
    },
}

impl Account {
    /// The name of the user; `None`: acc's own.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::SameAsAcc => None,
            Self::User { name, .. } => Some(name),
        }
    }

    /// The numbers of the user and its primary group; `None`: acc's own.
    #[must_use]
    pub fn ids(&self) -> Option<(u32, u32)> {
        match self {
            Self::SameAsAcc => None,
            Self::User { uid, gid, .. } => Some((*uid, *gid)),
        }
    }

    /// The number of the user; `None`: acc's own.
    #[must_use]
    pub fn uid(&self) -> Option<u32> {
        self.ids().map(|(uid, _)| uid)
    }
}
