//! The database: made, migrated, refused; rows come back as they went in.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::domain::event_kind::EventKind;
use crate::domain::instance::{DesiredState, Exit, Launch, Process};
use crate::domain::lifecycle::{Failure, Machine, Phase, Stored};
use crate::domain::name::{HostName, InstanceId, InstanceName};
use crate::domain::time::{Timestamp, WallTime};

fn launch() -> Launch {
    Launch {
        runner: Default::default(),
        argv: vec!["/bin/true".into()],
        env: vec![("A".into(), "b".into())],
        handed: false,
        notifies: false,
        health: Some("/".into()),
        stop_signal: 15,
        start_timeout: Some(Duration::from_millis(1500)),
        stop_timeout: None,
    }
}

fn add(
    store: &Store,
    name: &str,
    port: Option<u16>,
    hosts: &[&str],
) -> Result<InstanceId, StoreError> {
    let hosts: Vec<_> = hosts.iter().map(|h| HostName::parse(h).unwrap()).collect();
    let new = NewRow {
        name: &InstanceName::parse(name).unwrap(),
        model: "hello",
        port,
        params: &BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        owner: Some("a@b.c"),
        idle: Some(Duration::from_secs(60)),
        hosts: &hosts,
        created_at: WallTime(5),
        stored: &Machine::creating(DesiredState::Auto, Timestamp(7)).stored(),
        boot: "b1",
    };
    store.insert(&new, |_| Ok((launch(), "key".into())))
}

#[test]
fn rows_come_back_as_they_went_in() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("acc.db");
    let store = Store::open(&path).unwrap();
    let id = add(
        &store,
        "shop",
        Some(20_000),
        &["b.example.org", "a.example.org"],
    )
    .unwrap();
    let row = store.by_host("a.example.org", None).unwrap().unwrap();
    assert_eq!(
        (row.id, row.name.as_str(), row.port),
        (id, "shop", Some(20_000))
    );
    assert_eq!(
        row.hosts.iter().map(HostName::as_str).collect::<Vec<_>>(),
        ["b.example.org", "a.example.org"]
    );
    assert_eq!(row.launch, Some(launch()));
    assert_eq!(store.unfinished().unwrap(), [(id, Work::Create)]);
    store.end(id).unwrap();
    assert!(store.unfinished().unwrap().is_empty());

    let stored = Stored {
        phase: Phase::Failed,
        desired: DesiredState::Up,
        run: 3,
        process: Some(Process {
            pid: 4,
            start_time: 5,
        }),
        since: Timestamp(6),
        quiet_since: Timestamp(7),
        failures: 2,
        failure: Some(Failure::Died(Exit::Code(1))),
        retry_at: Timestamp(9),
    };
    store
        .save(
            id,
            &Save {
                stored: &stored,
                boot: "b1",
                woke_at: Some(WallTime(8)),
                active_at: None,
                clock: 12,
            },
        )
        .unwrap();
    let check = LogCheck {
        log_mark: (1, 2, 3),
        at: Timestamp(4),
        quiet_since: Timestamp(7),
        active_at: Some(WallTime(11)),
        clock: None,
    };
    store.log_checked(id, &check).unwrap();
    let row = Store::open_readonly(&path)
        .unwrap()
        .by_name("shop")
        .unwrap()
        .unwrap();
    assert_eq!(row.stored, stored);
    assert_eq!(
        (row.wakes, row.last_wake_at, row.last_active_at),
        (1, Some(WallTime(8)), Some(WallTime(11)))
    );
    assert_eq!(
        (row.log_mark, row.checked_at, row.clock),
        ((1, 2, 3), Timestamp(4), Some(12))
    );
}

#[test]
fn what_is_unique_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("acc.db")).unwrap();
    add(&store, "shop", Some(20_000), &["a.example.org"]).unwrap();
    assert_eq!(
        add(&store, "shop", None, &[]).unwrap_err().to_string(),
        "the name `shop` is taken"
    );
    assert_eq!(
        add(&store, "shop2", None, &["a.example.org"])
            .unwrap_err()
            .to_string(),
        "the host `a.example.org` is taken"
    );
    assert_eq!(
        add(&store, "shop2", Some(20_000), &[])
            .unwrap_err()
            .to_string(),
        "the port 20000 is taken"
    );
    assert_eq!(store.names().unwrap(), ["shop"]);
}

