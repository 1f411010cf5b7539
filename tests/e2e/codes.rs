//! Exit codes and errors of the command line, as scripts see them.

use crate::support::{Combination, Fixture};

#[test]
fn every_exit_code_means_one_thing() {
    let Some(fixture) = Fixture::with(Combination::BUILTIN, |s| {
        (s.wake_timeout, s.idle) = ("1s", "60s")
    }) else {
        return;
    };
    fixture.create("shop", "tester");
    fixture.acc(&["list"]).ok();
    fixture.acc(&["start", "shop"]).code(0);
    fixture
        .acc(&["start", "sho"])
        .error(3)
        .says(&["`sho`", "did you mean `shop`?"]);
    fixture.acc(&["info", "999"]).error(3).says(&["`999`"]);
    fixture
        .acc(&["create", "x1", "--model", "testr"])
        .error(3)
        .says(&["`testr`", "acc models"]);
    fixture.acc(&["create", "-x"]).code(2);
    fixture.acc(&["no-such-command"]).code(2);
    fixture
        .acc(&["create", "x1", "--model", "tester", "--idle", "soon"])
        .code(2);
    fixture
        .acc(&["create", "x1", "--model", "tester", "--desired", "perhaps"])
        .code(2);
    fixture
        .acc(&["destroy", "shop"])
        .error(4)
        .says(&["awake", "hint:"]);
    fixture.model("deaf", "description = \"d\"\nlisten = \"unix\"\ncommand = [\"{{ acc }}\", \"demo-app\", \"--socket\", \"{{ socket }}\", \"--never-listen\"]\n");
    fixture.acc(&["create", "x1", "--model", "deaf"]).error(5);
    std::fs::write(
        fixture.dir.join("bad.toml"),
        "[idle]\ntimeout = \"soon\"\ntimeuot = 3\n[edge]\nkind = \"apache\"\n",
    )
    .unwrap();
    let check = crate::support::run::run(
        std::process::Command::new(&fixture.acc)
            .arg("--config")
            .arg(fixture.dir.join("bad.toml"))
            .args(["config", "check"])
            .env_clear(),
        crate::support::fixture::COMMAND,
    );
    check
        .code(2)
        .says(&["idle.timeout", "soon", "timeuot", "edge.kind", "apache"]);
}

