//! The database: made, migrated, refused; what its statements cost.

mod log;
mod migrations;
mod operations;
mod queries;

use std::time::Duration;

use super::*;
use crate::domain::event_kind::EventKind;
use crate::domain::instance::DesiredState;
use crate::domain::lifecycle::Machine;
use crate::domain::name::{InstanceId, InstanceName};
use crate::domain::operation::{OperationKind, OperationState, OperationStep};
use crate::domain::time::{Timestamp, WallTime};
use crate::store::suite::{add, launch};
use crate::store::*;

fn operation(id: InstanceId, name: &str, kind: OperationKind, at: i64) -> NewOperation {
    NewOperation {
        instance: id,
        name: InstanceName::parse(name).unwrap(),
        kind,
        at: WallTime(at),
        asked_by: "control_socket",
    }
}

#[test]
fn damage_and_locks_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("acc.db");
    std::fs::write(&path, vec![7u8; 8192]).unwrap();
    assert!(matches!(
        SqliteStore::open(&path),
        Err(StoreError::Corrupt { .. })
    ));
    assert!(matches!(
        SqliteStore::open(dir.path()),
        Err(StoreError::Unusable { .. })
    ));
    assert!(matches!(
        SqliteStore::open_readonly(&dir.path().join("no.db")),
        Err(StoreError::Missing(_))
    ));
}
