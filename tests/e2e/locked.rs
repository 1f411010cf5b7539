//! Another program has locked the database: only those who ask for a change wait for it.

use crate::support::{Bed, Combination};

/// What is awake answers, and a sleeper wakes, while the lock is held; the stop that waits for it
/// succeeds once it is gone. It is held for less than acc waits for a lock.
pub fn requests_go_on(combination: Combination) {
    let Some(bed) = Bed::with(combination, |s| s.idle = "60s") else {
        return;
    };
    for name in ["zebra", "okapi", "tapir"] {
        bed.create(name, "tester");
    }
    bed.acc(&["stop", "tapir"]).ok();
    let database = rusqlite::Connection::open(bed.home().join("acc.db")).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| bed.acc(&["stop", "zebra"]));
        bed.get("tapir", "/").status(200);
        for _ in 0..10 {
            bed.get("okapi", "/").status(200);
            bed.get("tapir", "/").status(200);
        }
        assert!(!stop.is_finished(), "it was not written down, and is told");
        database.execute_batch("ROLLBACK").unwrap();
        stop.join().unwrap().ok();
    });
    assert_eq!(bed.phase("zebra"), "asleep");
    // And all that happened meanwhile came to the disk.
    assert_eq!(
        (bed.phase("tapir"), bed.phase("okapi")),
        ("awake".to_owned(), "awake".to_owned())
    );
    bed.acc(&["halt"]).ok();
    bed.acc(&["boot"]).ok();
    for name in ["zebra", "okapi", "tapir"] {
        bed.get(name, "/").status(200);
    }
}
