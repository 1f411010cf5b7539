//! Databases of older and newer versions.

use super::*;

#[test]
fn a_newer_database_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("acc.db");
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 999).unwrap();
    drop(connection);
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(
        SqliteStore::open(&path),
        Err(StoreError::Newer { found: 999, .. })
    ));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

/// The next migration has been made, and leaves the database to programs of this version on.
fn of_the_next_version(path: &Path, oldest: usize) {
    drop(SqliteStore::open(path).unwrap());
    let next = MIGRATIONS.len() + 1;
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(&format!(
            "ALTER TABLE operations ADD COLUMN more TEXT; UPDATE compatibility SET oldest = {oldest}; \
             PRAGMA user_version = {next}; PRAGMA wal_checkpoint(TRUNCATE)"
        ))
        .unwrap();
}

#[test]
fn a_newer_database_is_used_as_it_is_if_it_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("acc.db");
    of_the_next_version(&path, MIGRATIONS.len());
    let store = SqliteStore::open(&path).unwrap();
    let id = add(&store, "a", None, &[]).unwrap();
    store.finish(id, WallTime(1), "in service").unwrap();
    let reader = SqliteStore::open_readonly(&path).unwrap();
    let last = reader.last_operation(id).unwrap().unwrap();
    assert_eq!(last.state, OperationState::Done);
    let found: i64 = store
        .connection()
        .pragma_query_value(None, "user_version", |r| r.get(0))
        .unwrap();
    assert_eq!(
        found,
        i64::try_from(MIGRATIONS.len()).unwrap() + 1,
        "it stays newer"
    );
}

#[test]
fn a_newer_database_that_needs_a_newer_program_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("acc.db");
    of_the_next_version(&path, MIGRATIONS.len() + 1);
    let before = std::fs::read(&path).unwrap();
    for refused in [SqliteStore::open(&path), SqliteStore::open_readonly(&path)] {
        assert!(matches!(refused, Err(StoreError::Newer { .. })));
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

/// An upgrade puts the new program in place first, and migrates when its server starts.
#[test]
fn an_older_database_is_read_before_it_is_migrated() {
    for version in 7..=MIGRATIONS.len() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("acc.db");
        let mut connection = Connection::open(&path).unwrap();
        Migrations::from_slice(&MIGRATIONS[..version])
            .to_latest(&mut connection)
            .unwrap();
        connection
            .execute_batch(
                "INSERT INTO instances (id, name, model, params, created_at, phase, desired, boot, since, quiet_since, pid, pid_start) \
                 VALUES (7, 'a', 'm', '{}', 0, 'awake', 'auto', 'b', 0, 0, 4, 5);
                 INSERT INTO hosts VALUES ('a.example.org', 7, 0)",
            )
            .unwrap();
        if version >= 8 {
            connection
                .execute_batch(
                    "INSERT INTO operations (instance, name, kind, state, step, started_at, asked_by) \
                     VALUES (7, 'a', 'create', 'running', 'create_files', 1, 'unknown')",
                )
                .unwrap();
        }
        drop(connection);
        let store = SqliteStore::open_readonly(&path).unwrap();
        let row = store.by_name("a").unwrap().unwrap();
        assert!(row.stored.run_id.is_some(), "{version}");
        assert_eq!(row.hosts.len(), 1, "{version}");
        assert_eq!(
            store.by_host("a.example.org", None).unwrap().unwrap().id,
            row.id
        );
        assert_eq!(store.list(&Filter::default()).unwrap().len(), 1);
        let last = store.last_operation(row.id).unwrap();
        assert_eq!(last.is_some(), version >= 8, "{version}");
    }
}

#[test]
fn the_migrations_are_valid() {
    Migrations::from_slice(MIGRATIONS).validate().unwrap();
}

#[test]
fn a_database_of_the_second_version_gets_the_indexes_of_the_third() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("acc.db");
    let mut connection = Connection::open(&path).unwrap();
    Migrations::from_slice(&MIGRATIONS[..2])
        .to_latest(&mut connection)
        .unwrap();
    connection
        .execute_batch(
            "INSERT INTO instances (id, name, model, port, params, created_at, phase, wanted, boot, since, quiet_since) \
             VALUES (7, 'a', 'm', 20001, '{}', 0, 'awake', 'auto', 'b', 0, 0)",
        )
        .unwrap();
    drop(connection);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(
        (store.busy().unwrap().len(), store.newest_port().unwrap()),
        (1, Some(20_001))
    );
    assert!(store.has_port(20_001).unwrap() && !store.has_port(20_002).unwrap());
}

#[test]
fn the_journal_of_the_first_version_is_kept_and_learns_to_destroy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("acc.db");
    let mut connection = Connection::open(&path).unwrap();
    Migrations::from_slice(&MIGRATIONS[..1])
        .to_latest(&mut connection)
        .unwrap();
    connection
        .execute_batch(
            "INSERT INTO instances (id, name, model, params, created_at, phase, wanted, boot, since, quiet_since) \
             VALUES (7, 'a', 'm', '{}', 0, 'destroyed', 'auto', 'b', 0, 0); INSERT INTO journal VALUES (7, 'purge', 1)",
        )
        .unwrap();
    drop(connection);
    let store = SqliteStore::open(&path).unwrap();
    let id = InstanceId(7);
    assert_eq!(store.unfinished().unwrap(), [(id, OperationKind::Purge)]);
    let destroy = operation(id, "a", OperationKind::Destroy, 2);
    store.begin(&destroy).unwrap();
    assert_eq!(store.unfinished().unwrap(), [(id, OperationKind::Destroy)]);
    store.delete(id, WallTime(3)).unwrap();
    assert_eq!(store.unfinished().unwrap(), [], "it ends with its row");
}

