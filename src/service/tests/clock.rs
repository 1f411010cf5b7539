//! The wall clock is set while acc runs: every duration is measured on the boot clock, so nothing
//! comes early or never.

use super::*;

const HOUR: i64 = 3_600_000;

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_at_every_look_keeps_nobody_awake() {
    let fixture = Fixture::new();
    fixture.create("a", false).await.unwrap();
    fixture.activity.touch(&fixture.clock);
    assert!(fixture.monitor().await.is_empty());
    for by in [-HOUR, 24 * HOUR, -HOUR, 24 * HOUR, -48 * HOUR] {
        tokio::time::sleep(Duration::from_secs(11)).await;
        fixture.clock.set_by(by);
        assert!(fixture.monitor().await.is_empty(), "put to sleep early");
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    fixture.clock.set_by(-HOUR);
    assert_eq!(fixture.monitor().await, ["a sleep"]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_one_is_tried_again_neither_early_nor_never() {
    let fixture = Fixture::new();
    fixture.create("a", true).await.unwrap();
    for by in [-HOUR, 24 * HOUR] {
        fixture.supervisor.fail_next_start("no luck");
        assert!(matches!(
            pass(&fixture.world, "a").await,
            Err(Refusal::Failed { .. })
        ));
        fixture.clock.set_by(by);
        assert!(
            matches!(pass(&fixture.world, "a").await, Err(Refusal::Failed { .. })),
            "early"
        );
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        drop(pass(&fixture.world, "a").await.unwrap());
        fixture
            .ask(Request::Stop {
                instance: "a".into(),
                now: true,
            })
            .await
            .unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_and_a_start_take_as_long_as_they_may() {
    let fixture = Fixture::new();
    fixture.create("a", false).await.unwrap();
    let held = pass(&fixture.world, "a").await.unwrap();
    let world = fixture.world.clone();
    let stopping = tokio::spawn(async move { handle(&world, &caller(), stop("a")).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    fixture.clock.set_by(24 * HOUR);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fixture.phase("a"), "draining", "cut early");
    drop(held);
    stopping.await.unwrap().unwrap();
    fixture.probe.hold.store(true, Ordering::SeqCst);
    fixture.clock.set_by(-24 * HOUR);
    let error = fixture.ask(start("a")).await.unwrap_err();
    assert!(
        error.message.contains("did not answer within 30.0 s"),
        "{}",
        error.message
    );
}

/// Without a server each monitor run is another acc, which knows nothing but what the last has
/// written down.
#[tokio::test(start_paused = true)]
async fn the_log_of_a_use_is_believed_when_it_says_when_that_was() {
    let fixture = Fixture::new();
    fixture.create("a", false).await.unwrap();
    fixture.written().await;
    let pass = async || match handle(
        &fixture.another(),
        &caller(),
        Request::Monitor {
            dry_run: false,
            thorough: false,
        },
    )
    .await
    .unwrap()
    {
        Outcome::Monitor(pass) => pass
            .lines
            .into_iter()
            .map(|l| format!("{} {}", l.instance, l.action.as_str()))
            .collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    tokio::time::sleep(Duration::from_secs(10)).await;
    fixture.activity.touch(&fixture.clock);
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert!(pass().await.is_empty());
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(
        pass().await.is_empty(),
        "65 s after its start, 55 s after its use"
    );
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(pass().await, ["a sleep"], "65 s after its use");
}
