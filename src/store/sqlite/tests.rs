//! The database: made, migrated, refused; what its statements cost.

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

#[test]
fn the_migrations_are_valid() {
    Migrations::from_slice(MIGRATIONS).validate().unwrap();
}

/// Uses every way to ask, so that [`SqliteStore::prepared`] hears every statement.
fn use_everything(store: &SqliteStore) {
    let id = add(store, "shop", Some(20_000), &["a.example.org"]).unwrap();
    let machine = Machine::creating(DesiredState::Auto, Timestamp(0)).stored();
    store
        .save(
            id,
            &Save {
                stored: &machine,
                boot: "b",
                woke_at: None,
                active_at: None,
                clock: 12,
            },
        )
        .unwrap();
    let check = LogCheck {
        log_mark: (1, 2, 3),
        at: Timestamp(4),
        quiet_since: Timestamp(7),
        active_at: None,
        clock: Some(1),
    };
    store.log_checked(id, &check).unwrap();
    store.relaunch(id, &launch(), "key").unwrap();
    store.forget_other_boots("b").unwrap();
    drop((
        store.by_id(id),
        store.by_name("shop"),
        store.by_host("a.example.org", None),
    ));
    for (phase, model) in [
        (None, None),
        (Some("awake"), None),
        (None, Some("hello")),
        (Some("awake"), Some("hello")),
    ] {
        for after in [None, Some("a")] {
            store
                .list(&Filter {
                    phase,
                    model,
                    after,
                    limit: Some(50),
                })
                .unwrap();
        }
    }
    drop((
        store.busy(),
        store.desired_up(),
        store.routed(),
        store.names(),
        store.names_after(id, 9),
        store.newest(),
    ));
    drop((
        store.has_name("a"),
        store.has_port(1),
        store.newest_port(),
        store.unfinished(),
    ));
    for n in 0..3 {
        store
            .record(WallTime(n), Some(id), "shop", EventKind::Woke, "x")
            .unwrap();
    }
    drop((store.events(None, 9), store.events(Some(id), 9)));
    store.prune_events(WallTime(2), 1).unwrap();
    let purge = operation(id, "shop", OperationKind::Purge, 0);
    store.begin(&purge).unwrap();
    store.step(id, OperationStep::RemoveFiles).unwrap();
    store.finish(id, WallTime(0), "x").unwrap();
    store.fail(id, WallTime(0), "x").unwrap();
    store.last_operation(id).unwrap();
    store.prune_operations(WallTime(0), 9).unwrap();
    store.condemn(id, "x").unwrap();
    store.delete(id, WallTime(0)).unwrap();
}

/// Plans by which a query reads more rows than it returns. Full scans are allowed for the
/// unfinished rows, the routed ones (all of which are returned), and queries that end with a
/// `LIMIT`.
fn bad_plans(store: &SqliteStore) -> Vec<String> {
    let connection = store.connection();
    let mut bad = Vec::new();
    for sql in store.statements.all() {
        let mut statement = connection
            .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
            .unwrap();
        let plan: Vec<String> = statement
            .raw_query()
            .mapped(|r| r.get(3))
            .map(Result::unwrap)
            .collect();
        // What is in a subquery has lines of its own.
        let reads_all = |l: &str| {
            l.starts_with("SCAN") && !l.starts_with("SCAN (subquery") && l != "SCAN CONSTANT ROW"
        };
        let returned = |l: &str| {
            l == "SCAN journal" || l.contains("INDEX instances_tcp") || l.starts_with("SCAN hosts")
        };
        let is_hint = sql == "SELECT name FROM instances ORDER BY name";
        let wrong = |l: &String| {
            // The routes are put together from two lists.
            l.contains("TEMP B-TREE") && !l.contains("UNION USING")
                || reads_all(l) && !returned(l) && !is_hint && !sql.contains(" LIMIT ")
        };
        if plan.iter().any(wrong) {
            bad.push(format!("{sql}\n{plan:#?}"));
        }
    }
    bad
}

#[test]
fn no_query_reads_all_instances_or_sorts_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("acc.db")).unwrap();
    use_everything(&store);
    assert!(
        store.statements.all().len() > 35,
        "{:#?}",
        store.statements.all()
    );
    assert_eq!(bad_plans(&store), [""; 0]);
    for (index, needed_by) in [
        ("instances_phase", 2),
        ("instances_model", 2),
        ("instances_up", 1),
        ("hosts_of", 5),
        ("events_of", 1),
    ] {
        store
            .connection()
            .execute_batch(&format!("DROP INDEX {index}"))
            .unwrap();
        assert!(
            bad_plans(&store).len() >= needed_by,
            "without {index} nothing is wrong"
        );
    }
}

