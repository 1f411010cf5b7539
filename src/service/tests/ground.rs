//! A port that another program has taken.

use super::*;
use crate::driver::edge::fake::Method;

const TCP: &str =
    "listen = \"tcp\"\ncommand = [\"/bin/true\", \"{{ port }}\"]\n[env]\nPORT = \"{{ port }}\"\n";

/// A fixture with `a` asleep, whose port is taken.
async fn robbed(model: &str, files: Option<&str>) -> (Fixture, u16) {
    let fixture = Fixture::new();
    let dir = fixture.dir.path().join("h/models/test");
    std::fs::write(dir.join("model.toml"), model).unwrap();
    if let Some(text) = files {
        std::fs::create_dir(dir.join("files")).unwrap();
        std::fs::write(dir.join("files/app.conf.tera"), text).unwrap();
    }
    fixture.create("a", true).await.unwrap();
    let port = row(&fixture).port.unwrap();
    fixture.probe.taken.lock().unwrap().push(port);
    (fixture, port)
}

fn row(fixture: &Fixture) -> crate::store::Row {
    find_row(&*fixture.world.store, &"a".into()).unwrap()
}

fn address(port: u16) -> std::net::SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn moves(fixture: &Fixture) -> Vec<String> {
    let events = fixture
        .world
        .store
        .events(Some(InstanceId(1)), 100)
        .unwrap();
    events
        .into_iter()
        .filter(|e| e.kind == EventKind::PortChanged)
        .map(|e| e.detail)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn it_gets_another_and_everybody_knows() {
    let (fixture, before) = robbed(TCP, Some("name {{ name }}")).await;
    let gate = pass(&fixture.world, "a").await.unwrap().gate().clone();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let row = row(&fixture);
    let after = row.port.unwrap();
    assert_ne!(after, before);
    assert_eq!(gate.listen, Listen::Tcp(address(after)));
    assert_eq!(fixture.edge.gate(&name("a")), Some(gate));
    assert_eq!(fixture.edge.routes()[0].tcp, Some(address(after)));
    let launch = row.launch.unwrap();
    assert_eq!(launch.argv[1], after.to_string());
    assert!(launch.env.contains(&("PORT".into(), after.to_string())));
    assert_eq!(
        moves(&fixture),
        [format!(
            "from port {before} to {after}, because a thief has it"
        )]
    );
    // What is in flight is counted there, by a monitor run and by a stop: at the old port are
    // connections of somebody else.
    let looked_at = || {
        fixture
            .activity
            .asked
            .lock()
            .unwrap()
            .iter()
            .map(|t| t.listen.clone())
            .collect::<Vec<_>>()
    };
    fixture.monitor().await;
    assert_eq!(looked_at(), [Listen::Tcp(address(after))]);
    fixture.activity.asked.lock().unwrap().clear();
    fixture.ask(stop("a")).await.unwrap();
    assert_eq!(looked_at(), [Listen::Tcp(address(after))]);
    // The next acc, and the next run, know as well.
    assert_eq!(
        pass(&fixture.another(), "a").await.unwrap().gate().listen,
        Listen::Tcp(address(after))
    );
    assert_eq!(moves(&fixture).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_moved_fails_and_says_why() {
    let cases = [
        (
            Some("port {{ port }}"),
            None,
            "`app.conf` contains the port",
        ),
        (
            None,
            Some("listen = \"unix\"\ncommand = [\"/bin/true\"]\n"),
            "no longer listens on a port",
        ),
        (None, Some("nonsense"), "model `test`"),
    ];
    for (files, changed, said) in cases {
        let (fixture, before) = robbed(TCP, files).await;
        if let Some(text) = changed {
            std::fs::write(fixture.dir.path().join("h/models/test/model.toml"), text).unwrap();
        }
        let error = fixture.ask(start("a")).await.unwrap_err();
        assert!(
            error
                .message
                .contains("a thief has it; no other port is available")
                && error.message.contains(said),
            "{error}"
        );
        assert_eq!(
            (row(&fixture).port, moves(&fixture).len()),
            (Some(before), 0)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_model_counts_from_then_on_and_that_is_said() {
    let (fixture, _) = robbed(TCP, None).await;
    std::fs::write(
        fixture.dir.path().join("h/models/test/model.toml"),
        TCP.replace("[env]", "[env]\nMORE = \"1\""),
    )
    .unwrap();
    fixture.ask(start("a")).await.unwrap();
    assert!(
        moves(&fixture)[0]
            .ends_with("(its model has changed since it was created, and applies from now on)"),
        "{:?}",
        moves(&fixture)
    );
}

/// The port may be its own: started by an acc that did not live to hear of it.
#[tokio::test(start_paused = true)]
async fn its_own_process_is_no_thief_and_not_knowing_moves_nothing() {
    let (fixture, before) = robbed(TCP, None).await;
    let instance = launch_spec::instance(&fixture.world, &row(&fixture)).unwrap();
    let run_id = fixture
        .supervisor
        .start(&launch_spec::program(&fixture.world, &instance))
        .await
        .unwrap();
    fixture.ask(start("a")).await.unwrap();
    assert_eq!(
        (row(&fixture).port, row(&fixture).stored.run_id),
        (Some(before), Some(run_id))
    );
    let (fixture, before) = robbed(TCP, None).await;
    fixture.supervisor.make_unreachable(true);
    fixture.ask(start("a")).await.unwrap_err();
    fixture.supervisor.make_unreachable(false);
    fixture.edge.set_failing(Method::Forget, true);
    fixture.ask(start("a")).await.unwrap_err();
    assert_eq!(row(&fixture).port, Some(before));
}

/// The wake server knows the port, so an edge that does not is slower and nothing else.
#[tokio::test(start_paused = true)]
async fn an_edge_that_cannot_be_told_fails_nothing() {
    let (fixture, before) = robbed(TCP, None).await;
    fixture.edge.set_failing(Method::Apply, true);
    assert_ne!(
        pass(&fixture.world, "a").await.unwrap().gate().listen,
        Listen::Tcp(address(before))
    );
}
