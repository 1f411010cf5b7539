//! What is stored: rows of instances, lines of the events, operations. It reads and writes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::domain::event_kind::EventKind;
use crate::domain::instance::Launch;
use crate::domain::lifecycle::Stored;
use crate::domain::name::{HostName, InstanceId, InstanceName};
use crate::domain::operation::{OperationKind, OperationState, OperationStep};
use crate::domain::time::{Timestamp, WallTime};

/// A new instance.
#[derive(Debug, Clone)]
pub struct NewRow<'a> {
    /// Name.
    pub name: &'a InstanceName,
    /// Model.
    pub model: &'a str,
    /// TCP port; `None`: unix socket.
    pub port: Option<u16>,
    /// Parameters.
    pub params: &'a BTreeMap<String, String>,
    /// Owner.
    pub owner: Option<&'a str>,
    /// Own idle timeout.
    pub idle: Option<Duration>,
    /// Hosts besides NAME.domain.
    pub hosts: &'a [HostName],
    /// When it is created.
    pub created_at: WallTime,
    /// The state of its machine.
    pub stored: &'a Stored,
    /// The boot its timestamps belong to.
    pub boot: &'a str,
    /// By which way in its create was asked for.
    pub asked_by: &'static str,
}

/// A stored row.
#[derive(Debug, Clone)]
pub struct Row {
    /// Number.
    pub id: InstanceId,
    /// Name.
    pub name: InstanceName,
    /// Model.
    pub model: String,
    /// TCP port; `None`: unix socket.
    pub port: Option<u16>,
    /// Parameters.
    pub params: BTreeMap<String, String>,
    /// How it is run; `None`: must be rendered from the model again.
    pub launch: Option<Launch>,
    /// The paths for which `launch` was made.
    pub launch_key: String,
    /// Owner.
    pub owner: Option<String>,
    /// Own idle timeout.
    pub idle: Option<Duration>,
    /// Hosts besides NAME.domain.
    pub hosts: Vec<HostName>,
    /// When it was created.
    pub created_at: WallTime,
    /// When it last became awake.
    pub last_wake_at: Option<WallTime>,
    /// When it was last seen in use.
    pub last_active_at: Option<WallTime>,
    /// How often it was woken.
    pub wakes: u64,
    /// The state of its machine.
    pub stored: Stored,
    /// The boot its timestamps belong to.
    pub boot: String,
    /// The access log when it was last checked: inode, size, mtime in ms.
    pub log_mark: (u64, u64, i64),
    /// When that was.
    pub checked_at: Timestamp,
    /// Wall clock minus boot clock when the row was last written, in ms; `None`: unknown.
    pub clock: Option<i64>,
}

/// What is saved at a transition.
#[derive(Debug, Clone, Copy)]
pub struct Save<'a> {
    /// The state of the machine.
    pub stored: &'a Stored,
    /// The boot its timestamps belong to.
    pub boot: &'a str,
    /// It became awake now.
    pub woke_at: Option<WallTime>,
    /// It was in use at this time.
    pub active_at: Option<WallTime>,
    /// Wall clock minus boot clock now, in ms.
    pub clock: i64,
}

/// What is saved after a check of the access log.
#[derive(Debug, Clone, Copy)]
pub struct LogCheck {
    /// The log: inode, size, mtime in ms.
    pub log_mark: (u64, u64, i64),
    /// When it was checked.
    pub at: Timestamp,
    /// Since when it has not been in use.
    pub quiet_since: Timestamp,
    /// It was in use at this time.
    pub active_at: Option<WallTime>,
    /// Wall clock minus boot clock at the check, in ms.
    pub clock: Option<i64>,
}

/// Which rows.
#[derive(Debug, Clone, Default)]
pub struct Filter<'a> {
    /// Only those in this phase.
    pub phase: Option<&'a str>,
    /// Only of this model.
    pub model: Option<&'a str>,
    /// Only those with a name after this one.
    pub after: Option<&'a str>,
    /// At most this many.
    pub limit: Option<usize>,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// When.
    pub at: WallTime,
    /// The instance's name at that time; empty for acc itself.
    pub name: String,
    /// What kind.
    pub kind: EventKind,
    /// A sentence.
    pub detail: String,
    /// For a wake: the duration of its phases, as JSON.
    pub phases: Option<String>,
}

/// An operation that begins.
#[derive(Debug, Clone)]
pub struct NewOperation {
    /// The instance.
    pub instance: InstanceId,
    /// Its name.
    pub name: InstanceName,
    /// What it does.
    pub kind: OperationKind,
    /// When.
    pub at: WallTime,
    /// By which way in it was asked for.
    pub asked_by: &'static str,
}

/// A stored operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationRow {
    /// What it does.
    pub kind: OperationKind,
    /// Whether it has ended, and how.
    pub state: OperationState,
    /// What it is doing, or was doing last.
    pub step: OperationStep,
    /// When it began.
    pub started_at: WallTime,
    /// When it ended; `None`: it runs.
    pub ended_at: Option<WallTime>,
    /// What came of it; of a failed one the error.
    pub result: Option<String>,
    /// By which way in it was asked for.
    pub asked_by: String,
    /// When it was last tried to end it in vain; `None`: never.
    pub last_try_at: Option<WallTime>,
    /// Why that did not work.
    pub last_error: Option<String>,
}
