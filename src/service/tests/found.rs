//! What the simulation has found, each as a test of its own.

use super::*;
use crate::domain::lifecycle::Phase;
use crate::driver::edge::fake::Method;

fn force(instance: &str) -> Request {
    Request::Destroy {
        instance: instance.into(),
        force: true,
    }
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_cannot_be_opened_cuts_nobody_off() {
    let fixture = Fixture::new();
    fixture.create("a", true).await.unwrap();
    fixture.edge.set_failing(Method::Open, true);
    let request = pass(&fixture.world, "a").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(
        (fixture.phase("a"), fixture.edge.gate(&name("a"))),
        ("awake", None)
    );
    assert!(
        !fixture
            .supervisor
            .calls()
            .contains(&"terminate a".to_owned())
    );
    drop(request);
    fixture.edge.set_failing(Method::Open, false);
    assert_eq!(fixture.monitor().await, ["a repaired"]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(fixture.edge.gate(&name("a")).is_some());
}

#[tokio::test(start_paused = true)]
async fn one_disabled_while_it_drains_ends_all_the_same() {
    let fixture = Fixture::new();
    fixture.create("a", false).await.unwrap();
    let held = pass(&fixture.world, "a").await.unwrap();
    let world = fixture.world.clone();
    let disable = Request::SetDesired {
        instance: "a".into(),
        desired: DesiredState::Down,
    };
    let disabling = tokio::spawn(async move { handle(&world, &caller(), disable).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(matches!(
        pass(&fixture.world, "a").await.map(drop),
        Err(Refusal::Disabled)
    ));
    drop(held);
    disabling.await.unwrap().unwrap();
    assert_eq!(fixture.phase("a"), "asleep");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_a_later_stop_takes_back_hears_of_it_at_once() {
    let fixture = Fixture::new();
    fixture.create("a", false).await.unwrap();
    fixture.supervisor.make_stubborn(&name("a"), true);
    let verb = |request| {
        let world = fixture.world.clone();
        tokio::spawn(async move { handle(&world, &caller(), request).await })
    };
    let first = verb(Request::Stop {
        instance: "a".into(),
        now: true,
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let started = verb(start("a"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let second = verb(stop("a"));
    let before = tokio::time::Instant::now();
    let error = started.await.unwrap().unwrap_err();
    assert!(
        error.message.contains("stopped while it was starting"),
        "{error}"
    );
    assert!(
        before.elapsed() < Duration::from_secs(20),
        "{:?}",
        before.elapsed()
    );
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_that_is_always_wanted_can_be_destroyed() {
    let fixture = Fixture::new();
    fixture.create("a", false).await.unwrap();
    fixture.supervisor.make_stubborn(&name("a"), true);
    let world = fixture.world.clone();
    let destroying = tokio::spawn(async move { handle(&world, &caller(), force("a")).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    for _ in 0..3 {
        assert!(matches!(
            pass(&fixture.world, "a").await.map(drop),
            Err(Refusal::Destroyed)
        ));
    }
    destroying.await.unwrap().unwrap();
    assert_eq!(fixture.phase("a"), "destroyed");
}

#[tokio::test(start_paused = true)]
async fn a_process_of_a_destroyed_instance_is_ended_by_a_monitor_run() {
    let fixture = Fixture::new();
    fixture.create("a", true).await.unwrap();
    let instance = launch_spec::instance(
        &fixture.world,
        &find_row(&*fixture.world.store, &"a".into()).unwrap(),
    )
    .unwrap();
    fixture.ask(force("a")).await.unwrap();
    fixture
        .supervisor
        .start(&launch_spec::program(&fixture.world, &instance))
        .await
        .unwrap();
    assert_eq!(fixture.monitor().await, ["a repaired"]);
    assert!(fixture.supervisor.running().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn half_done_work_is_also_continued_by_the_next_monitor_run() {
    let fixture = Fixture::new();
    fixture.create("a", true).await.unwrap();
    fixture.ask(force("a")).await.unwrap();
    fixture.edge.set_failing(Method::Forget, true);
    fixture
        .ask(Request::Purge {
            instance: "a".into(),
        })
        .await
        .unwrap_err();
    fixture.supervisor.fail_next_start("no luck");
    let error = fixture.create("b", false).await.unwrap_err();
    assert!(error.hint.contains("undo failed"), "{}", error.hint);
    assert!(
        matches!(
            pass(&fixture.world, "b").await.map(drop),
            Err(Refusal::Destroyed)
        ),
        "it goes out of service first"
    );
    let last_try = async |name: &str| {
        let info = Request::Info {
            instance: name.into(),
        };
        let Ok(Outcome::Info(info)) = fixture.ask(info).await else {
            panic!()
        };
        let operation = info.operation.unwrap();
        assert_eq!(operation.state, OperationState::Running);
        assert!(operation.last_error.unwrap().contains("could not remove"));
        operation.last_try_at.unwrap()
    };
    let before = (last_try("a").await, last_try("b").await);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fixture.monitor().await, ["a error", "b error"]);
    assert!(last_try("a").await > before.0 && last_try("b").await > before.1);
    fixture.edge.set_failing(Method::Forget, false);
    assert_eq!(fixture.monitor().await, ["a repaired", "b repaired"]);
    assert!(
        fixture.world.store.names().unwrap().is_empty()
            && fixture.world.store.unfinished().unwrap().is_empty()
    );
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_answer_was_lost_is_found_again() {
    let fixture = Fixture::new();
    fixture.create("a", true).await.unwrap();
    let instance = launch_spec::instance(
        &fixture.world,
        &find_row(&*fixture.world.store, &"a".into()).unwrap(),
    )
    .unwrap();
    let run_id = fixture
        .supervisor
        .start(&launch_spec::program(&fixture.world, &instance))
        .await
        .unwrap();
    fixture.probe.obstacle.store(true, Ordering::SeqCst);
    drop(pass(&fixture.world, "a").await.unwrap());
    fixture.written().await;
    let row = find_row(&*fixture.world.store, &"a".into()).unwrap();
    assert_eq!(
        (row.stored.phase, row.stored.run_id),
        (Phase::Awake, Some(run_id))
    );
}

#[tokio::test(start_paused = true)]
async fn a_stop_during_the_first_start_leaves_it_made() {
    let fixture = Fixture::new();
    fixture.probe.hold.store(true, Ordering::SeqCst);
    let world = fixture.world.clone();
    let new = NewInstance {
        name: Some("a".into()),
        model: "test".into(),
        ..NewInstance::default()
    };
    let creating =
        tokio::spawn(async move { handle(&world, &caller(), Request::Create(new)).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    fixture.ask(stop("a")).await.unwrap();
    creating.await.unwrap().unwrap();
    assert_eq!(fixture.phase("a"), "asleep");
    assert!(fixture.world.store.unfinished().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_is_set_puts_nobody_to_sleep_early() {
    let fixture = Fixture::new();
    fixture.create("a", false).await.unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    fixture.activity.touch(&fixture.clock);
    assert!(fixture.monitor().await.is_empty());
    tokio::time::sleep(Duration::from_secs(65)).await;
    fixture.activity.touch(&fixture.clock);
    // The request came just now; then the clock is set a day forward.
    fixture.clock.set_by(86_400_000);
    assert!(fixture.monitor().await.is_empty());
    tokio::time::sleep(Duration::from_secs(50)).await;
    fixture.clock.set_by(-3_600_000);
    assert!(fixture.monitor().await.is_empty());
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(
        fixture.monitor().await,
        ["a sleep"],
        "nor is anybody kept awake"
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_started_that_cannot_be_written_down() {
    let fixture = Fixture::new();
    fixture.create("a", false).await.unwrap();
    fixture.supervisor.make_stubborn(&name("a"), true);
    let full = Arc::new(AtomicBool::new(false));
    let told = full.clone();
    SqliteStore::of(&*fixture.world.store).fail_writes_when(move || told.load(Ordering::SeqCst));
    let world = fixture.world.clone();
    let stopping = tokio::spawn(async move {
        handle(
            &world,
            &caller(),
            Request::Stop {
                instance: "a".into(),
                now: true,
            },
        )
        .await
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let world = fixture.world.clone();
    let waiter = tokio::spawn(async move { pass(&world, "a").await.map(drop) });
    tokio::time::sleep(Duration::from_secs(1)).await;
    full.store(true, Ordering::SeqCst);
    assert_eq!(
        waiter.await.unwrap(),
        Err(Refusal::Broken),
        "told at once, and not started behind the database's back"
    );
    let Outcome::Instance { did, instance, .. } = stopping.await.unwrap().unwrap() else {
        panic!("not about an instance");
    };
    // It has ended; the row could not be written.
    assert_eq!(
        (did, instance.phase),
        (
            crate::service::outcome::InstanceChange::Stopped,
            Phase::Stopping
        )
    );
    assert_eq!(fixture.supervisor.starts(&name("a")), 1);
    full.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(fixture.phase("a"), "asleep");
    assert!(pass(&fixture.world, "a").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_start_is_no_use_and_a_request_is() {
    let fixture = Fixture::new();
    let used = |fixture: &Fixture| fixture.view("a").last_active_at.is_some();
    fixture.create("a", false).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    fixture.monitor().await;
    fixture.ask(stop("a")).await.unwrap();
    fixture
        .ask(Request::Restart {
            instance: "a".into(),
        })
        .await
        .unwrap();
    handover::retire(&fixture.world).await;
    assert!(!used(&fixture), "only the operator has started it");
    let world = fixture.another();
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(pass(&world, "a").await.unwrap());
    handle(&world, &caller(), stop("a")).await.unwrap();
    assert!(used(&fixture));
    let before = fixture.view("a").last_active_at;
    tokio::time::sleep(Duration::from_secs(1)).await;
    handle(&world, &caller(), start("a")).await.unwrap();
    handle(&world, &caller(), stop("a")).await.unwrap();
    assert_eq!(
        fixture.view("a").last_active_at,
        before,
        "a later start does not change when it was used"
    );
    // The request that wakes it is use, also when nginx is the one who serves it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    std::mem::forget(pass(&world, "a").await.unwrap());
    fixture.written().await;
    assert!(fixture.view("a").last_active_at > before);
}

#[tokio::test(start_paused = true)]
async fn who_waited_for_one_that_died_awake_is_not_told_of_its_death() {
    let fixture = Fixture::new();
    fixture.create("a", true).await.unwrap();
    let Admitted::Wait(mut waiting) = fixture.world.admit(&host("a"), USE).await.unwrap() else {
        panic!("it sleeps")
    };
    // It comes up and is killed before this request has had its turn.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fixture.phase("a"), "awake");
    fixture.supervisor.exit(&name("a"), Exit::Signal(9));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fixture.phase("a"), "failed");
    assert_eq!(waiting.admitted().await.map(|p| p.gate().run), Ok(2));
}

#[tokio::test(start_paused = true)]
async fn one_that_answers_as_soon_as_it_was_started_is_not_waited_for() {
    let fixture = Fixture::new();
    fixture.create("a", true).await.unwrap();
    // Whatever a probe that waits would say.
    fixture.probe.hold.store(true, Ordering::SeqCst);
    fixture.probe.at_once.store(true, Ordering::SeqCst);
    let (one, other) = tokio::join!(pass(&fixture.world, "a"), pass(&fixture.world, "a"));
    assert!(one.is_ok() && other.is_ok());
    fixture.written().await;
    assert_eq!(
        (fixture.phase("a"), fixture.supervisor.starts(&name("a"))),
        ("awake", 1)
    );
    assert_eq!(fixture.view("a").wakes, 1);
}
