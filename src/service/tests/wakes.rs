//! Requests that wake an instance, and how a start fails, waits or is withdrawn.

use super::*;

#[tokio::test(start_paused = true)]
async fn many_first_requests_start_it_once_and_all_pass() {
    let fixture = Fixture::new();
    fixture.create("a", true).await.unwrap();
    fixture.probe.hold.store(true, Ordering::SeqCst);
    let tasks: Vec<_> = (0..300)
        .map(|_| {
            let world = fixture.world.clone();
            tokio::spawn(async move { pass(&world, "a").await.map(|p| p.gate().run) })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(matches!(
        pass(&fixture.world, "a").await,
        Err(Refusal::TooManyWaiting)
    ));
    fixture.probe.release();
    for task in tasks {
        assert_eq!(task.await.unwrap(), Ok(1));
    }
    fixture.written().await;
    assert_eq!(fixture.supervisor.starts(&name("a")), 1);
    assert_eq!(fixture.view("a").wakes, 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_start_reaches_every_waiter_and_is_tried_again_later() {
    let fixture = Fixture::new();
    fixture.create("a", true).await.unwrap();
    fixture.probe.hold.store(true, Ordering::SeqCst);
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let world = fixture.world.clone();
            tokio::spawn(async move { pass(&world, "a").await.map(drop) })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    fixture.supervisor.exit(&name("a"), Exit::Code(3));
    for task in tasks {
        assert!(matches!(
            task.await.unwrap(),
            Err(Refusal::Failed {
                reason: "ended at start",
                ..
            })
        ));
    }
    assert_eq!(fixture.supervisor.starts(&name("a")), 1);
    assert!(
        matches!(pass(&fixture.world, "a").await, Err(Refusal::Failed { .. })),
        "no try before its time"
    );
    assert_eq!(fixture.supervisor.starts(&name("a")), 1);
    fixture.probe.release();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(pass(&fixture.world, "a").await.is_ok());
    fixture.written().await;
    assert_eq!(fixture.view("a").failure, None);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_cancels_its_wait_and_not_the_wake() {
    let fixture = Fixture::new();
    fixture.create("a", true).await.unwrap();
    fixture.probe.hold.store(true, Ordering::SeqCst);
    drop(fixture.world.admit(&host("a"), USE).await.unwrap());
    fixture.probe.release();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fixture.phase("a"), "awake");
}

#[tokio::test(start_paused = true)]
async fn one_that_never_answers_fails_in_time_and_is_ended() {
    let fixture = Fixture::new();
    fixture.create("a", true).await.unwrap();
    fixture.probe.hold.store(true, Ordering::SeqCst);
    let error = fixture.ask(start("a")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::TimedOut);
    assert!(
        error
            .message
            .contains("did not answer within 30.0 s: waited for an answer"),
        "{}",
        error.message
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fixture.phase("a"), "failed");
    assert!(fixture.supervisor.running().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn requests_during_an_operators_stop_wait_and_wake_it_again() {
    let fixture = Fixture::new();
    fixture.create("a", false).await.unwrap();
    let held = pass(&fixture.world, "a").await.unwrap();
    let world = fixture.world.clone();
    let stopping = tokio::spawn(async move { handle(&world, &caller(), stop("a")).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fixture.phase("a"), "draining");
    let world = fixture.world.clone();
    let next = tokio::spawn(async move { pass(&world, "a").await.map(|p| p.gate().run) });
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(held);
    stopping.await.unwrap().unwrap();
    assert_eq!(next.await.unwrap(), Ok(2));
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_withdrawn_ends_at_once() {
    let fixture = Fixture::new();
    fixture.create("a", false).await.unwrap();
    let held = pass(&fixture.world, "a").await.unwrap();
    let verb = |request: Request| {
        let world = fixture.world.clone();
        tokio::spawn(async move { handle(&world, &caller(), request).await })
    };
    fixture.supervisor.make_stubborn(&name("a"), true);
    let stopping = verb(Request::Stop {
        instance: "a".into(),
        now: true,
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(fixture.phase("a"), "stopping");
    let starting = verb(start("a"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    // The last word: no start after all.
    let again = verb(stop("a"));
    drop(held);
    let began = tokio::time::Instant::now();
    let error = starting.await.unwrap().unwrap_err();
    assert!(
        error.message.contains("stopped while it was starting"),
        "{error}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "it waited for {:?}",
        began.elapsed()
    );
    stopping.await.unwrap().unwrap();
    again.await.unwrap().unwrap();
    assert_eq!(fixture.phase("a"), "asleep");
}

#[tokio::test(start_paused = true)]
async fn who_waits_does_not_hear_of_a_supervisor_that_is_brought_back() {
    let fixture = Fixture::new();
    fixture.create("a", false).await.unwrap();
    let another = fixture.another();
    fixture.supervisor.make_unreachable(true);
    let (request, verb) = (another.clone(), another.clone());
    let held = tokio::spawn(async move { pass(&request, "a").await.map(drop) });
    let started = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        handle(&verb, &caller(), start("a")).await
    });
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!held.is_finished() && !started.is_finished());
    fixture.supervisor.make_unreachable(false);
    held.await.unwrap().unwrap();
    assert!(already(&started.await.unwrap().unwrap()));
    assert_eq!(fixture.supervisor.starts(&name("a")), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_for_one_that_died_while_acc_was_away_wakes_it() {
    let fixture = Fixture::new();
    fixture.create("a", false).await.unwrap();
    let another = fixture.another();
    fixture.supervisor.exit(&name("a"), Exit::Signal(9));
    // The row still says awake: that is hearsay, and the request must neither be sent nowhere nor
    // hear of the old death.
    assert_eq!(pass(&another, "a").await.map(|p| p.gate().run), Ok(2));
    assert_eq!(fixture.supervisor.starts(&name("a")), 2);
}

#[tokio::test(start_paused = true)]
async fn starts_wait_their_turn() {
    let fixture = Fixture::new();
    let most = fixture.world.config().wake.max_at_once;
    let running = Arc::new(Mutex::new(0));
    for n in 0..most * 2 {
        fixture.create(&format!("a{n}"), true).await.unwrap();
    }
    fixture.probe.hold.store(true, Ordering::SeqCst);
    let seen = running.clone();
    fixture
        .supervisor
        .on_start(move |_| *seen.lock().unwrap() += 1);
    let tasks: Vec<_> = (0..most * 2)
        .map(|n| {
            let world = fixture.world.clone();
            tokio::spawn(async move { pass(&world, &format!("a{n}")).await.map(drop) })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(*running.lock().unwrap(), most);
    fixture.probe.release();
    for task in tasks {
        assert_eq!(task.await.unwrap(), Ok(()));
    }
}
