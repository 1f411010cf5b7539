//! The write-ahead log: what makes it grow, and what makes it small again.

use super::*;

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