/// A statement that is prepared in another way is not seen by the test above.
#[test]
fn every_statement_is_prepared_in_one_place() {
    for text in [
        include_str!("instances.rs"),
        include_str!("operations.rs"),
        include_str!("events.rs"),
    ] {
        for other in [
            ".prepare(",
            "prepare_cached",
            "query_row(\"",
            "execute(\"",
            "execute_batch",
        ] {
            assert!(!text.contains(other), "{other}");
        }
    }
}

/// Writes about so many bytes into the log of the database.
fn fill(store: &SqliteStore, bytes: usize) {
    let detail = "x".repeat(100_000);
    for n in 0..bytes / detail.len() {
        store
            .record(WallTime(0), None, "a", EventKind::Woke, &detail)
            .unwrap();
        store.prune_events(WallTime(0), 10).unwrap();
        assert!(n < 10_000);
    }
}

#[test]
fn readers_that_let_go_do_not_make_the_log_grow() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("acc.db");
    let store = SqliteStore::open(&path).unwrap();
    add(&store, "a", None, &[]).unwrap();
    // As `acc logs -f` or `acc prove`: open for long, asking now and then.
    let reader = SqliteStore::open_readonly(&path).unwrap();
    for _ in 0..10 {
        reader.list(&Filter::default()).unwrap();
        reader.events(None, 5).unwrap();
        fill(&store, 4_000_000);
    }
    assert!(store.wal_size() < 12 * 1024 * 1024, "{}", store.wal_size());
}

#[tokio::test]
async fn a_thread_beside_writes_the_log_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("acc.db");
    let mut store = SqliteStore::open(&path).unwrap();
    store.write_back_beside().unwrap();
    let before = std::fs::metadata(&path).unwrap().len();
    let detail = "x".repeat(3000);
    for _ in 0..write_back::USES {
        store
            .record(WallTime(0), None, "a", EventKind::Woke, &detail)
            .unwrap();
    }
    // Only the log grows, until it is written back: it was too little for the writer to do
    // it.
    let mut checks = 0;
    while std::fs::metadata(&path).unwrap().len() < before + 400_000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        checks += 1;
        assert!(checks < 4000, "it is not written back");
    }
    // Faster than the thread can write it back, on a busy host by far. Without an end it would be
    // more than 200 MB.
    for _ in 0..20_000 {
        store
            .record(WallTime(0), None, "a", EventKind::Woke, &detail)
            .unwrap();
    }
    assert!(store.wal_size() < 120_000_000, "{}", store.wal_size());
    drop(store);
    assert!(
        !dir.path().join("acc.db-wal").exists(),
        "the thread was not the last to close it"
    );
}

#[test]
fn a_reader_that_holds_on_makes_it_grow_only_until_it_lets_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("acc.db");
    let store = SqliteStore::open(&path).unwrap();
    let foreign = Connection::open(&path).unwrap();
    foreign
        .execute_batch("BEGIN; SELECT count(*) FROM instances")
        .unwrap();
    let _: i64 = foreign
        .query_row("SELECT count(*) FROM instances", [], |r| r.get(0))
        .unwrap();
    fill(&store, 24_000_000);
    store.bound_wal().unwrap();
    let held = store.wal_size();
    assert!(held > 16 * 1024 * 1024, "{held}");
    add(&store, "a", None, &[]).unwrap();
    foreign.execute_batch("COMMIT").unwrap();
    store.bound_wal().unwrap();
    assert_eq!(store.wal_size(), 0);
    assert!(store.by_name("a").unwrap().is_some());
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

