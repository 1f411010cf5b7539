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
    let bed = Bed::new();
    bed.create("a", true).await.unwrap();
    bed.edge.set_failing(Method::Open, true);
    let request = pass(&bed.world, "a").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((bed.phase("a"), bed.edge.gate(&name("a"))), ("awake", None));
    assert!(!bed.supervisor.calls().contains(&"terminate a".to_owned()));
    drop(request);
    bed.edge.set_failing(Method::Open, false);
    assert_eq!(bed.monitor().await, ["a repaired"]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(bed.edge.gate(&name("a")).is_some());
}

#[tokio::test(start_paused = true)]
async fn one_disabled_while_it_drains_ends_all_the_same() {
    let bed = Bed::new();
    bed.create("a", false).await.unwrap();
    let held = pass(&bed.world, "a").await.unwrap();
    let world = bed.world.clone();
    let disable = Request::SetDesired {
        instance: "a".into(),
        desired: DesiredState::Down,
    };
    let disabling = tokio::spawn(async move { handle(&world, &caller(), disable).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(matches!(
        pass(&bed.world, "a").await.map(drop),
        Err(Refusal::Disabled)
    ));
    drop(held);
    disabling.await.unwrap().unwrap();
    assert_eq!(bed.phase("a"), "asleep");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_a_later_stop_takes_back_hears_of_it_at_once() {
    let bed = Bed::new();
    bed.create("a", false).await.unwrap();
    bed.supervisor.make_stubborn(&name("a"), true);
    let verb = |request| {
        let world = bed.world.clone();
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
    let bed = Bed::new();
    bed.create("a", false).await.unwrap();
    bed.supervisor.make_stubborn(&name("a"), true);
    let world = bed.world.clone();
    let destroying = tokio::spawn(async move { handle(&world, &caller(), force("a")).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    for _ in 0..3 {
        assert!(matches!(
            pass(&bed.world, "a").await.map(drop),
            Err(Refusal::Destroyed)
        ));
    }
    destroying.await.unwrap().unwrap();
    assert_eq!(bed.phase("a"), "destroyed");
}

#[tokio::test(start_paused = true)]
async fn a_process_of_a_destroyed_instance_is_ended_by_a_pass() {
    let bed = Bed::new();
    bed.create("a", true).await.unwrap();
    let instance = launch_spec::instance(
        &bed.world,
        &find_row(&bed.world.store, &"a".into()).unwrap(),
    )
    .unwrap();
    bed.ask(force("a")).await.unwrap();
    bed.supervisor
        .start(&launch_spec::program(&bed.world, &instance))
        .await
        .unwrap();
    assert_eq!(bed.monitor().await, ["a repaired"]);
    assert!(bed.supervisor.running().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn half_done_work_is_taken_up_by_the_next_pass_too() {
    let bed = Bed::new();
    bed.create("a", true).await.unwrap();
    bed.ask(force("a")).await.unwrap();
    bed.edge.set_failing(Method::Forget, true);
    bed.ask(Request::Purge {
        instance: "a".into(),
    })
    .await
    .unwrap_err();
    bed.supervisor.fail_next_start("no luck");
    let error = bed.create("b", false).await.unwrap_err();
    assert!(error.hint.contains("undo failed"), "{}", error.hint);
    assert!(
        matches!(
            pass(&bed.world, "b").await.map(drop),
            Err(Refusal::Destroyed)
        ),
        "it goes out of service first"
    );
    assert_eq!(bed.monitor().await, ["a error", "b error"]);
    bed.edge.set_failing(Method::Forget, false);
    assert_eq!(bed.monitor().await, ["a repaired", "b repaired"]);
    assert!(
        bed.world.store.names().unwrap().is_empty()
            && bed.world.store.unfinished().unwrap().is_empty()
    );
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_answer_was_lost_is_found_again() {
    let bed = Bed::new();
    bed.create("a", true).await.unwrap();
    let instance = launch_spec::instance(
        &bed.world,
        &find_row(&bed.world.store, &"a".into()).unwrap(),
    )
    .unwrap();
    let process = bed
        .supervisor
        .start(&launch_spec::program(&bed.world, &instance))
        .await
        .unwrap();
    bed.probe.obstacle.store(true, Ordering::SeqCst);
    drop(pass(&bed.world, "a").await.unwrap());
    bed.written().await;
    let row = find_row(&bed.world.store, &"a".into()).unwrap();
    assert_eq!(
        (row.stored.phase, row.stored.process),
        (Phase::Awake, Some(process))
    );
}

#[tokio::test(start_paused = true)]
async fn a_stop_during_the_first_start_leaves_it_made() {
    let bed = Bed::new();
    bed.probe.hold.store(true, Ordering::SeqCst);
    let world = bed.world.clone();
    let new = NewInstance {
        name: Some("a".into()),
        model: "test".into(),
        ..NewInstance::default()
    };
    let creating =
        tokio::spawn(async move { handle(&world, &caller(), Request::Create(new)).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    bed.ask(stop("a")).await.unwrap();
    creating.await.unwrap().unwrap();
    assert_eq!(bed.phase("a"), "asleep");
    assert!(bed.world.store.unfinished().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_is_set_puts_nobody_to_sleep_early() {
    let bed = Bed::new();
    bed.create("a", false).await.unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    bed.activity.touch(&bed.clock);
    assert!(bed.monitor().await.is_empty());
    tokio::time::sleep(Duration::from_secs(65)).await;
    bed.activity.touch(&bed.clock);
    // The request came just now; then the clock is set a day forward.
    bed.clock.set_by(86_400_000);
    assert!(bed.monitor().await.is_empty());
    tokio::time::sleep(Duration::from_secs(50)).await;
    bed.clock.set_by(-3_600_000);
    assert!(bed.monitor().await.is_empty());
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(
        bed.monitor().await,
        ["a sleep"],
        "nor is anybody kept awake"
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_started_that_cannot_be_written_down() {
    let bed = Bed::new();
    bed.create("a", false).await.unwrap();
    bed.supervisor.make_stubborn(&name("a"), true);
    let full = Arc::new(AtomicBool::new(false));
    let told = full.clone();
    bed.world
        .store
        .fail_writes_when(move || told.load(Ordering::SeqCst));
    let world = bed.world.clone();
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
    let world = bed.world.clone();
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
        (did.as_str(), instance.phase.as_str()),
        ("stopped", "stopping")
    );
    assert_eq!(bed.supervisor.starts(&name("a")), 1);
    full.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(bed.phase("a"), "asleep");
    assert!(pass(&bed.world, "a").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_start_is_no_use_and_a_request_is() {
    let bed = Bed::new();
    let used = |bed: &Bed| bed.view("a").last_active_at.is_some();
    bed.create("a", false).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    bed.monitor().await;
    bed.ask(stop("a")).await.unwrap();
    bed.ask(Request::Restart {
        instance: "a".into(),
    })
    .await
    .unwrap();
    handover::retire(&bed.world).await;
    assert!(!used(&bed), "only the operator has started it");
    let world = bed.another();
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(pass(&world, "a").await.unwrap());
    handle(&world, &caller(), stop("a")).await.unwrap();
    assert!(used(&bed));
    let before = bed.view("a").last_active_at;
    tokio::time::sleep(Duration::from_secs(1)).await;
    handle(&world, &caller(), start("a")).await.unwrap();
    handle(&world, &caller(), stop("a")).await.unwrap();
    assert_eq!(
        bed.view("a").last_active_at,
        before,
        "a later start does not change when it was used"
    );
    // The request that wakes it is use, also when nginx is the one who serves it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    std::mem::forget(pass(&world, "a").await.unwrap());
    bed.written().await;
    assert!(bed.view("a").last_active_at > before);
}

#[tokio::test(start_paused = true)]
async fn who_waited_for_one_that_died_awake_is_not_told_of_its_death() {
    let bed = Bed::new();
    bed.create("a", true).await.unwrap();
    let Admitted::Wait(mut waiting) = bed.world.admit(&host("a"), USE).await.unwrap() else {
        panic!("it sleeps")
    };
    // It comes up and is killed before this request has had its turn.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bed.phase("a"), "awake");
    bed.supervisor.exit(&name("a"), Exit::Signal(9));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bed.phase("a"), "failed");
    assert_eq!(waiting.admitted().await.map(|p| p.gate().run), Ok(2));
}

#[tokio::test(start_paused = true)]
async fn one_that_answers_as_soon_as_it_was_started_is_not_waited_for() {
    let bed = Bed::new();
    bed.create("a", true).await.unwrap();
    // Whatever a probe that waits would say.
    bed.probe.hold.store(true, Ordering::SeqCst);
    bed.probe.at_once.store(true, Ordering::SeqCst);
    let (one, other) = tokio::join!(pass(&bed.world, "a"), pass(&bed.world, "a"));
    assert!(one.is_ok() && other.is_ok());
    bed.written().await;
    assert_eq!(
        (bed.phase("a"), bed.supervisor.starts(&name("a"))),
        ("awake", 1)
    );
    assert_eq!(bed.view("a").wakes, 1);
}
