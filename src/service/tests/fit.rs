//! How an instance is run was settled when it was made: it stays so, or the start says why it
//! cannot.

use super::*;
use crate::domain::instance::{Launch, RunnerKind};

fn row(fixture: &Fixture) -> crate::store::Row {
    find_row(&*fixture.world.store, &"a".into()).unwrap()
}

fn events(fixture: &Fixture) -> Vec<(String, String)> {
    let events = fixture
        .world
        .store
        .events(Some(InstanceId(1)), 100)
        .unwrap();
    events
        .into_iter()
        .map(|e| (e.kind.into(), e.detail))
        .collect()
}

/// As an acc of other places would have written it. The task of a sleeper that was used just now
/// knows better, and leaves first.
async fn made_for(fixture: &Fixture, key: &str, argv: &[&str]) {
    let launch = Launch {
        argv: argv.iter().map(|a| (*a).to_owned()).collect(),
        ..row(fixture).launch.unwrap()
    };
    made(fixture, key, &launch).await;
}

async fn made(fixture: &Fixture, key: &str, launch: &Launch) {
    tokio::time::sleep(Duration::from_secs(10)).await;
    fixture
        .world
        .store
        .relaunch(InstanceId(1), launch, key)
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_this_acc_does_not_have_is_named() {
    let fixture = Fixture::new();
    fixture.create("a", true).await.unwrap();
    let good = row(&fixture);
    let launch = Launch {
        runner: RunnerKind::new("vm"),
        ..good.launch.clone().unwrap()
    };
    made(&fixture, &good.launch_key, &launch).await;
    let destroy = || Request::Destroy {
        instance: "a".into(),
        force: false,
    };
    for request in [start("a"), destroy()] {
        let error = fixture.ask(request).await.unwrap_err();
        let why = "there is no runner `vm`, only: process";
        assert!(error.message.contains(why), "{error}");
    }
    assert!(fixture.supervisor.calls().is_empty());
    // An acc that has it finishes what was begun.
    made(&fixture, &good.launch_key, &good.launch.unwrap()).await;
    fixture.ask(destroy()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_wake_that_fails_before_its_start_is_a_failure_as_any_other() {
    let fixture = Fixture::new();
    fixture.create("a", true).await.unwrap();
    let good = row(&fixture);
    made_for(&fixture, "somewhere", &["/bin/true"]).await;
    assert!(pass(&fixture.world, "a").await.is_err());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(fixture.phase("a"), "failed");
    let (kind, detail) = events(&fixture)
        .into_iter()
        .find(|(kind, _)| kind == "failed")
        .expect("no event");
    assert!(
        kind == "failed" && detail.contains("it was created for other folders (`somewhere`"),
        "{detail}"
    );
    let error = fixture.ask(start("a")).await.unwrap_err();
    assert!(
        error
            .message
            .contains("could not start `a`: it was created for other folders"),
        "{error}"
    );
    // It can be stopped, and started as soon as it can be again.
    fixture.ask(stop("a")).await.unwrap();
    fixture
        .world
        .store
        .relaunch(InstanceId(1), &good.launch.unwrap(), &good.launch_key)
        .unwrap();
    fixture.ask(start("a")).await.unwrap();
    assert_eq!(fixture.phase("a"), "awake");
}

#[tokio::test(start_paused = true)]
async fn places_follow_and_are_told_and_what_its_model_has_become_does_not_count() {
    let fixture = Fixture::new();
    fixture.create("a", true).await.unwrap();
    let (home, run) = (
        fixture.dir.path().join("h").display().to_string(),
        fixture.dir.path().join("r").display().to_string(),
    );
    std::fs::write(
        fixture.dir.path().join("h/models/test/model.toml"),
        MODEL.replace("{{ name }}", "changed"),
    )
    .unwrap();
    made_for(
        &fixture,
        &format!("/old/home {run} /old/acc"),
        &["/old/acc", "--data=/old/home/x", "kept"],
    )
    .await;
    fixture.ask(start("a")).await.unwrap();
    let after = row(&fixture);
    assert_eq!(
        after.launch.unwrap().argv,
        [
            "/bin/true".to_owned(),
            format!("--data={home}/x"),
            "kept".to_owned()
        ]
    );
    assert_eq!(after.launch_key, format!("{home} {run} /bin/true"));
    let moved: Vec<String> = events(&fixture)
        .into_iter()
        .filter(|(kind, _)| kind == "moved")
        .map(|(_, detail)| detail)
        .collect();
    assert!(
        moved.len() == 1
            && moved[0].contains("/old/home")
            && moved[0].ends_with("its files are unchanged"),
        "{moved:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_installation_whose_instances_were_all_made_elsewhere_is_refused() {
    let fixture = Fixture::new();
    let config = fixture.world.config();
    let refused = || crate::service::moved::refuse_other_places(&config, &*fixture.world.store);
    refused().unwrap();
    fixture.create("a", true).await.unwrap();
    refused().unwrap();
    made_for(&fixture, "/old/home /old/run /usr/bin/acc", &["/bin/true"]).await;
    let error = refused().unwrap_err();
    let (home, run) = (
        config.home.display().to_string(),
        config.run.display().to_string(),
    );
    for part in ["/old/home", "/old/run", &home, &run] {
        assert!(error.message.contains(part), "{error}");
    }
    assert!(
        error.hint.contains("`home = \"/old/home\"`")
            && error.hint.contains("`run = \"/old/run\"`"),
        "{}",
        error.hint
    );
    // One that was made here: an earlier acc has moved them one by one.
    fixture.create("b", true).await.unwrap();
    refused().unwrap();
}
