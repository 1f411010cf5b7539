//! What every store promises: each test runs on a database in a file and on one in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use super::sqlite::SqliteStore;
use super::*;
use crate::domain::event_kind::EventKind;
use crate::domain::instance::{DesiredState, Exit, Launch, Process, RunId};
use crate::domain::lifecycle::{Failure, Machine, Phase, Stored};
use crate::domain::name::{HostName, InstanceId, InstanceName};
use crate::domain::operation::OperationKind;
use crate::domain::time::{Timestamp, WallTime};

pub(super) fn launch() -> Launch {
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

pub(super) fn add(
    store: &dyn Store,
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
        asked_by: "command_line",
    };
    let id = store.insert(&new)?;
    store.relaunch(id, &launch(), "key")?;
    Ok(id)
}

/// Runs a test on each kind of store.
fn on_each(test: impl Fn(&dyn Store)) {
    let dir = tempfile::tempdir().unwrap();
    test(&SqliteStore::open(&dir.path().join("acc.db")).unwrap());
    test(&SqliteStore::in_memory().unwrap());
}

#[test]
fn rows_come_back_as_they_went_in() {
    on_each(|store| {
        let id = add(
            store,
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
        assert_eq!(store.unfinished().unwrap(), [(id, OperationKind::Create)]);
        store.finish(id, WallTime(6), "in service").unwrap();
        assert!(store.unfinished().unwrap().is_empty());

        let stored = Stored {
            phase: Phase::Failed,
            desired: DesiredState::Up,
            run: 3,
            run_id: Some(RunId::from(Process {
                pid: 4,
                start_time: 5,
            })),
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
        let row = store.by_name("shop").unwrap().unwrap();
        assert_eq!(row.stored, stored);
        assert_eq!(
            (row.wakes, row.last_wake_at, row.last_active_at),
            (1, Some(WallTime(8)), Some(WallTime(11)))
        );
        assert_eq!(
            (row.log_mark, row.checked_at, row.clock),
            ((1, 2, 3), Timestamp(4), Some(12))
        );
    });
}

#[test]
fn each_kind_of_run_comes_back_after_any_other() {
    on_each(|store| {
        let id = add(store, "a", None, &[]).unwrap();
        let process = |pid| Some(RunId::from(Process { pid, start_time: 5 }));
        let other = |text| Some(RunId::new(text));
        for run_id in [
            process(4),
            other("vm-1"),
            other(""),
            process(6),
            None,
            other("vm-2"),
            None,
        ] {
            let mut stored = Machine::creating(DesiredState::Auto, Timestamp(0)).stored();
            stored.run_id = run_id.clone();
            let save = Save {
                stored: &stored,
                boot: "b1",
                woke_at: None,
                active_at: None,
                clock: 12,
            };
            store.save(id, &save).unwrap();
            assert_eq!(store.by_id(id).unwrap().unwrap().stored.run_id, run_id);
        }
    });
}

#[test]
fn what_is_unique_is_named() {
    on_each(|store| {
        add(store, "shop", Some(20_000), &["a.example.org"]).unwrap();
        assert_eq!(
            add(store, "shop", None, &[]).unwrap_err().to_string(),
            "the name `shop` is taken"
        );
        assert_eq!(
            add(store, "shop2", None, &["a.example.org"])
                .unwrap_err()
                .to_string(),
            "the host `a.example.org` is taken"
        );
        assert_eq!(
            add(store, "shop2", Some(20_000), &[])
                .unwrap_err()
                .to_string(),
            "the port 20000 is taken"
        );
        assert_eq!(store.names().unwrap(), ["shop"]);
    });
}

#[test]
fn a_port_and_its_launch_change_together_or_not_at_all() {
    on_each(|store| {
        let id = add(store, "a", Some(20_000), &[]).unwrap();
        add(store, "b", Some(20_001), &[]).unwrap();
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
    });
}

#[test]
fn numbers_are_never_used_twice() {
    on_each(|store| {
        let first = add(store, "a", None, &["a.example.org"]).unwrap();
        store.delete(first, WallTime(6)).unwrap();
        let second = add(store, "a", None, &["a.example.org"]).unwrap();
        assert!(second > first);
        assert!(
            store
                .unfinished()
                .unwrap()
                .iter()
                .all(|(id, _)| *id == second)
        );
    });
}

#[test]
fn another_boot_means_nothing_runs() {
    on_each(|store| {
        let id = add(store, "a", None, &[]).unwrap();
        let mut stored = Machine::creating(DesiredState::Auto, Timestamp(0)).stored();
        stored.phase = Phase::Awake;
        stored.run_id = Some(RunId::new("vm-1"));
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
        assert_eq!((row.stored.phase, row.stored.run_id), (Phase::Asleep, None));
    });
}

#[test]
fn a_page_goes_on_after_the_last_name() {
    on_each(|store| {
        for name in ["c", "a", "e", "b", "d"] {
            add(store, name, None, &[]).unwrap();
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
    });
}

#[test]
fn the_busy_are_all_but_sleepers_and_the_destroyed() {
    on_each(|store| {
        for phase in Phase::ALL {
            let id = add(store, phase.as_str(), None, &[]).unwrap();
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
    });
}

#[test]
fn the_events_are_bounded_by_age_and_by_count() {
    on_each(|store| {
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
    });
}
