//! Reads: the server, which has the database open, and a command without one, which opens it, give
//! the same answer.

use super::*;
use crate::domain::lifecycle::Phase;
use crate::service::reads::Reader;
use crate::service::request::ListFilter;

fn named(instance: &str) -> Request {
    Request::Info {
        instance: instance.into(),
    }
}

fn logs(instance: &str, lines: usize) -> Request {
    Request::Logs {
        instance: instance.into(),
        access: false,
        lines,
    }
}

#[tokio::test]
async fn the_server_and_a_command_without_one_read_the_same() {
    let fixture = Fixture::new();
    for name in ["a", "b", "c"] {
        fixture.create(name, true).await.unwrap();
    }
    fixture.world.written().await;
    let config = fixture.world.config();
    std::fs::create_dir_all(config.app_log("b").parent().unwrap()).unwrap();
    std::fs::write(config.app_log("b"), "one\ntwo\n").unwrap();
    let page = ListFilter {
        phase: Some(Phase::Asleep),
        after: Some("a".into()),
        limit: Some(1),
        ..ListFilter::default()
    };
    let events = |instance: Option<&str>| Request::Events {
        instance: instance.map(Into::into),
        lines: 10,
    };
    let model = |model: &str| Request::Model {
        model: model.into(),
    };
    let reader = Reader::new(&config);
    for request in [
        Request::List(ListFilter::default()),
        Request::List(page.clone()),
        named("a"),
        named("2"),
        named("d"),
        Request::Names,
        events(None),
        events(Some("b")),
        events(Some("none")),
        Request::Models,
        model("test"),
        model("tset"),
        logs("b", 1),
        logs("a", 1),
    ] {
        let here = handle(&reader, &caller(), request.clone()).await;
        let there = fixture.ask(request.clone()).await;
        assert_eq!(here, there, "{request:?}");
        // The same on the wire.
        if let Ok(outcome) = here {
            let text = serde_json::to_string(&outcome).unwrap();
            assert_eq!(serde_json::from_str::<Outcome>(&text).unwrap(), outcome);
        }
    }
    let Outcome::Instances { instances } = fixture.ask(Request::List(page)).await.unwrap() else {
        panic!()
    };
    assert_eq!(instances.len(), 1);
    assert_eq!(instances[0].name, "b");
    assert_eq!(
        fixture.ask(logs("b", 1)).await.unwrap(),
        Outcome::Logs {
            lines: vec!["two".into()]
        }
    );
    let missing = fixture.ask(named("d")).await.unwrap_err();
    assert_eq!(missing.kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn models_can_be_read_before_there_is_a_database_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("h/models")).unwrap();
    let reader = Reader::new(&configure(dir.path(), ""));
    let caller = caller();
    let ask = |request| handle(&reader, &caller, request);
    assert!(matches!(
        ask(Request::Models).await,
        Ok(Outcome::Models { models, .. }) if models.is_empty()
    ));
    let error = ask(Request::Names).await.unwrap_err();
    assert!(error.message.starts_with("there is no database"), "{error}");
    let error = ask(start("a")).await.unwrap_err();
    assert_eq!(error.message, "`start` cannot be answered from the files");
}
