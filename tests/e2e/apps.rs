//! Two third-party applications, from PyPI and from npm, each with a model of a few lines.

use std::path::PathBuf;

use crate::support::{Combination, Fixture, installed, need};

/// The folder of an installed application. Without it the test is skipped if a tool is missing, and
/// fails if the installation failed.
fn found(installed: Result<PathBuf, String>) -> Option<PathBuf> {
    match installed {
        Ok(dir) => Some(dir),
        Err(why) => {
            assert!(why.starts_with("not installed"), "{why}");
            need::skipped(&why);
            None
        }
    }
}

/// Root runs the applications as another user, as it should; that user must be able to reach the
/// folder they were installed in.
fn user() -> String {
    if need::is_root() {
        "user = \"nobody\"".to_owned()
    } else {
        String::new()
    }
}

#[test]
fn a_python_application_from_pypi() {
    if !need::programs(&["nginx", "supervisord"]) {
        return;
    }
    let Some(venv) = found(installed::flask()) else {
        return;
    };
    let Some(fixture) = Fixture::with(Combination::REAL, |s| (s.idle, s.top) = ("1s", user()))
    else {
        return;
    };
    let model = format!(
        "description = \"httpbin under gunicorn\"\nlisten = \"unix\"\nhealth = \"/status/200\"\n\
         command = [\"{}/bin/gunicorn\", \"--bind\", \"unix:{{{{ socket }}}}\", \"httpbin:app\"]\n",
        venv.display()
    );
    fixture.model("httpbin", &model);
    fixture.create("bin", "httpbin");
    let reply = fixture.get("bin", "/get?a=1").status(200).json();
    assert_eq!(reply["args"]["a"], "1", "{reply}");
    fixture.monitor_until_asleep("bin");
    let reply = fixture
        .send(
            &fixture
                .ask("POST", "bin", "/post?b=2")
                .header("Content-Type", "text/plain")
                .body("hello"),
        )
        .status(200)
        .json();
    assert_eq!(
        (&reply["args"]["b"], &reply["data"]),
        (&"2".into(), &"hello".into()),
        "{reply}"
    );
    // A response that lasts longer than the idle timeout.
    let slow = std::thread::scope(|scope| {
        let slow = scope.spawn(|| fixture.get("bin", "/drip?duration=2&numbytes=20&delay=0"));
        while !slow.is_finished() {
            fixture.monitor();
        }
        slow.join().unwrap().status(200)
    });
    assert_eq!(slow.body.len(), 20);
    fixture.monitor_until_asleep("bin");
    fixture.get("bin", "/headers").status(200);
}

/// gunicorn speaks both protocols itself: it takes the socket that acc hands it, and reports when
/// its master is up.
#[test]
fn a_python_application_on_a_socket_that_it_is_handed() {
    let Some(venv) = found(installed::flask()) else {
        return;
    };
    for combination in Combination::ALL {
        let Some(fixture) = Fixture::with(combination, |s| (s.idle, s.top) = ("1s", user())) else {
            continue;
        };
        for (name, ready) in [("handed", "socket"), ("says", "notify")] {
            let model = format!(
                "listen = \"fd\"\nready = \"{ready}\"\ncommand = [\"{}/bin/gunicorn\", \"--workers\", \"2\", \"httpbin:app\"]\n",
                venv.display()
            );
            fixture.model(name, &model);
            fixture
                .acc(&["create", name, "--model", name, "--asleep"])
                .ok();
            let post = fixture
                .ask("POST", name, "/post?b=2")
                .header("Content-Type", "text/plain")
                .body("hello");
            let reply = fixture.send(&post).status(200).json();
            assert_eq!(
                (&reply["args"]["b"], &reply["data"]),
                (&"2".into(), &"hello".into()),
                "{reply}"
            );
            fixture.monitor_until_asleep(name);
            fixture.get(name, "/headers").status(200);
            fixture.acc(&["stop", name]).ok();
            let log = std::fs::read_to_string(fixture.instance(name).join("log/app.log")).unwrap();
            assert!(
                log.contains("Listening at: unix:") && !log.contains("127.0.0.1:8000"),
                "it did not take the socket:\n{log}"
            );
        }
    }
}

#[test]
fn a_node_application_from_npm() {
    if !need::programs(&["nginx", "supervisord"]) {
        return;
    }
    let Some(dir) = found(installed::json_server()) else {
        return;
    };
    let Some(fixture) = Fixture::with(Combination::REAL, |s| (s.idle, s.top) = ("1s", user()))
    else {
        return;
    };
    let node = need::find("node").unwrap();
    let model = format!(
        "description = \"json-server\"\nlisten = \"tcp\"\nhealth = \"/db\"\n\
         command = [\"{}\", \"{}/node_modules/.bin/json-server\", \"--host\", \"127.0.0.1\", \"--port\", \"{{{{ port }}}}\", \"{{{{ data }}}}/db.json\"]\n",
        node.display(),
        dir.display()
    );
    fixture.model("json-server", &model);
    fixture.create("store", "json-server");
    let post = fixture
        .ask("POST", "store", "/posts")
        .header("Content-Type", "application/json")
        .body(r#"{"id": 77, "title": "kept"}"#);
    fixture.send(&post).status(201);
    fixture.monitor_until_asleep("store");
    // What the application was told before it slept, it still knows.
    assert_eq!(
        fixture.get("store", "/posts/77").status(200).json()["title"],
        "kept"
    );
    fixture.wait_phase("store", "awake");
    fixture.acc(&["stop", "store"]).ok();
    assert_eq!(
        fixture.get("store", "/posts/77").status(200).json()["title"],
        "kept"
    );
}