#[test]
fn the_journal_of_the_seventh_version_becomes_operations() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("acc.db");
    let mut connection = Connection::open(&path).unwrap();
    Migrations::from_slice(&MIGRATIONS[..7])
        .to_latest(&mut connection)
        .unwrap();
    connection
        .execute_batch(
            "INSERT INTO instances (id, name, model, params, created_at, phase, desired, boot, since, quiet_since) VALUES \
             (7, 'a', 'm', '{}', 0, 'creating', 'auto', 'b', 0, 0), (8, 'b', 'm', '{}', 0, 'destroyed', 'auto', 'b', 0, 0), \
             (9, 'c', 'm', '{}', 0, 'destroyed', 'auto', 'b', 0, 0); \
             INSERT INTO journal VALUES (7, 'create', 1), (8, 'destroy', 2), (9, 'purge', 3)",
        )
        .unwrap();
    let id = InstanceId(8);
    // A new program reads before its server has brought the database up to date.
    let reader = SqliteStore::open_readonly(&path).unwrap();
    assert_eq!(reader.last_operation(id).unwrap(), None);
    let store = SqliteStore::open(&path).unwrap();
    use OperationKind::{Create, Destroy, Purge};
    assert_eq!(
        store.unfinished().unwrap(),
        [
            (InstanceId(7), Create),
            (id, Destroy),
            (InstanceId(9), Purge)
        ]
    );
    let moved = OperationRow {
        kind: Destroy,
        state: OperationState::Running,
        step: OperationStep::Stop,
        started_at: WallTime(2),
        ended_at: None,
        result: None,
        asked_by: "unknown".to_owned(),
        last_try_at: None,
        last_error: None,
    };
    assert_eq!(reader.last_operation(id).unwrap(), Some(moved));
    // The worker that hands over still finds an instance by its host.
    let old = "SELECT name, phase, wanted, mark FROM instances WHERE id = 8";
    let found = connection.query_row(old, [], |r| r.get::<_, String>(0));
    assert_eq!(found.unwrap(), "b");
    // A late write of it is refused, not lost.
    let late = connection.execute_batch("DELETE FROM journal WHERE instance = 8");
    assert!(late.unwrap_err().to_string().contains("no such table"));
}

#[test]
fn the_columns_and_events_of_the_sixth_version_get_their_new_names() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("acc.db");
    let mut connection = Connection::open(&path).unwrap();
    Migrations::from_slice(&MIGRATIONS[..6])
        .to_latest(&mut connection)
        .unwrap();
    connection
        .execute_batch(
            "INSERT INTO instances (id, name, model, params, created_at, phase, desired, boot, since, quiet_since, mark, looked_at) \
             VALUES (7, 'a', 'm', '{}', 0, 'awake', 'auto', 'b', 0, 0, '1 2 3', 4); \
             INSERT INTO events (at, instance, name, kind, detail) VALUES \
             (1, 7, 'a', 'called_off', 'idle stop cancelled: 2 in flight'), \
             (2, 7, 'a', 'moved', 'from port 20000 to 20001, because it was taken'), \
             (3, 7, 'a', 'moved', 'from `/h /r /acc` to `/g /r /acc`')",
        )
        .unwrap();
    let store = SqliteStore::open(&path).unwrap();
    let row = store.by_id(InstanceId(7)).unwrap().unwrap();
    assert_eq!((row.log_mark, row.checked_at), ((1, 2, 3), Timestamp(4)));
    // The worker that hands over still reads rows by the old names.
    let old: (String, String, i64) = connection
        .query_row("SELECT wanted, mark, looked_at FROM instances", [], |r| {
            Ok((r.get(0)?, r.get(1)?, r.get(2)?))
        })
        .unwrap();
    assert_eq!(old, ("auto".into(), "1 2 3".into(), 4));
    let mut events = store.events(Some(InstanceId(7)), 10).unwrap();
    events.sort_by_key(|e| e.at.0);
    let kinds: Vec<_> = events.into_iter().map(|e| e.kind).collect();
    use crate::domain::event_kind::EventKind::{Moved, PortChanged, StopCancelled};
    assert_eq!(kinds, [StopCancelled, PortChanged, Moved]);
}

#[test]
fn operations_of_the_eighth_version_are_read_and_written_beside_tries() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("acc.db");
    let mut connection = Connection::open(&path).unwrap();
    Migrations::from_slice(&MIGRATIONS[..8])
        .to_latest(&mut connection)
        .unwrap();
    let insert = "INSERT INTO operations (instance, name, kind, state, step, started_at, asked_by) \
                  VALUES (7, 'a', 'purge', 'running', 'unregister', 1, 'x')";
    connection.execute_batch(insert).unwrap();
    let id = InstanceId(7);
    let reader = SqliteStore::open_readonly(&path).unwrap();
    let before = reader.last_operation(id).unwrap();
    assert_eq!(before.as_ref().unwrap().last_error, None);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(store.last_operation(id).unwrap(), before);
    store.fail(id, WallTime(2), "why").unwrap();
    // The worker that hands over knows neither column.
    connection.execute_batch(insert).unwrap();
    assert_eq!(store.last_operation(id).unwrap(), before);
}
