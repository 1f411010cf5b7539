//! What create and the other verbs refuse, and what they leave after a failure: nothing.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_model_that_its_runner_cannot_run_is_refused() {
    let fixture = Fixture::new();
    let model = fixture.dir.path().join("h/models/test/model.toml");
    let all = Capabilities::LAUNCHED;
    let (no_socket, no_notify, no_process) = (
        Capabilities {
            handed_socket: false,
            ..all
        },
        Capabilities {
            notify: false,
            ..all
        },
        Capabilities {
            local_processes: false,
            ..all
        },
    );
    for (name, keys, can, why) in [
        (
            "a",
            "listen = \"fd\"",
            no_socket,
            Some("hand its socket over"),
        ),
        ("b", "listen = \"unix\"", no_socket, None),
        (
            "c",
            "ready = \"notify\"",
            no_notify,
            Some("hear from it that it is ready"),
        ),
        ("d", "ready = \"socket\"", no_notify, None),
        (
            "e",
            "",
            no_process,
            Some("run it as a process of this host"),
        ),
    ] {
        std::fs::write(&model, format!("{keys}\ncommand = [\"/bin/true\"]\n")).unwrap();
        fixture.supervisor.set_capabilities(can);
        let refused = fixture.create(name, true).await.err().map(|e| e.message);
        assert_eq!(refused.is_some(), why.is_some(), "{name}: {refused:?}");
        assert!(
            refused
                .unwrap_or_default()
                .ends_with(why.unwrap_or_default())
        );
        let made = fixture.world.store.by_name(name).unwrap();
        assert_eq!(made.is_some(), why.is_none(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_create_that_fails_leaves_nothing() {
    let fixture = Fixture::new();
    fixture.supervisor.fail_next_start("no luck");
    let error = fixture.create("a", false).await.unwrap_err();
    assert!(
        error
            .message
            .contains("starting it failed, and all changes were undone"),
        "{error}"
    );
    assert!(fixture.world.store.names().unwrap().is_empty());
    assert!(!fixture.world.config().instance_dir("a").exists());
    fixture.create("a", false).await.unwrap();
    assert_eq!(fixture.view("a").id, 2, "numbers are not used again");
    let taken = fixture.create("a", true).await.unwrap_err();
    assert!(taken.message.contains("the name `a` is taken"), "{taken}");
}

#[tokio::test(start_paused = true)]
async fn half_done_work_is_undone_or_finished_by_the_next_acc() {
    let fixture = Fixture::new();
    fixture.create("a", true).await.unwrap();
    fixture.create("b", false).await.unwrap();
    fixture
        .world
        .store
        .begin(&operation(2, "b", OperationKind::Create))
        .unwrap();
    fixture
        .ask(Request::Destroy {
            instance: "a".into(),
            force: false,
        })
        .await
        .unwrap();
    fixture
        .world
        .store
        .begin(&operation(1, "a", OperationKind::Purge))
        .unwrap();
    let another = fixture.another();
    recover::recover(&another).await.unwrap();
    assert!(another.store.names().unwrap().is_empty());
    assert!(another.store.unfinished().unwrap().is_empty());
    assert!(fixture.supervisor.running().await.unwrap().is_empty());
    assert!(
        !another.config().instance_dir("a").exists()
            && !another.config().instance_dir("b").exists()
    );
}

#[tokio::test(start_paused = true)]
async fn bad_requests_are_refused_before_anything_is_made() {
    let fixture = Fixture::new();
    fixture.create("a", true).await.unwrap();
    let new = |f: fn(&mut NewInstance)| {
        let mut new = NewInstance {
            name: Some("x".into()),
            model: "test".into(),
            asleep: true,
            ..NewInstance::default()
        };
        f(&mut new);
        Request::Create(new)
    };
    let cases: [(Request, ErrorKind, &str); 7] = [
        (
            new(|n| n.name = Some("A_b".into())),
            ErrorKind::Invalid,
            "`A_b` cannot be an instance's name",
        ),
        (
            new(|n| n.model = "nope".into()),
            ErrorKind::NotFound,
            "there is no model `nope`",
        ),
        (
            new(|n| n.model = "../x".into()),
            ErrorKind::NotFound,
            "there is no model",
        ),
        (
            new(|n| n.hosts = vec!["a b".into()]),
            ErrorKind::Invalid,
            "`a b` is not a host name",
        ),
        (
            new(|n| n.hosts = vec!["a.apps.localhost".into()]),
            ErrorKind::Failed,
            "belongs to instance `a`",
        ),
        (
            new(|n| n.owner = Some("jane".into())),
            ErrorKind::Invalid,
            "`jane` is not an e-mail address",
        ),
        (
            new(|n| drop(n.set.insert("k".into(), "v".into()))),
            ErrorKind::Invalid,
            "`k`",
        ),
    ];
    for (request, kind, text) in cases {
        let error = fixture.ask(request).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(text), "{error}");
        assert!(!error.hint.is_empty());
    }
    assert_eq!(fixture.world.store.names().unwrap(), ["a"]);
}
