//! The settings against the files below `tests/config`, against `config.example.toml`, and in every
//! place where acc searches for them.

use std::fs;
use std::path::{Path, PathBuf};

use super::load::known_keys;
use super::*;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Root, with what the files in `tests/config` expect.
fn root() -> Env {
    Env::bare(0, "/nowhere")
}

/// Every `*.toml` of a folder: its name, its text, and the text beside it that is expected of it.
/// With `ACC_BLESS` set, `got` becomes what is expected.
fn each_case(folder: &str, got: impl Fn(&str, &str) -> String) {
    let mut cases: Vec<_> = fs::read_dir(repository(folder))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    cases.retain(|path| path.extension().is_some_and(|e| e == "toml"));
    assert!(cases.len() > 3, "no cases in {folder}");
    for path in cases {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let got = got(&name, &fs::read_to_string(&path).unwrap());
        let beside = path.with_extension("expected");
        if Env::from_process().get("ACC_BLESS").is_some() {
            fs::write(&beside, &got).unwrap();
        }
        let expected = fs::read_to_string(&beside).unwrap_or_default();
        assert_eq!(got, expected, "{}", path.display());
    }
}

#[test]
fn good_files_are_read_as_they_are_meant() {
    each_case("tests/config/valid", |name, text| {
        let config = parse(text, None, &root()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let shown = config.to_toml();
        assert_eq!(
            parse(&shown, None, &root()),
            Ok(config),
            "{name}: what is shown reads back the same"
        );
        shown
    });
}

#[test]
fn every_fault_of_a_bad_file_is_reported_with_its_line() {
    each_case("tests/config/invalid", |name, text| {
        match parse(text, None, &root()) {
            Ok(_) => panic!("{name} was accepted"),
            Err(errors) => format!("{errors}\n"),
        }
    });
}

/// The example with its settings switched on.
fn uncommented() -> String {
    let text = fs::read_to_string(repository("config.example.toml")).unwrap();
    let on = |line: &str| {
        line.strip_prefix('#')
            .filter(|l| l.starts_with(|c: char| c.is_ascii_lowercase() || c == '['))
            .map(str::to_owned)
    };
    text.lines()
        .map(|line| on(line).unwrap_or_else(|| line.to_owned()) + "\n")
        .collect()
}

#[test]
fn the_example_shows_every_key_with_its_default() {
    let text = fs::read_to_string(repository("config.example.toml")).unwrap();
    assert_eq!(
        parse(&text, None, &root()),
        parse("", None, &root()),
        "as it stands it changes nothing"
    );
    assert_eq!(
        parse(&uncommented(), None, &root()),
        parse("", None, &root()),
        "it shows the defaults"
    );
    let table: toml::Table = uncommented().parse().unwrap();
    for key in known_keys().iter().filter(|key| !key.contains('[')) {
        let mut value = Some(&toml::Value::Table(table.clone())).cloned();
        for part in key.split('.') {
            value = value.and_then(|v| v.get(part).cloned());
        }
        assert!(value.is_some(), "`{key}` is not in config.example.toml");
    }
    for key in known_keys()
        .iter()
        .filter_map(|key| key.strip_prefix("rules[0]."))
    {
        assert!(
            text.contains(&format!("#     {key} = ")),
            "`{key}` is not in the example of a rule"
        );
    }
}

#[test]
fn the_limit_named_in_the_example_is_the_one_in_force() {
    assert_eq!(RUN_MAX, 29);
    let config = parse("run = \"/run/aaaaaaaaaaaaaaaaaaaaaaaa\"", None, &root()).unwrap();
    assert_eq!(config.run.as_os_str().len(), RUN_MAX);
    let longest = config.socket(&"n".repeat(63));
    assert_eq!(
        longest.as_os_str().len() + 1,
        108,
        "one byte is for the closing zero"
    );
}

#[test]
fn root_and_users_have_their_own_folders() {
    let none = |env: Env| load(None, &env).unwrap();
    let config = none(
        Env::bare(0, "/nowhere")
            .with("HOME", "/root")
            .with("XDG_RUNTIME_DIR", "/run/user/0"),
    );
    assert_eq!(
        (config.home, config.run, config.file),
        ("/var/lib/acc".into(), "/run/acc".into(), None)
    );
    let config = none(Env::bare(7, "/nowhere").with("HOME", "/home/u"));
    assert_eq!(
        (config.home, config.run),
        ("/home/u/.local/share/acc".into(), "/tmp/acc-7".into())
    );
    let xdg = Env::bare(7, "/nowhere")
        .with("XDG_DATA_HOME", "/data")
        .with("XDG_RUNTIME_DIR", "/run/user/7");
    let config = none(xdg.clone());
    assert_eq!(
        (config.home, config.run),
        ("/data/acc".into(), "/run/user/7/acc".into())
    );
    let config = none(xdg.with("ACC_HOME", "/a").with("ACC_RUN", "/b"));
    assert_eq!((config.home, config.run), ("/a".into(), "/b".into()));
}

#[test]
fn a_home_that_nobody_named_is_a_fault() {
    let errors = load(None, &Env::bare(7, "/nowhere")).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "home: must be set here or in `ACC_HOME`, because `HOME` is not set"
    );
    let errors = load(
        None,
        &root()
            .with("ACC_HOME", "here")
            .with("ACC_RUN", "/very/long/very/long/very/long"),
    )
    .unwrap_err();
    assert_eq!(
        errors.to_string(),
        "ACC_HOME: must be an absolute path (found \"here\")\n\
         ACC_RUN: too long for the unix sockets in it: 30 bytes, 1 more than the maximum of 29 (found \"/very/long/very/long/very/long\")"
    );
}

