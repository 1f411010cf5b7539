//! A start that fails says why: in the message, in the events, and with the end of the log, which
//! is kept.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::support::fixture::SOON;
use crate::support::wait::{holds, wait_until};
use crate::support::{Combination, Fixture, need};

/// An application that listens at the given address, and answers 503.
const LISTEN_PY: &str = r#"
import os, socket, sys
print("cannot reach database db.internal", flush=True)
for n in range(40): print("line %d" % n, flush=True)
kind, where = sys.argv[1], sys.argv[2]
s = socket.socket({"4": socket.AF_INET, "6": socket.AF_INET6, "u": socket.AF_UNIX}[kind])
s.bind(where if kind == "u" else (where, int(sys.argv[3])))
s.listen(9)
while True:
    c, _ = s.accept()
    # acc goes away at its deadline, and that is not this program's end.
    try: c.recv(9999); c.sendall(b"HTTP/1.1 503 Not \x1b[31mYet\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    except OSError: pass
    c.close()
"#;

fn model(fixture: &Fixture, name: &str, listen: &str, more: &str, arguments: &str) {
    let text = format!(
        "listen = \"{listen}\"\n{more}command = [\"python3\", \"app.py\", {arguments}]\n[timeouts]\nstart = \"1s\"\n"
    );
    let dir = fixture.model(name, &text);
    fs::create_dir_all(dir.join("files")).unwrap();
    fs::write(dir.join("files/app.py"), LISTEN_PY).unwrap();
}

pub fn where_it_listens_instead_and_what_it_said(combination: Combination) {
    if !need::programs(&["python3"]) {
        return;
    }
    let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
        return;
    };
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let port = format!("\"{free}{{% if false %}}{{{{ port }}}}{{% endif %}}\"");
    model(
        &fixture,
        "other",
        "tcp",
        "",
        &format!("\"4\", \"127.0.0.1\", {port}"),
    );
    model(
        &fixture,
        "file",
        "unix",
        "",
        "\"u\", \"{{ socket }}.other\"",
    );
    model(
        &fixture,
        "port",
        "unix",
        "",
        &format!("\"4\", \"127.0.0.1\", \"{free}{{% if false %}}{{{{ socket }}}}{{% endif %}}\""),
    );
    model(
        &fixture,
        "unwell",
        "unix",
        "health = \"/up\"\n",
        "\"u\", \"{{ socket }}\"",
    );
    let mut wanted = vec![
        (
            "other",
            format!("; it listens on `127.0.0.1:{free}` instead"),
        ),
        (
            "file",
            format!(
                "; it listens on `{}.other` instead",
                fixture.run().join("sock/file/app.sock").display()
            ),
        ),
        (
            "port",
            format!("; it listens on `127.0.0.1:{free}` instead"),
        ),
        (
            "unwell",
            "(last result: `HTTP/1.1 503 Not \\u{1b}[31mYet`)".to_owned(),
        ),
    ];
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        model(&fixture, "six", "tcp", "", "\"6\", \"::1\", \"{{ port }}\"");
        wanted.push(("six", "; it listens on `[::1]:".to_owned()));
    }
    for (name, why) in wanted {
        let kept = fixture
            .home()
            .join("log/failed")
            .join(format!("{name}.log"));
        let said = fixture
            .acc(&["create", name, "--model", name])
            .error(5)
            .says(&[&why, "line 39", "line 10\n", &kept.display().to_string()]);
        assert!(
            !said.err.contains("line 9\n"),
            "more than 30 lines: {}",
            said.err
        );
        assert!(
            fs::read_to_string(&kept).unwrap().contains("db.internal"),
            "{name}: the whole log was not kept"
        );
        assert_eq!(
            fs::metadata(&kept).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
    // A wake reports the same, in its event.
    fixture
        .acc(&["create", "later", "--model", "other", "--asleep"])
        .ok();
    fixture.get("later", "/").status(503);
    let elsewhere = format!("it listens on `127.0.0.1:{free}` instead");
    wait_until("its event", SOON, || {
        let told = fixture.acc(&["events", "later"]).ok().out;
        holds(
            told.contains("failed") && told.contains(&elsewhere),
            told.clone(),
        )
    });
    fixture.wait_phase("later", "failed");
}

pub fn why_its_program_cannot_be_run(combination: Combination) {
    let as_user = need::is_root();
    let Some(fixture) = Fixture::with(combination, |s| {
        s.idle = "60s";
        if as_user {
            s.top = "user = \"nobody\"".to_owned();
        }
    }) else {
        return;
    };
    let script = |name: &str, first: &str, mode: u32| {
        let dir = fixture.model(
            name,
            "listen = \"unix\"\ncommand = [\"./run\", \"{{ socket }}\"]\n",
        );
        fs::create_dir_all(dir.join("files")).unwrap();
        fs::write(dir.join("files/run"), first).unwrap();
        fs::set_permissions(dir.join("files/run"), fs::Permissions::from_mode(mode)).unwrap();
    };
    script("windows", "#!/bin/sh\r\necho\r\n", 0o755);
    script("by-env", "#!/usr/bin/env sh\r\necho\r\n", 0o755);
    script("missing", "#!/no/such/interpreter\n", 0o755);
    script("foreign", "MZ\u{1}\u{2}", 0o755);
    let closed = fixture.dir.join("closed");
    fs::create_dir(&closed).unwrap();
    fs::copy("/bin/true", closed.join("true")).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    fixture.model(
        "barred",
        &format!(
            "listen = \"unix\"\ncommand = [\"{}\", \"{{{{ socket }}}}\"]\n",
            closed.join("true").display()
        ),
    );
    let enter = format!(
        "user `nobody` may not enter the folder `{}`",
        closed.display()
    );
    let mut wanted = vec![
        ("windows", "`#!/bin/sh`, ends with a carriage return"),
        ("by-env", "`#!/usr/bin/env sh`, ends with a carriage return"),
        (
            "missing",
            "the interpreter `/no/such/interpreter` of its program",
        ),
        ("foreign", "is no program of this system"),
    ];
    wanted.extend(as_user.then_some(("barred", enter.as_str())));
    for (name, why) in wanted {
        fixture
            .acc(&["create", name, "--model", name])
            .error(1)
            .says(&[why]);
        let later = format!("{name}-later");
        fixture
            .acc(&["create", &later, "--model", name, "--asleep"])
            .ok();
        fixture.get(&later, "/").status(503);
        wait_until("its event", SOON, || {
            let told = fixture.acc(&["events", &later]).ok().out;
            holds(
                ["failed", "could not be started", why]
                    .iter()
                    .all(|part| told.contains(part)),
                told.clone(),
            )
        });
    }
}
