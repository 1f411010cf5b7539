//! The database: made, migrated, refused; rows come back as they went in.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::domain::instance::{Exit, Launch, Process, Wanted};
use crate::domain::lifecycle::{Failure, Machine, Phase, Stored};
use crate::domain::name::{HostName, InstanceId, InstanceName};
use crate::domain::time::{Timestamp, WallTime};

fn launch() -> Launch {
    Launch {
        argv: vec!["/bin/true".into()],
        env: vec![("A".into(), "b".into())],
        health: Some("/".into()),
        stop_signal: 15,
        start_timeout: Some(Duration::from_millis(1500)),
        stop_timeout: None,
    }
}

fn add(store: &Store, name: &str, port: Option<u16>, hosts: &[&str]) -> Result<InstanceId, StoreError> {
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
        stored: &Machine::creating(Wanted::Auto, Timestamp(7)).stored(),
        boot: "b1",
    };
    store.insert(&new, |_| Ok((launch(), "key".into())))
}

#[test]
fn rows_come_back_as_they_went_in() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("acc.db");
    let store = Store::open(&path).unwrap();
    let id = add(&store, "shop", Some(20_000), &["b.example.org", "a.example.org"]).unwrap();
    let row = store.by_host("a.example.org").unwrap().unwrap();
    assert_eq!((row.id, row.name.as_str(), row.port), (id, "shop", Some(20_000)));
    assert_eq!(row.hosts.iter().map(HostName::as_str).collect::<Vec<_>>(), ["b.example.org", "a.example.org"]);
    assert_eq!(row.launch, Some(launch()));
    assert_eq!(store.unfinished().unwrap(), [(id, Work::Create)]);
    store.end(id).unwrap();
    assert!(store.unfinished().unwrap().is_empty());

    let stored = Stored {
        phase: Phase::Failed,
        wanted: Wanted::Up,
        run: 3,
        process: Some(Process { pid: 4, start_time: 5 }),
        since: Timestamp(6),
        quiet_since: Timestamp(7),
        failures: 2,
        failure: Some(Failure::Died(Exit::Code(1))),
        retry_at: Timestamp(9),
    };
    store.save(id, &Save { stored: &stored, boot: "b1", woke_at: Some(WallTime(8)), active_at: None }).unwrap();
    store.looked(id, (1, 2, 3), Timestamp(4), Timestamp(7), Some(WallTime(11))).unwrap();
    let row = Store::open_readonly(&path).unwrap().by_name("shop").unwrap().unwrap();
    assert_eq!(row.stored, stored);
    assert_eq!((row.wakes, row.last_wake_at, row.last_active_at), (1, Some(WallTime(8)), Some(WallTime(11))));
    assert_eq!((row.mark, row.looked_at), ((1, 2, 3), Timestamp(4)));
}

#[test]
fn what_is_unique_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("acc.db")).unwrap();
    add(&store, "shop", Some(20_000), &["a.example.org"]).unwrap();
    assert_eq!(add(&store, "shop", None, &[]).unwrap_err().to_string(), "the name `shop` is taken");
    assert_eq!(add(&store, "shop2", None, &["a.example.org"]).unwrap_err().to_string(), "the host `a.example.org` is taken");
    assert_eq!(add(&store, "shop2", Some(20_000), &[]).unwrap_err().to_string(), "the port 20000 is taken");
    assert_eq!(store.names().unwrap(), ["shop"]);
}

#[test]
fn numbers_are_never_used_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("acc.db")).unwrap();
    let first = add(&store, "a", None, &["a.example.org"]).unwrap();
    store.delete(first).unwrap();
    let second = add(&store, "a", None, &["a.example.org"]).unwrap();
    assert!(second > first);
    assert!(store.unfinished().unwrap().iter().all(|(id, _)| *id == second));
}

#[test]
fn a_failing_finish_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("acc.db")).unwrap();
    let machine = Machine::creating(Wanted::Auto, Timestamp(0)).stored();
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
    let failed: Result<_, StoreError> = store.insert(&new, |_| Err(StoreError::Taken("the moon".into())));
    assert_eq!(failed.unwrap_err().to_string(), "the moon is taken");
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
    assert!(matches!(Store::open(&path), Err(StoreError::Newer { found: 999, .. })));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn damage_and_locks_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("acc.db");
    std::fs::write(&path, vec![7u8; 8192]).unwrap();
    assert!(matches!(Store::open(&path), Err(StoreError::Corrupt { .. })));
    assert!(matches!(Store::open(dir.path()), Err(StoreError::Unusable { .. })));
    assert!(matches!(Store::open_readonly(&dir.path().join("no.db")), Err(StoreError::Missing(_))));
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
    let mut stored = Machine::creating(Wanted::Auto, Timestamp(0)).stored();
    stored.phase = Phase::Awake;
    stored.process = Some(Process { pid: 1, start_time: 1 });
    store.save(id, &Save { stored: &stored, boot: "b1", woke_at: None, active_at: None }).unwrap();
    assert_eq!(store.forget_other_boots("b1").unwrap(), 0);
    assert_eq!(store.forget_other_boots("b2").unwrap(), 1);
    let row = store.by_id(id).unwrap().unwrap();
    assert_eq!((row.stored.phase, row.stored.process), (Phase::Asleep, None));
}

#[test]
fn hot_queries_use_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("acc.db")).unwrap();
    for condition in [
        "name = 'a'",
        "id = (SELECT instance FROM hosts WHERE host = 'a')",
        "phase <> 'asleep' AND phase <> 'destroyed'",
        "wanted = 'up' AND phase <> 'destroyed' AND phase <> 'creating'",
    ] {
        let connection = store.connection();
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN SELECT id FROM instances WHERE {condition}")).unwrap();
        let plan: Vec<String> = statement.query_map([], |r| r.get(3)).unwrap().map(Result::unwrap).collect();
        assert!(plan.iter().all(|line| !line.starts_with("SCAN") || line.contains("INDEX")), "{condition}: {plan:?}");
    }
}

#[test]
fn the_ledger_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("acc.db")).unwrap();
    let day = 24 * 3600 * 1000;
    for n in 0..5 {
        store.record(WallTime(n * 40 * day), None, "a", "woke", "x").unwrap();
    }
    store.prune_events(WallTime(5 * 40 * day)).unwrap();
    assert_eq!(store.events(None, 10).unwrap().len(), 2);
}

#[test]
fn the_journal_of_the_first_version_is_kept_and_learns_to_destroy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("acc.db");
    let mut connection = Connection::open(&path).unwrap();
    Migrations::from_slice(&MIGRATIONS[..1]).to_latest(&mut connection).unwrap();
    connection
        .execute_batch(
            "INSERT INTO instances (id, name, model, params, created_at, phase, wanted, boot, since, quiet_since) \
             VALUES (7, 'a', 'm', '{}', 0, 'destroyed', 'auto', 'b', 0, 0); INSERT INTO journal VALUES (7, 'purge', 1)",
        )
        .unwrap();
    drop(connection);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.unfinished().unwrap(), [(InstanceId(7), Work::Purge)]);
    store.begin(InstanceId(7), Work::Destroy, WallTime(2)).unwrap();
    assert_eq!(store.unfinished().unwrap(), [(InstanceId(7), Work::Destroy)]);
    store.delete(InstanceId(7)).unwrap();
    assert_eq!(store.unfinished().unwrap(), [], "it goes with its row");
}
