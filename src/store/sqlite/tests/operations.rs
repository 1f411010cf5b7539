//! Operations: one runs, all are kept, and their number is bounded.

use super::*;

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
        last_try_at: None,
        last_error: None,
    };
    assert_eq!(store.last_operation(id).unwrap(), Some(running.clone()));
    store.not_ended(id, WallTime(7), "first").unwrap();
    store.not_ended(id, WallTime(8), "second").unwrap();
    let running = OperationRow {
        last_try_at: Some(WallTime(8)),
        last_error: Some("second".to_owned()),
        ..running
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
    store.not_ended(id, WallTime(11), "late").unwrap();
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