/// A typo in the last name must not leave the command half done.
#[test]
fn of_several_names_all_must_exist() {
    let Some(fixture) = Fixture::with(Combination::BUILTIN, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester");
    fixture.create("blog", "tester");
    let (shop, blog) = (fixture.info("shop"), fixture.info("blog"));
    let before = (shop["pid"].as_i64(), blog["pid"].as_i64());
    for verb in [
        "start", "stop", "restart", "enable", "disable", "pin", "reset", "destroy", "purge",
    ] {
        let done = fixture
            .acc(&[verb, "shop", "2", "blogg", "99"])
            .error(3)
            .says(&["`blogg`", "did you mean `blog`?", "`99`"]);
        assert_eq!(
            done.err
                .matches("nothing was done for the other names")
                .count(),
            2,
            "{done:?}"
        );
        let (shop, blog) = (fixture.info("shop"), fixture.info("blog"));
        assert_eq!(
            (shop["pid"].as_i64(), blog["pid"].as_i64()),
            before,
            "{verb} changed something"
        );
        assert_eq!(
            (&shop["desired"], &blog["desired"]),
            (&"auto".into(), &"auto".into()),
            "{verb} changed something"
        );
    }
    fixture.acc(&["stop", "shop", "2"]).ok();
    assert_eq!(
        (fixture.phase("shop"), fixture.phase("blog")),
        ("asleep".to_owned(), "asleep".to_owned())
    );
}

#[test]
fn a_wrong_model_is_refused_with_file_line_and_reason() {
    let Some(fixture) = Fixture::new(Combination::BUILTIN) else {
        return;
    };
    fixture.model(
        "wrong",
        "description = \"d\"\nlisten = \"carrier pigeon\"\ncommand = []\nhaelth = \"/\"\n",
    );
    fixture
        .acc(&["create", "shop", "--model", "wrong"])
        .refused()
        .says(&[
            "/wrong/model.toml`: listen: ",
            "(found \"carrier pigeon\", line 2)",
        ]);
    fixture.model("broken", "description = \n");
    fixture
        .acc(&["create", "shop", "--model", "broken"])
        .refused()
        .says(&["/broken/model.toml`", "(line 1, column "]);
    assert!(!fixture.instance("shop").exists());
    fixture.acc(&["models"]).ok().says(&[
        "tester",
        "hello",
        "hello-fd",
        "hello-tcp",
        "python-http",
    ]);
}

#[test]
fn the_other_commands_print_what_they_promise() {
    let Some(fixture) = Fixture::with(Combination::BUILTIN, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester");
    fixture.get("shop", "/").status(200);
    assert!(fixture.acc(&["list"]).ok().out.contains("shop"));
    assert!(
        fixture
            .acc(&["info", "shop"])
            .ok()
            .out
            .contains("shop.apps.localhost")
    );
    fixture.acc(&["config", "check"]).ok();
    assert!(fixture.acc(&["config", "show"]).ok().out.contains("[idle]"));
    fixture.acc(&["logs", "shop"]).ok();
    fixture
        .acc(&["completions", "bash"])
        .ok()
        .says(&["_acc() {"]);
    fixture.acc(&["man"]).ok().says(&[".TH acc 1 "]);
    let doctor = fixture.acc(&["doctor"]);
    assert!(matches!(doctor.code, Some(0 | 1)), "{doctor:?}");
    crate::support::wait_until(
        "the access log has the request",
        crate::support::fixture::SOON,
        || {
            let log = fixture.acc(&["logs", "shop", "--access"]).ok().out;
            crate::support::wait::holds(log.contains("\"GET / HTTP/1.1\""), log)
        },
    );
    // Quiet in a pipe: data on stdout, only errors and messages on stderr, no colours.
    let list = fixture.acc(&["list"]).ok();
    assert!(
        !list.out.contains('\u{1b}') && !list.err.contains('\u{1b}'),
        "{list:?}"
    );
}

#[test]
fn what_makes_no_sense_is_refused_with_a_way_out() {
    let Some(fixture) = Fixture::with(Combination::BUILTIN, |s| s.idle = "60s") else {
        return;
    };
    fixture
        .acc(&[
            "create",
            "x1",
            "--model",
            "hello",
            "--host",
            "foo.example.org:8080",
        ])
        .error(2)
        .says(&["has a port", "leave the port out"]);
    fixture
        .acc(&["create", "x1", "--model", "hello", "--idle", "0s"])
        .code(2);
    fixture
        .acc(&["create", "x1", "--model", "hello", "--set", "nosuch=1"])
        .error(2)
        .says(&["`acc models hello`"]);
    fixture.create("shop", "tester");
    fixture.acc(&["destroy", "--force", "shop"]).ok();
    fixture
        .acc(&["create", "shop", "--model", "tester"])
        .error(1)
        .says(&["hint: free the name with `acc purge shop`"]);
    let command = r#"command = ["{{ acc }}", "demo-app", "--socket", "{{ socket }}"]"#;
    fixture.model(
        "unknown",
        &format!("{command}\n[env]\nA = \"{{{{ nosuch }}}}\"\n"),
    );
    fixture
        .acc(&["create", "x1", "--model", "unknown"])
        .error(2)
        .says(&["nosuch", "hint: fix `", "models/unknown/model.toml`"]);
    let files = fixture.model("files", command).join("files");
    std::fs::create_dir(&files).unwrap();
    std::fs::write(files.join("app.conf.tera"), "{{ nosuch }}").unwrap();
    fixture
        .acc(&["create", "x1", "--model", "files"])
        .error(2)
        .says(&["nosuch", "hint: fix `", "models/files/files/app.conf.tera`"]);
    fixture.model("wrong", "command = []\n[timeouts]\nwake = \"1s\"\n");
    // `acc models` already reports an unknown way to listen, not only the first create.
    for (listen, address, way) in [
        ("fd", "port", "descriptor 3"),
        ("unix", "port", "`{{ socket }}`"),
        ("tcp", "socket", "{{ port }}"),
    ] {
        fixture.model(
            "deaf",
            &format!(
                "listen = \"{listen}\"\ncommand = [\"true\",\n\"--on={{{{ {address} }}}}\"]\n"
            ),
        );
        let key = format!("models/deaf/model.toml`: command[1]: `{address}` ");
        let listed = fixture
            .acc(&["models"])
            .ok()
            .says(&[&key, way, "line 3", "listen = \"tcp\""]);
        assert!(!listed.out.contains("deaf"), "{listed:?}");
        fixture
            .acc(&["create", "x1", "--model", "deaf"])
            .error(2)
            .says(&[&key, way]);
        assert!(
            fixture.acc(&["doctor"]).out.contains(&key),
            "the doctor does not know"
        );
    }
    let wrong = fixture
        .acc(&["create", "x1", "--model", "wrong"])
        .error(2)
        .says(&["valid keys: start, stop", "docs/models.md"]);
    assert_eq!(
        wrong.err.matches("model `wrong` is invalid").count(),
        1,
        "{wrong:?}"
    );
    fixture
        .acc(&["models", "helo"])
        .error(3)
        .says(&["did you mean `hello`"]);
    fixture
        .acc(&["create", "x1", "--model", "helo"])
        .error(3)
        .says(&[
            "there is no model `helo`, did you mean `hello`?",
            "home/models",
        ]);
    fixture
        .acc(&["list", "--model", "helo"])
        .ok()
        .says(&["no such instance: there is no model `helo`, did you mean `hello`?"]);
    fixture
        .acc(&["models"])
        .ok()
        .says(&["each model is a folder in ", "home/models"]);
    fixture
        .acc(&[
            "create",
            "blog",
            "--model",
            "tester",
            "--host",
            "www.example.org",
            "--asleep",
        ])
        .ok();
    for slip in ["bolg", "blo", "blog.apps.localhost", "www.example.org"] {
        for verb in ["start", "info", "logs", "events", "purge"] {
            fixture
                .acc(&[verb, slip])
                .error(3)
                .says(&["did you mean `blog`?"]);
        }
    }
    assert!(!fixture.instance("x1").exists());
}

/// As the shell does it: the script is loaded, and its function is called with the words typed so
/// far.
#[test]
fn bash_completes_names() {
    if !crate::support::need::programs(&["bash"]) {
        return;
    }
    let Some(fixture) = Fixture::with(Combination::BUILTIN, |s| s.idle = "60s") else {
        return;
    };
    for name in ["shop", "shed", "blog"] {
        fixture
            .acc(&["create", name, "--model", "tester", "--asleep"])
            .ok();
    }
    let script = fixture.dir.join("completions");
    std::fs::write(&script, fixture.acc(&["completions", "bash"]).ok().out).unwrap();
    let completes = |typed: &str| {
        let config = fixture.config();
        let words = format!(
            "{} --config {} {typed}",
            fixture.acc.display(),
            config.display()
        );
        let text = format!(
            r#"source "$1"; IFS=' ' read -ra COMP_WORDS <<<"$2"; [[ $2 != *' ' ]] || COMP_WORDS+=("")
            COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); cur=${{COMP_WORDS[COMP_CWORD]}}; prev=${{COMP_WORDS[COMP_CWORD-1]}}
            _acc_named {} "$cur" "$prev"; echo "${{COMPREPLY[*]}}""#,
            fixture.acc.display()
        );
        let mut bash = std::process::Command::new("bash");
        bash.env_clear()
            .env("PATH", "/usr/bin:/bin")
            .args(["-c", &text, "bash"])
            .arg(&script)
            .arg(words);
        crate::support::run::run(&mut bash, crate::support::fixture::COMMAND)
            .ok()
            .out
            .trim_end()
            .to_owned()
    };
    assert_eq!(completes("stop "), "blog shed shop");
    assert_eq!(completes("stop sh"), "shed shop");
    assert_eq!(completes("stop --now blog sho"), "shop");
    assert_eq!(completes("info b"), "blog");
    assert_eq!(completes("create --model hello-"), "hello-fd hello-tcp");
    assert_eq!(completes("models py"), "python-http");
    assert_eq!(completes("list --after blo"), "blog");
    assert_eq!(completes("logs -n z"), "");
    assert!(
        completes("stop --n").contains("--now") && completes("list --phase awa").contains("awake")
    );
}

#[test]
fn parameters_are_shown_and_secrets_are_not() {
    let Some(fixture) = Fixture::with(Combination::BUILTIN, |s| s.idle = "60s") else {
        return;
    };
    let text = "command = [\"{{ acc }}\", \"demo-app\", \"--socket\", \"{{ socket }}\"]\n\
                [params.title]\ndefault = \"Shop\"\n[params.key]\nrequired = true\nsecret = true\n";
    fixture.model("secretive", text);
    fixture
        .acc(&["models", "secretive"])
        .ok()
        .says(&["key ", "title ", "Shop", "REQUIRED"]);
    fixture
        .acc(&["models"])
        .ok()
        .says(&["[title=Shop]", "in [ ] are optional"]);
    fixture
        .acc(&[
            "create",
            "shop",
            "--model",
            "secretive",
            "--set",
            "key=s3cret",
        ])
        .ok();
    let info = fixture.info("shop");
    assert_eq!(
        (&info["params"]["key"], &info["params"]["title"]),
        (&"****".into(), &"Shop".into()),
        "{info}"
    );
    let shown = fixture
        .acc(&["info", "shop"])
        .ok()
        .says(&["title = Shop", "key = ****"]);
    assert!(!shown.out.contains("s3cret"));
    fixture.get("shop", "/").status(200);
    let logs = fixture.acc(&["logs", "shop", "--json"]).ok();
    for line in logs.out.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["line"].is_string(), "{line}");
    }
}
