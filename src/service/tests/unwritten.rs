//! Rows that are behind: another program has locked the database, so what has happened is known to
//! the tasks only.

use std::pin::pin;

use futures_util::future::maybe_done;
use futures_util::poll;

use super::*;
use crate::domain::lifecycle::{Event, Phase};
use crate::service::monitor::pinned;
use crate::service::outcome::MonitorRun;

/// Locks the database until this is dropped. Writes are done on a thread of their own.
fn lock(fixture: &Fixture) -> rusqlite::Connection {
    fixture.world.start_store_threads().unwrap();
    let other = rusqlite::Connection::open(fixture.world.config().database()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    other
}

/// Returns when all reads that were asked for so far are done.
async fn until_read(fixture: &Fixture) {
    fixture.world.read(|_| Ok(())).await.unwrap();
}

/// The awake instance `a`, whose row says that it sleeps.
async fn woken_behind_its_row(fixture: &Fixture) -> rusqlite::Connection {
    fixture.create("a", true).await.unwrap();
    let locked = lock(fixture);
    drop(pass(&fixture.world, "a").await.unwrap());
    assert_eq!(fixture.phase("a"), "asleep");
    locked
}

#[tokio::test]
async fn a_halt_stops_one_that_was_woken_just_before() {
    let fixture = Fixture::new();
    let locked = woken_behind_its_row(&fixture).await;
    let mut halt = pin!(fixture.ask(Request::Quiesce));
    // Whatever it reads is read while the row is behind.
    assert!(poll!(&mut halt).is_pending());
    until_read(&fixture).await;
    drop(locked);
    assert_eq!(halt.await.unwrap(), Outcome::Quiesced { stopped: 1 });
    assert!(fixture.supervisor.running().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_verb_with_nothing_to_do_reports_what_is_true() {
    let fixture = Fixture::new();
    let locked = woken_behind_its_row(&fixture).await;
    let handle = find(&fixture.world, &"a".into()).await.unwrap();
    let mut enable = pin!(fixture.ask(Request::SetDesired {
        instance: "a".into(),
        desired: DesiredState::Auto,
    }));
    assert!(poll!(&mut enable).is_pending());
    until_read(&fixture).await;
    assert!(poll!(&mut enable).is_pending());
    // It has its answer when the next event has one.
    handle.ask(Event::Reset).await.unwrap();
    assert!(poll!(&mut enable).is_pending(), "it reports the row");
    drop(locked);
    let Outcome::Instance {
        already, instance, ..
    } = enable.await.unwrap()
    else {
        panic!()
    };
    assert_eq!((already, instance.phase), (true, Phase::Awake));
}

#[tokio::test]
async fn one_that_is_pinned_no_more_is_not_started() {
    let fixture = Fixture::new();
    fixture.create("a", true).await.unwrap();
    let handle = find(&fixture.world, &"a".into()).await.unwrap();
    let desired = |desired| handle.ask(Event::SetDesired(desired));
    desired(DesiredState::Up).await.unwrap();
    let locked = lock(&fixture);
    let mut unpin = pin!(desired(DesiredState::Auto));
    while handle.machine().desired() == DesiredState::Up {
        assert!(poll!(&mut unpin).is_pending());
        tokio::task::yield_now().await;
    }
    let mut run = MonitorRun::default();
    let mut bring_up = pin!(maybe_done(pinned::bring_up(&fixture.world, &mut run)));
    assert!(poll!(&mut bring_up).is_pending());
    until_read(&fixture).await;
    let _ = poll!(&mut bring_up);
    tokio::task::yield_now().await;
    drop(locked);
    unpin.await.unwrap();
    bring_up.await;
    assert_eq!(fixture.supervisor.starts(&name("a")), 0);
}

#[tokio::test]
async fn a_pinned_one_that_died_just_before_is_started() {
    let fixture = Fixture::new();
    fixture.create("a", false).await.unwrap();
    let handle = find(&fixture.world, &"a".into()).await.unwrap();
    handle
        .ask(Event::SetDesired(DesiredState::Up))
        .await
        .unwrap();
    fixture.written().await;
    let locked = lock(&fixture);
    fixture.supervisor.exit(&name("a"), Exit::Code(1));
    let mut changes = handle.follow();
    changes
        .wait_for(|seen| seen.phase == Phase::Failed)
        .await
        .unwrap();
    let mut run = MonitorRun::default();
    let mut bring_up = pin!(maybe_done(pinned::bring_up(&fixture.world, &mut run)));
    assert!(poll!(&mut bring_up).is_pending());
    until_read(&fixture).await;
    assert!(poll!(&mut bring_up).is_pending());
    assert_eq!(fixture.phase("a"), "awake", "the row is behind");
    drop(locked);
    bring_up.await;
    assert_eq!(fixture.supervisor.starts(&name("a")), 2);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_during_a_halt_wakes_nothing() {
    let fixture = Fixture::new();
    fixture.create("a", true).await.unwrap();
    fixture.probe.hold.store(true, Ordering::SeqCst);
    let world = fixture.world.clone();
    let waits = tokio::spawn(async move { pass(&world, "a").await.map(drop) });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fixture.phase("a"), "waking");
    let halted = fixture.ask(Request::Quiesce).await.unwrap();
    assert_eq!(halted, Outcome::Quiesced { stopped: 1 });
    assert_eq!(waits.await.unwrap(), Err(Refusal::Halting));
    assert_eq!(fixture.phase("a"), "asleep");
    assert!(fixture.supervisor.running().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_halt_stops_what_a_waiting_request_starts_after_another_stop() {
    let fixture = Fixture::new();
    fixture.create("a", false).await.unwrap();
    let open = pass(&fixture.world, "a").await.unwrap();
    let world = fixture.world.clone();
    let stop = tokio::spawn(async move { handle(&world, &caller(), stop("a")).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let world = fixture.world.clone();
    let waits = tokio::spawn(async move { pass(&world, "a").await.map(drop) });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(fixture.phase("a"), "draining");
    let world = fixture.world.clone();
    let halt = tokio::spawn(async move { handle(&world, &caller(), Request::Quiesce).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(open);
    halt.await.unwrap().unwrap();
    stop.await.unwrap().unwrap();
    let _ = waits.await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(fixture.phase("a"), "asleep");
    assert!(fixture.supervisor.running().await.unwrap().is_empty());
}
