//! Another program has locked the database: only commands that change something wait for it.

use crate::support::{Combination, Fixture};

/// While the lock is held, an awake instance answers and a sleeping one wakes; the stop that waits
/// for the lock succeeds once it is released. It is held for less than acc waits for a lock.
pub fn requests_go_on(combination: Combination) {
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    for name in ["shop", "blog", "wiki"] {
        fixture.create(name, "tester");
    }
    fixture.acc(&["stop", "wiki"]).ok();
    let database = rusqlite::Connection::open(fixture.home().join("acc.db")).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| fixture.acc(&["stop", "shop"]));
        fixture.get("wiki", "/").status(200);
        for _ in 0..10 {
            fixture.get("blog", "/").status(200);
            fixture.get("wiki", "/").status(200);
        }
        assert!(!stop.is_finished(), "it was not written down, and is told");
        database.execute_batch("ROLLBACK").unwrap();
        stop.join().unwrap().ok();
    });
    assert_eq!(fixture.phase("shop"), "asleep");
    // Everything that happened meanwhile was then written to the disk.
    assert_eq!(
        (fixture.phase("wiki"), fixture.phase("blog")),
        ("awake".to_owned(), "awake".to_owned())
    );
    fixture.acc(&["halt"]).ok();
    fixture.acc(&["boot"]).ok();
    for name in ["shop", "blog", "wiki"] {
        fixture.get(name, "/").status(200);
    }
}
