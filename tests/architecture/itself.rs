//! Shows that the rules can fail: each gets code that breaks it.

use super::source::{scrub, without_tests};
use super::*;

#[test]
fn the_rules_can_fail() {
    let layers = |path: &str, code: &str| {
        imports(Path::new(path), code)
            .into_iter()
            .map(|(_, l)| l)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        layers("store/mod.rs", "use crate::{service::x, domain::{a, b}};"),
        ["service", "domain"]
    );
    assert_eq!(
        layers(
            "driver/edge/nginx.rs",
            "use super::super::super::service::Door; use super::Gate;"
        ),
        ["service"]
    );
    assert_eq!(
        layers("driver/mod.rs", "use super::config::Config;"),
        ["config"]
    );
    assert!(points_up("store", "service").is_some() && points_up("service", "store").is_none());
    assert!(
        points_up("demo", "domain").is_some()
            && points_up("proxy", "demo").is_some()
            && points_up("interface", "demo").is_none()
    );
    assert!(points_up("domain", "domain").is_none() && points_up("domain", "std").is_none());
    let long = format!(
        "fn a() {{\n{}}}\nfn b(x: [u8; 2]) -> u8 {{ 1 }}\ntrait T {{ fn c(&self); }}\n",
        "x();\n".repeat(80)
    );
    assert_eq!(long_functions(&long, 60), [(1, "a".to_owned(), 82)]);
    let made = "fs::write(a, b);\nlet o = OpenOptions::new()\n.create(true).mode(0o600)\n.open(a);\nDirBuilder::new().create(a);\n.mode(1);";
    assert_eq!(made_by_umask(made), [1, 5]);
}

#[test]
fn what_reaches_outside_is_seen() {
    let found = |path: &str, code: &str| {
        reach::breaches(&Source {
            root: ROOTS[0],
            path: path.into(),
            text: String::new(),
            code: code.to_owned(),
        })
    };
    let code =
        "use std::fs;\nlet c = Command::new(a);\nlet t = Instant::now();\nSystemTime::now();";
    assert_eq!(
        found("domain/idle.rs", code),
        [
            "src/domain/idle.rs:2: starts a program",
            "src/domain/idle.rs:1: opens files",
            "src/domain/idle.rs:3: reads the clock of the timers",
            "src/domain/idle.rs:4: reads a clock",
        ]
    );
    assert!(found("host/fs.rs", code).is_empty());
    assert!(found("service/places.rs", "use std::fs;").is_empty());
    assert_eq!(found("service/routes.rs", "use std::fs;").len(), 1);
}

#[test]
fn circles_and_types_are_seen() {
    let source = |path: &str, code: &str| Source {
        root: ROOTS[0],
        path: path.into(),
        text: String::new(),
        code: code.to_owned(),
    };
    let circles = |files: &[(&str, &str)]| {
        let sources: Vec<Source> = files
            .iter()
            .map(|(path, code)| source(path, code))
            .collect();
        Graph::new(&sources).circles()
    };
    let mod_rs = ("a/mod.rs", "mod b;\nmod c;\npub use b::Thing;\n");
    let c = ("a/c.rs", "use super::Thing;\n");
    assert_eq!(
        circles(&[mod_rs, ("a/b.rs", "struct Thing;\n"), c]),
        Vec::<Vec<String>>::new()
    );
    assert_eq!(
        circles(&[mod_rs, ("a/b.rs", "fn f() { super::c::go() }\n"), c]),
        [["a/b.rs", "a/c.rs"]]
    );
    assert_eq!(
        circles(&[
            ("a/mod.rs", "fn f() { b::go() }\n"),
            ("a/b.rs", "use crate::a::{f, g};\n")
        ]),
        [["a/b.rs", "a/mod.rs"]]
    );
    assert_eq!(
        circles(&[
            ("x.rs", "use crate::y::{Z as W};\n"),
            ("y.rs", "use super::x::{self};\n")
        ]),
        [["x.rs", "y.rs"]]
    );
    let named = graph::types(
        "pub struct A;\n    type B = u8;\npub(in super::super) enum C {}\ntype D = u8;\n",
    );
    assert_eq!(
        named,
        [
            ("A".to_owned(), 1),
            ("C".to_owned(), 3),
            ("D".to_owned(), 4)
        ]
    );
}

#[test]
fn comments_strings_and_tests_are_not_code() {
    let text = "let a = \"{ // \\\" {\"; // crate::app {\nlet b = r#\"\"{\"#; let c = '{'; let d = '\\''; fn e<'a>(x: &'a str) {}\n/* { /* { */ } */ let f = b'{';\n";
    let code = scrub(text);
    assert_eq!(code.matches('{').count(), 1, "{code}");
    assert_eq!(code.lines().count(), 3);
    assert!(!code.contains("crate::app"));
    assert_eq!(
        without_tests("a\n#[cfg(test)]\nmod tests {\n b\n}\n"),
        "a\n"
    );
    assert_eq!(
        without_tests("a\n#[cfg(test)]\npub(in super::super) mod t {\n b {\n}\n}\nc\n"),
        "a\nc\n"
    );
    assert_eq!(
        without_tests("a\n#[cfg(test)]\nmod suite;\nb\n"),
        "a\n#[cfg(test)]\nmod suite;\nb\n"
    );
}