#[test]
fn a_port_and_its_launch_change_together_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("acc.db")).unwrap();
    let id = add(&store, "a", Some(20_000), &[]).unwrap();
    add(&store, "b", Some(20_001), &[]).unwrap();
    let row = || store.by_id(id).unwrap().unwrap();
    let before = row().launch.unwrap();
    let launch = crate::domain::instance::Launch {
        argv: vec!["another".into()],
        ..before.clone()
    };
    assert_eq!(
        store
            .relocate(id, 20_001, &launch, "k")
            .unwrap_err()
            .to_string(),
        "the port 20001 is taken"
    );
    assert_eq!((row().port, row().launch), (Some(20_000), Some(before)));
    store.relocate(id, 20_002, &launch, "k").unwrap();
    assert_eq!(
        (row().port, row().launch, row().launch_key.as_str()),
        (Some(20_002), Some(launch), "k")
    );
}

#[test]
fn numbers_are_never_used_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("acc.db")).unwrap();
    let first = add(&store, "a", None, &["a.example.org"]).unwrap();
    store.delete(first).unwrap();
    let second = add(&store, "a", None, &["a.example.org"]).unwrap();
    assert!(second > first);
    assert!(
        store
            .unfinished()
            .unwrap()
            .iter()
            .all(|(id, _)| *id == second)
    );
}

#[test]
fn a_failing_finish_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("acc.db")).unwrap();
    let machine = Machine::creating(DesiredState::Auto, Timestamp(0)).stored();
    let new = NewRow {
        name: &InstanceName::parse("a").unwrap(),
        model: "m",
        port: None,
        params: &BTreeMap::new(),
        owner: None,
        idle: None,
        hosts: &[],
        created_at: WallTime(0),
        stored: &machine,
        boot: "b",
    };
    let failed: Result<_, StoreError> =
        store.insert(&new, |_| Err(StoreError::Taken(Conflict::Port(7))));
    assert_eq!(failed.unwrap_err().to_string(), "the port 7 is taken");
    assert!(store.names().unwrap().is_empty());
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
        Store::open(&path),
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
        Store::open(&path),
        Err(StoreError::Corrupt { .. })
    ));
    assert!(matches!(
        Store::open(dir.path()),
        Err(StoreError::Unusable { .. })
    ));
    assert!(matches!(
        Store::open_readonly(&dir.path().join("no.db")),
        Err(StoreError::Missing(_))
    ));
}

#[test]
fn the_migrations_are_valid() {
    Migrations::from_slice(MIGRATIONS).validate().unwrap();
}

#[test]
fn another_boot_means_nothing_runs() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("acc.db")).unwrap();
    let id = add(&store, "a", None, &[]).unwrap();
    let mut stored = Machine::creating(DesiredState::Auto, Timestamp(0)).stored();
    stored.phase = Phase::Awake;
    stored.process = Some(Process {
        pid: 1,
        start_time: 1,
    });
    store
        .save(
            id,
            &Save {
                stored: &stored,
                boot: "b1",
                woke_at: None,
                active_at: None,
                clock: 12,
            },
        )
        .unwrap();
    assert_eq!(store.forget_other_boots("b1").unwrap(), 0);
    assert_eq!(store.forget_other_boots("b2").unwrap(), 1);
    let row = store.by_id(id).unwrap().unwrap();
    assert_eq!(
        (row.stored.phase, row.stored.process),
        (Phase::Asleep, None)
    );
}

/// Uses every way to ask, so that [`Store::prepared`] hears every statement.
fn use_everything(store: &Store) {
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
    store.begin(id, Work::Purge, WallTime(0)).unwrap();
    store.end(id).unwrap();
    store.condemn(id, WallTime(0)).unwrap();
    store.delete(id).unwrap();
}

