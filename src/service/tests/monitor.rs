//! What a monitor run starts, stops and leaves alone.

use super::*;
use crate::service::outcome::MonitorAction;

#[tokio::test(start_paused = true)]
async fn a_request_keeps_an_instance_awake_and_a_quiet_one_is_put_to_sleep() {
    let fixture = Fixture::new();
    fixture.create("a", false).await.unwrap();
    let request = pass(&fixture.world, "a").await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(fixture.monitor().await.is_empty());
    drop(request);
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert!(fixture.monitor().await.is_empty());
    fixture.activity.connections.store(1, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(fixture.monitor().await.is_empty(), "seen from outside");
    fixture.activity.connections.store(0, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(61)).await;
    fixture.activity.blind.store(true, Ordering::SeqCst);
    assert_eq!(
        fixture.monitor().await,
        ["acc error"],
        "not known is not quiet"
    );
    fixture.activity.blind.store(false, Ordering::SeqCst);
    assert_eq!(fixture.monitor().await, ["a sleep"]);
    assert_eq!(fixture.phase("a"), "asleep");
}

#[tokio::test(start_paused = true)]
async fn could_not_ask_is_not_gone() {
    let fixture = Fixture::new();
    fixture.create("a", false).await.unwrap();
    let another = fixture.another();
    fixture.supervisor.make_unreachable(true);
    let error = handle(&another, &caller(), stop("a")).await.unwrap_err();
    assert!(
        error
            .message
            .contains("could not find out whether `a` is running"),
        "{error}"
    );
    assert_eq!(fixture.phase("a"), "awake");
    fixture.supervisor.make_unreachable(false);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(already(
        &handle(&another, &caller(), start("a")).await.unwrap()
    ));
    assert_eq!(fixture.supervisor.starts(&name("a")), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_wanted_up_comes_up_and_what_is_disabled_stays_down() {
    let fixture = Fixture::new();
    fixture.create("a", true).await.unwrap();
    fixture.create("b", false).await.unwrap();
    let set_desired = |instance: &str, desired| Request::SetDesired {
        instance: instance.into(),
        desired,
    };
    fixture
        .ask(set_desired("a", DesiredState::Up))
        .await
        .unwrap();
    fixture
        .ask(set_desired("b", DesiredState::Down))
        .await
        .unwrap();
    assert_eq!(
        (fixture.phase("a"), fixture.phase("b")),
        ("awake", "asleep")
    );
    assert!(matches!(
        pass(&fixture.world, "b").await,
        Err(Refusal::Disabled)
    ));
    assert_eq!(
        fixture.ask(start("b")).await.unwrap_err().kind,
        ErrorKind::Denied
    );
    fixture.supervisor.exit(&name("a"), Exit::Signal(9));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fixture.monitor().await, ["a started"]);
}

#[tokio::test(start_paused = true)]
async fn quiesce_puts_all_to_sleep_and_wakes_nobody() {
    let fixture = Fixture::new();
    for name in ["a", "b", "c"] {
        fixture.create(name, false).await.unwrap();
    }
    assert_eq!(
        fixture.ask(Request::Quiesce).await.unwrap(),
        Outcome::Quiesced { stopped: 3 }
    );
    assert!(matches!(
        pass(&fixture.world, "a").await,
        Err(Refusal::Halting)
    ));
    assert_eq!(
        fixture.ask(start("a")).await.unwrap_err().kind,
        ErrorKind::Denied
    );
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_names_the_pinned_ones_that_a_run_starts() {
    let fixture = Fixture::new();
    for name in ["a", "b"] {
        fixture.create(name, false).await.unwrap();
        fixture
            .ask(Request::SetDesired {
                instance: name.into(),
                desired: DesiredState::Up,
            })
            .await
            .unwrap();
    }
    fixture.ask(stop("a")).await.unwrap();
    let dry = Request::Monitor {
        dry_run: true,
        thorough: false,
    };
    let Outcome::Monitor(run) = fixture.ask(dry).await.unwrap() else {
        panic!()
    };
    let lines: Vec<_> = run
        .lines
        .iter()
        .map(|line| (line.instance.as_str(), line.action))
        .collect();
    assert_eq!(
        lines,
        [("b", MonitorAction::Keep), ("a", MonitorAction::Start)]
    );
    assert_eq!(fixture.supervisor.starts(&name("a")), 1);
    assert_eq!(fixture.monitor().await, ["a started"]);
    assert_eq!(fixture.supervisor.starts(&name("a")), 2);
}

#[tokio::test(start_paused = true)]
async fn what_runs_without_need_is_ended_by_a_monitor_run() {
    let fixture = Fixture::new();
    fixture.create("a", false).await.unwrap();
    fixture.create("b", true).await.unwrap();
    // The row of `a` vanishes, and somebody starts `b` behind acc's back.
    let program = launch_spec::program(
        &fixture.world,
        &launch_spec::instance(
            &fixture.world,
            &find_row(&*fixture.world.store, &"b".into()).unwrap(),
        )
        .unwrap(),
    );
    fixture.supervisor.start(&program).await.unwrap();
    fixture
        .world
        .store
        .delete(InstanceId(1), WallTime(0))
        .unwrap();
    fixture.world.registry.forget(InstanceId(1));
    let lines = fixture.monitor().await;
    assert!(
        lines.contains(&"a repaired".to_owned()) && lines.contains(&"b repaired".to_owned()),
        "{lines:?}"
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(fixture.supervisor.running().await.unwrap().is_empty());
    assert!(fixture.monitor().await.is_empty(), "nothing left to do");
}

#[tokio::test(start_paused = true)]
async fn two_monitor_runs_at_once_are_one() {
    let fixture = Fixture::new();
    let _busy = fixture.world.monitor.lock().await;
    assert_eq!(
        fixture
            .ask(Request::Monitor {
                dry_run: false,
                thorough: false
            })
            .await
            .unwrap(),
        Outcome::Busy
    );
}