#[test]
fn processors_decide_how_many_start_at_once() {
    let with = |cores| {
        let mut env = root();
        env.cores = cores;
        load(None, &env).unwrap().wake.max_at_once
    };
    assert_eq!((with(1), with(2), with(8)), (4, 4, 16));
}

#[test]
fn the_first_file_that_exists_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::bare(7, dir.path())
        .with("XDG_CONFIG_HOME", dir.path().join("user"))
        .with("ACC_HOME", "/a");
    let domain = |explicit: Option<&str>, env: &Env| {
        load(explicit.map(Path::new), env).map(|c| c.domain.to_string())
    };
    let write = |path: &str, domain: &str| {
        fs::create_dir_all(dir.path().join(path).parent().unwrap()).unwrap();
        fs::write(dir.path().join(path), format!("domain = \"{domain}\"")).unwrap();
    };
    assert_eq!(domain(None, &env).unwrap(), "apps.localhost");
    for (path, name) in [
        ("user/acc/config.toml", "user"),
        ("etc/acc/config.toml", "host"),
        ("acc.toml", "here"),
    ] {
        write(path, name);
        assert_eq!(domain(None, &env).unwrap(), name);
    }
    let mut root = env.clone();
    root.uid = 0;
    assert_eq!(
        domain(None, &root).unwrap(),
        "host",
        "root ignores the current folder"
    );
    write("named.toml", "named");
    write("option.toml", "option");
    let env = env.with("ACC_CONFIG", "named.toml");
    assert_eq!(domain(None, &env).unwrap(), "named");
    assert_eq!(domain(Some("option.toml"), &env).unwrap(), "option");
    assert_eq!(
        load(None, &env).unwrap().file,
        Some(dir.path().join("named.toml"))
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::bare(7, dir.path());
    let said =
        |explicit: Option<&str>| load(explicit.map(Path::new), &env).unwrap_err().to_string();
    let at = |name: &str| dir.path().join(name).display().to_string();
    assert_eq!(
        said(Some("missing.toml")),
        format!(
            "could not read `{}`: no such file or directory",
            at("missing.toml")
        )
    );
    fs::create_dir(dir.path().join("acc.toml")).unwrap();
    assert_eq!(
        said(None),
        format!("could not read `{}`: is a directory", at("acc.toml")),
        "not silently ignored"
    );
    fs::write(dir.path().join("latin1.toml"), b"# caf\xe9").unwrap();
    assert_eq!(
        said(Some("latin1.toml")),
        format!(
            "could not read `{}`: it is not UTF-8 text",
            at("latin1.toml")
        )
    );
}

#[test]
fn half_a_file_is_a_fault_and_not_a_crash() {
    let full = fs::read_to_string(repository("tests/config/valid/full.toml")).unwrap()
        + "é = \"ü\"\n"
        + &uncommented();
    for end in (0..full.len()).filter(|end| full.is_char_boundary(*end)) {
        if let Err(errors) = parse(&full[..end], None, &root()) {
            assert!(!errors.to_string().is_empty());
        }
    }
}

#[test]
fn nginx_has_a_user_of_its_own_when_acc_is_root() {
    let of = |text: &str, env: &Env| parse(text, None, env).unwrap().edge.user;
    let host = root().with_account("nobody").with_account("www-data");
    let user = "user = \"shop\"\n";
    assert_eq!(of(user, &host).as_deref(), Some("www-data"));
    assert_eq!(
        of(user, &host.clone().with_account("acc-edge")).as_deref(),
        Some("acc-edge")
    );
    assert_eq!(
        of("user = \"www-data\"\n", &host).as_deref(),
        Some("nobody"),
        "never that of the instances"
    );
    assert_eq!(
        of("user = \"nobody\"\n", &root().with_account("nobody")),
        None,
        "there is none that could be it"
    );
    assert_eq!(
        of("user = \"shop\"\n[edge]\nuser = \"web\"\n", &host).as_deref(),
        Some("web"),
        "what is said counts"
    );
    assert_eq!(of("", &host), None, "instances run as acc itself");
}
