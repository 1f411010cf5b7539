//! A database that is locked, damaged or from a newer acc: a clear error, and the file stays as it
//! is.

use std::fs;

use rusqlite::Connection;

use crate::support::{Combination, Fixture};

#[test]
fn a_locked_database_is_an_error_and_not_a_hang() {
    let Some(fixture) = Fixture::with(Combination::BUILTIN, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester");
    let other = Connection::open(fixture.home().join("acc.db")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let done = fixture.acc(&["create", "blog", "--model", "tester", "--asleep"]);
    assert!(done.took.as_secs() < 30, "{done:?}");
    done.error(1).says(&["locked"]);
    // An awake instance needs no database.
    fixture.get("shop", "/").status(200);
    other.execute_batch("ROLLBACK").unwrap();
    drop(other);
    fixture.create("blog", "tester");
    fixture.get("blog", "/").status(200);
}

#[test]
fn a_corrupt_database_is_refused_and_untouched() {
    let Some(fixture) = Fixture::new(Combination::BUILTIN) else {
        return;
    };
    fixture.create("shop", "tester");
    fixture.acc(&["halt"]).ok();
    let db = fixture.home().join("acc.db");
    let good = fs::read(&db).unwrap();
    let mut bad = good.clone();
    bad[..64].fill(b'?');
    fs::write(&db, &bad).unwrap();
    for command in [
        &["boot"][..],
        &["list"],
        &["create", "blog", "--model", "tester"],
        &["info", "shop"],
    ] {
        fixture.acc(command).error(1).says(&["acc.db"]);
    }
    assert!(
        fs::read(&db).unwrap() == bad,
        "the damaged file was changed"
    );
    fs::write(&db, &good).unwrap();
    fixture.acc(&["boot"]).ok();
    fixture.get("shop", "/").status(200);
}

#[test]
fn a_database_of_a_newer_version_is_used_if_it_says_so_and_else_refused_untouched() {
    let Some(fixture) = Fixture::new(Combination::BUILTIN) else {
        return;
    };
    fixture.create("shop", "tester");
    fixture.acc(&["halt"]).ok();
    let db = fixture.home().join("acc.db");
    let version = |connection: &Connection| {
        connection
            .query_row("PRAGMA user_version", [], |r| r.get::<_, i64>(0))
            .unwrap()
    };
    let connection = Connection::open(&db).unwrap();
    let ours = version(&connection);
    connection
        .pragma_update(None, "user_version", 9999)
        .unwrap();
    fixture.acc(&["boot"]).ok();
    fixture.get("shop", "/").status(200);
    fixture.acc(&["halt"]).ok();
    assert_eq!(version(&connection), 9999);
    connection
        .execute_batch("UPDATE compatibility SET oldest = 9999; PRAGMA wal_checkpoint(TRUNCATE)")
        .unwrap();
    drop(connection);
    let before = fs::read(&db).unwrap();
    for command in [
        &["boot"][..],
        &["list"],
        &["create", "blog", "--model", "tester"],
    ] {
        fixture.acc(command).error(1).says(&["9999", "acc.db"]);
    }
    assert!(fs::read(&db).unwrap() == before, "the file was changed");
    let connection = Connection::open(&db).unwrap();
    connection
        .pragma_update(None, "user_version", ours)
        .unwrap();
    drop(connection);
    fixture.acc(&["boot"]).ok();
    fixture.get("shop", "/").status(200);
}
