//! The plans of all statements: none reads all rows, none sorts them.

use super::*;

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
    store.not_ended(id, WallTime(0), "x").unwrap();
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
            l.contains("INDEX operations_running")
                || l.contains("INDEX instances_tcp")
                || l.starts_with("SCAN hosts")
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
        ("operations_of", 1),
        ("operations_running", 1),
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
        include_str!("../instances.rs"),
        include_str!("../operations.rs"),
        include_str!("../events.rs"),
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