/// Plans by which a query reads more rows than it returns. Full scans are allowed for the
/// unfinished rows, the routed ones (all of which are returned), and queries that end with a
/// `LIMIT`.
fn bad_plans(store: &Store) -> Vec<String> {
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
    let store = Store::open(&dir.path().join("acc.db")).unwrap();
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
        include_str!("journal.rs"),
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

#[test]
fn a_page_goes_on_after_the_last_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("acc.db")).unwrap();
    for name in ["c", "a", "e", "b", "d"] {
        add(&store, name, None, &[]).unwrap();
    }
    let page = |phase, after, limit| {
        let rows = store
            .list(&Filter {
                phase,
                model: Some("hello"),
                after,
                limit,
            })
            .unwrap();
        rows.iter().map(|r| r.name.to_string()).collect::<String>()
    };
    assert_eq!(
        [
            page(None, None, Some(2)),
            page(None, Some("b"), Some(2)),
            page(None, Some("d"), Some(2))
        ],
        ["ab", "cd", "e"]
    );
    assert_eq!(page(Some("creating"), Some("bb"), None), "cde");
    assert_eq!(page(Some("awake"), None, None), "");
    let ids: Vec<i64> = store
        .names_after(InstanceId(2), 2)
        .unwrap()
        .into_iter()
        .map(|(id, _)| id.0)
        .collect();
    assert_eq!(
        (ids, store.newest().unwrap()),
        (vec![3, 4], Some(InstanceId(5)))
    );
}

#[test]
fn the_busy_are_all_but_sleepers_and_the_destroyed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("acc.db")).unwrap();
    for phase in Phase::ALL {
        let id = add(&store, phase.as_str(), None, &[]).unwrap();
        let mut stored = Machine::creating(DesiredState::Auto, Timestamp(0)).stored();
        stored.phase = phase;
        store
            .save(
                id,
                &Save {
                    stored: &stored,
                    boot: "b1",
                    woke_at: None,
                    active_at: None,
                    clock: 12,
                },
            )
            .unwrap();
    }
    let busy: Vec<Phase> = store
        .busy()
        .unwrap()
        .iter()
        .map(|r| r.stored.phase)
        .collect();
    assert!(
        Phase::ALL
            .iter()
            .all(|p| busy.contains(p) != matches!(p, Phase::Asleep | Phase::Destroyed)),
        "{busy:?}"
    );
}

#[test]
fn the_events_are_bounded_by_age_and_by_count() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("acc.db")).unwrap();
    let day = 24 * 3600 * 1000;
    for n in 0..5 {
        store
            .record(WallTime(n * 40 * day), None, "a", EventKind::Woke, "x")
            .unwrap();
    }
    store.prune_events(WallTime(110 * day), 5).unwrap();
    assert_eq!(store.events(None, 10).unwrap().len(), 2);
    store.prune_events(WallTime(0), 1).unwrap();
    assert_eq!(
        store
            .events(None, 10)
            .unwrap()
            .iter()
            .map(|e| e.at.0 / day)
            .collect::<Vec<_>>(),
        [160]
    );
    // After a wall clock that was set back nothing is older than the oldest: the count still holds.
    store
        .record(WallTime(1), None, "a", EventKind::Woke, "x")
        .unwrap();
    store.prune_events(WallTime(0), 1).unwrap();
    assert_eq!(store.events(None, 10).unwrap().len(), 1);
}

/// Writes about so many bytes into the log of the database.
fn fill(store: &Store, bytes: usize) {
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
    let store = Store::open(&path).unwrap();
    add(&store, "a", None, &[]).unwrap();
    // As `acc logs -f` or `acc prove`: open for long, asking now and then.
    let reader = Store::open_readonly(&path).unwrap();
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
    let mut store = Store::open(&path).unwrap();
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
    // Faster than the thread can write it back. Without an end it would be five times as much.
    for _ in 0..20_000 {
        store
            .record(WallTime(0), None, "a", EventKind::Woke, &detail)
            .unwrap();
    }
    assert!(store.wal_size() < 40_000_000, "{}", store.wal_size());
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
    let store = Store::open(&path).unwrap();
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
    let store = Store::open(&path).unwrap();
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
    let store = Store::open(&path).unwrap();
    assert_eq!(store.unfinished().unwrap(), [(InstanceId(7), Work::Purge)]);
    store
        .begin(InstanceId(7), Work::Destroy, WallTime(2))
        .unwrap();
    assert_eq!(
        store.unfinished().unwrap(),
        [(InstanceId(7), Work::Destroy)]
    );
    store.delete(InstanceId(7)).unwrap();
    assert_eq!(store.unfinished().unwrap(), [], "it goes with its row");
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
    let store = Store::open(&path).unwrap();
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
    let store = Store::open(&dir.path().join("acc.db")).unwrap();
    add(&store, "a", None, &[]).unwrap();
    store.by_host("a.example.org", Some("a")).unwrap();
    drop(store);
    let names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["acc.db"]);
}
