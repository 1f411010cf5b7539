//! All lasting state of acc, behind a trait: typed reads and writes. `sqlite` implements it.
//!
//! It never decides: it saves the phase that the instance's machine has. A phase need not survive a
//! power cut, because afterwards no process runs and every phase is determined anew.

mod error;
mod row;
pub mod sqlite;
#[cfg(test)]
mod suite;
mod threads;

use crate::domain::event_kind::EventKind;
use crate::domain::instance::Launch;
use crate::domain::name::InstanceId;
use crate::domain::operation::{OperationKind, OperationStep};
use crate::domain::time::WallTime;

pub use error::{Conflict, StoreError};
pub use row::{EventRow, Filter, LogCheck, NewOperation, NewRow, OperationRow, Row, Save};
pub use threads::{StoreThreads, Written};

/// The rows of instances.
pub trait InstanceStore {
    /// Makes a row without a launch, and begins its create: both or neither, on disk. `Taken` names
    /// the conflict.
    fn insert(&self, new: &NewRow<'_>) -> Result<InstanceId, StoreError>;

    /// The row of this number.
    fn by_id(&self, id: InstanceId) -> Result<Option<Row>, StoreError>;

    /// The row of this name.
    fn by_name(&self, name: &str) -> Result<Option<Row>, StoreError>;

    /// The row with this additional host, else the row of this name: the first label of a host on
    /// acc's own domain. Called for requests.
    fn by_host(&self, host: &str, name: Option<&str>) -> Result<Option<Row>, StoreError>;

    /// All rows that match the filter, by name.
    fn list(&self, filter: &Filter<'_>) -> Result<Vec<Row>, StoreError>;

    /// Rows that are neither asleep nor destroyed.
    fn busy(&self) -> Result<Vec<Row>, StoreError>;

    /// Rows in service whose desired state is up.
    fn desired_up(&self) -> Result<Vec<Row>, StoreError>;

    /// Rows that are not routed by their name alone: those on TCP or with additional hosts, without
    /// the destroyed ones.
    fn routed(&self) -> Result<Vec<Row>, StoreError>;

    /// All names, for a hint.
    fn names(&self) -> Result<Vec<String>, StoreError>;

    /// The key of a launch that was made for other paths, if no instance in service has one for paths
    /// that begin with `here`.
    fn made_elsewhere(&self, here: &str) -> Result<Option<String>, StoreError>;

    /// Names and numbers of the next instances after this number, at most this many.
    fn names_after(
        &self,
        id: InstanceId,
        limit: u32,
    ) -> Result<Vec<(InstanceId, String)>, StoreError>;

    /// The highest number of all instances.
    fn newest(&self) -> Result<Option<InstanceId>, StoreError>;

    /// Whether this name is taken.
    fn has_name(&self, name: &str) -> Result<bool, StoreError>;

    /// Whether this port is allocated.
    fn has_port(&self, port: u16) -> Result<bool, StoreError>;

    /// The most recently allocated port that is still in use.
    fn newest_port(&self) -> Result<Option<u16>, StoreError>;

    /// Saves the machine.
    fn save(&self, id: InstanceId, save: &Save<'_>) -> Result<(), StoreError>;

    /// Saves the result of a check of the access log, and when the instance was last in use.
    fn log_checked(&self, id: InstanceId, check: &LogCheck) -> Result<(), StoreError>;

    /// Saves a launch that was rendered again.
    fn relaunch(&self, id: InstanceId, launch: &Launch, key: &str) -> Result<(), StoreError>;

    /// Saves another port and the launch for it: both or neither. `Taken`: another instance has the
    /// port.
    fn relocate(
        &self,
        id: InstanceId,
        port: u16,
        launch: &Launch,
        key: &str,
    ) -> Result<(), StoreError>;

    /// Corrects rows of another boot that say something runs, because nothing does. Returns how
    /// many.
    fn forget_other_boots(&self, boot: &str) -> Result<usize, StoreError>;
}

/// The events: which instance was woken, put to sleep or failed, and why. Limited by age and count.
pub trait EventStore {
    /// Adds a line.
    fn record(
        &self,
        at: WallTime,
        instance: Option<InstanceId>,
        name: &str,
        kind: EventKind,
        detail: &str,
    ) -> Result<(), StoreError> {
        let (name, detail) = (name.to_owned(), detail.to_owned());
        self.record_row(
            instance,
            &EventRow {
                at,
                name,
                kind,
                detail,
                phases: None,
            },
        )
    }

    /// The same with all columns.
    fn record_row(&self, instance: Option<InstanceId>, row: &EventRow) -> Result<(), StoreError>;

    /// The newest `lines` lines, oldest first, of one instance or of all.
    fn events(
        &self,
        instance: Option<InstanceId>,
        lines: usize,
    ) -> Result<Vec<EventRow>, StoreError>;

    /// Deletes the lines that are older than `since` or exceed `keep`; if there are very many, only
    /// some of them. It reads only what it deletes.
    fn prune_events(&self, since: WallTime, keep: usize) -> Result<(), StoreError>;
}

/// Operations: long work on an instance, recorded from its first step to its end and kept as
/// history. Begin and end are on disk before acc acts on them or reports them; a step is not,
/// because only people read it.
pub trait OperationStore {
    /// Records that an operation begins. One of the same instance that was left unfinished ends as
    /// failed: the new one takes its place.
    fn begin(&self, new: &NewOperation) -> Result<(), StoreError>;

    /// Records the step that the running operation of an instance has reached. One that is being
    /// undone keeps that step.
    fn step(&self, id: InstanceId, step: OperationStep) -> Result<(), StoreError>;

    /// Marks a create that is being undone, and why: from now on the instance is out of service and
    /// only waits for its removal.
    fn condemn(&self, id: InstanceId, why: &str) -> Result<(), StoreError>;

    /// Records that the running operation of an instance could not be ended this time, and why. It
    /// stays as it is, and is tried again.
    fn not_ended(&self, id: InstanceId, at: WallTime, error: &str) -> Result<(), StoreError>;

    /// Records that the running operation of an instance did what was asked for.
    fn finish(&self, id: InstanceId, at: WallTime, result: &str) -> Result<(), StoreError>;

    /// Records that it did not, and why.
    fn fail(&self, id: InstanceId, at: WallTime, error: &str) -> Result<(), StoreError>;

    /// Removes the row of an instance and all that belongs to it except events and operations, and
    /// ends the running operation with it: a create that is undone fails for the reason that is
    /// recorded, any other is done.
    fn delete(&self, id: InstanceId, at: WallTime) -> Result<(), StoreError>;

    /// The operations that have begun and not ended.
    fn unfinished(&self) -> Result<Vec<(InstanceId, OperationKind)>, StoreError>;

    /// The running operation of an instance, else its last one. `None`: there is none, or the
    /// database was opened for reading and is of a version without operations, which the next
    /// server brings up to date.
    fn last_operation(&self, id: InstanceId) -> Result<Option<OperationRow>, StoreError>;

    /// Deletes the ended operations that began before `since`, and the oldest beyond `keep`.
    fn prune_operations(&self, since: WallTime, keep: usize) -> Result<(), StoreError>;
}

/// The database. Calls are short, may block, and may be made from any thread.
pub trait Store:
    InstanceStore + EventStore + OperationStore + std::fmt::Debug + Send + Sync
{
    /// Checks for damage; reads the whole database.
    fn check(&self) -> Result<(), StoreError>;

    /// Housekeeping of the database itself, now and then; a call that can do nothing now is
    /// repeated later.
    fn tidy(&self) -> Result<(), StoreError>;

    /// Itself, for tests of one implementation.
    #[cfg(test)]
    fn as_any(&self) -> &dyn std::any::Any;
}