/// Of all operations, oldest first: their instance, kind and state.
fn history(store: &SqliteStore) -> Vec<(i64, String, String)> {
    let connection = store.connection();
    let sql = "SELECT instance, kind, state FROM operations ORDER BY id";
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

fn ops<const N: usize>(rows: [(i64, &str, &str); N]) -> Vec<(i64, String, String)> {
    let own = |(id, kind, state): (i64, &str, &str)| (id, kind.to_owned(), state.to_owned());
    rows.map(own).to_vec()
}

#[test]
fn an_instance_has_at_most_one_running_operation() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("acc.db")).unwrap();
    let id = add(&store, "a", None, &[]).unwrap();
    let insert = "INSERT INTO operations (instance, name, kind, state, step, started_at, asked_by) \
                  VALUES (1, 'a', 'purge', 'running', 'unregister', 1, 'x')";
    let second = store.connection().execute_batch(insert);
    assert!(second.unwrap_err().to_string().contains("UNIQUE"));
    // One that was left unfinished gives way, and says so.
    store
        .begin(&operation(id, "a", OperationKind::Destroy, 6))
        .unwrap();
    assert_eq!(store.unfinished().unwrap(), [(id, OperationKind::Destroy)]);
    assert_eq!(
        history(&store),
        ops([(1, "create", "failed"), (1, "destroy", "running")])
    );
    store.step(id, OperationStep::Unregister).unwrap();
    let running = OperationRow {
        kind: OperationKind::Destroy,
        state: OperationState::Running,
        step: OperationStep::Unregister,
        started_at: WallTime(6),
        ended_at: None,
        result: None,
        asked_by: "control_socket".to_owned(),
    };
    assert_eq!(store.last_operation(id).unwrap(), Some(running.clone()));
    store.fail(id, WallTime(9), "no luck").unwrap();
    let failed = OperationRow {
        state: OperationState::Failed,
        ended_at: Some(WallTime(9)),
        result: Some("no luck".to_owned()),
        ..running
    };
    store.finish(id, WallTime(10), "late").unwrap();
    let last = store.last_operation(id).unwrap();
    assert_eq!(last, Some(failed), "one that has ended stays as it is");
}

#[test]
fn operations_outlive_their_instance() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("acc.db")).unwrap();
    let id = add(&store, "a", None, &[]).unwrap();
    store.finish(id, WallTime(6), "in service").unwrap();
    store
        .begin(&operation(id, "a", OperationKind::Purge, 7))
        .unwrap();
    store.delete(id, WallTime(8)).unwrap();
    assert!(store.names().unwrap().is_empty());
    assert_eq!(
        history(&store),
        ops([(1, "create", "done"), (1, "purge", "done")])
    );
    let last = store.last_operation(id).unwrap().unwrap();
    assert_eq!(last.result.as_deref(), Some("files removed"));
    // A create that is undone has failed, for the first reason that was given.
    let id = add(&store, "b", None, &[]).unwrap();
    store.condemn(id, "no luck").unwrap();
    store.condemn(id, "was left unfinished").unwrap();
    store.step(id, OperationStep::RemoveFiles).unwrap();
    store.delete(id, WallTime(9)).unwrap();
    let last = store.last_operation(id).unwrap().unwrap();
    assert_eq!(
        (last.state, last.step, last.ended_at, last.result.as_deref()),
        (
            OperationState::Failed,
            OperationStep::Undo,
            Some(WallTime(9)),
            Some("no luck")
        )
    );
}

#[test]
fn the_operations_are_bounded_by_age_and_by_count_but_for_the_running() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("acc.db")).unwrap();
    store.prune_operations(WallTime(9), 0).unwrap();
    for n in 1..=6 {
        let of = operation(InstanceId(n), "a", OperationKind::Destroy, n * 10);
        store.begin(&of).unwrap();
        if n != 2 {
            store.finish(InstanceId(n), WallTime(n * 10), "x").unwrap();
        }
    }
    let left = || -> Vec<i64> { history(&store).into_iter().map(|(id, ..)| id).collect() };
    store.prune_operations(WallTime(0), 9).unwrap();
    assert_eq!(left(), [1, 2, 3, 4, 5, 6]);
    store.prune_operations(WallTime(40), 9).unwrap();
    assert_eq!(left(), [2, 4, 5, 6], "those of an age");
    store.prune_operations(WallTime(0), 2).unwrap();
    assert_eq!(left(), [2, 5, 6], "those beyond a number");
    store.prune_operations(WallTime(99), 9).unwrap();
    assert_eq!(left(), [2]);
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
fn a_closed_database_is_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("acc.db")).unwrap();
    add(&store, "a", None, &[]).unwrap();
    store.by_host("a.example.org", Some("a")).unwrap();
    drop(store);
    let names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["acc.db"]);
}
