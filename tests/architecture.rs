//! Rules for the source that no lint checks: imports point down and never in a circle, no type name
//! has two meanings, only listed places use files, programs and clocks, every file says what it is
//! for, and no file or function is too long.
//!
//! The tests read `src/` and the sources of the other crates as text (comments and strings blanked
//! out first) and never build or run anything. Each rule reports all its breaches at once, and each has
//! a test that shows it can fail.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

#[path = "architecture/graph.rs"]
mod graph;
#[path = "architecture/itself.rs"]
mod itself;
#[path = "architecture/reach.rs"]
mod reach;
#[path = "architecture/source.rs"]
mod source;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use graph::Graph;
use source::{Source, is_word, sources, sources_of, walk};

/// From top to bottom; a layer may import those that come later.
const LAYERS: &[&str] = &[
    "app",
    "interface",
    "prove",
    "proxy",
    "control",
    "service",
    "driver",
    "render",
    "store",
    "models",
    "config",
    "host",
    "domain",
];
/// The source folders of the product, one for each crate: acc itself comes first.
const ROOTS: &[&str] = &["src", "crates/domain/src", "crates/launch/src"];
/// Most lines of a file: of a source file without the tests in it, and of a file of tests.
const FILE_MAX: usize = 500;
/// Longest function, from its first line to its closing brace.
const FUNCTION_MAX: usize = 60;

/// The layer a file belongs to: its first folder, or its own name at the top.
fn layer_of(path: &Path) -> String {
    path.iter()
        .next()
        .unwrap()
        .to_str()
        .unwrap()
        .trim_end_matches(".rs")
        .to_owned()
}

/// The modules between the crate and a file: `driver/edge/nginx.rs` is `[driver, edge, nginx]`.
fn module_path(path: &Path) -> Vec<String> {
    let mut parts: Vec<String> = path
        .with_extension("")
        .iter()
        .map(|p| p.to_string_lossy().into_owned())
        .collect();
    if parts
        .last()
        .is_some_and(|l| ["mod", "lib", "main"].contains(&l.as_str()))
    {
        parts.pop();
    }
    parts
}

/// Every layer named in this code, with the line: `crate::x`, `acc::x`, `use crate::{x, y::z}` and
/// chains of `super::`.
fn imports(path: &Path, code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let prefixes: &[&str] = if path == Path::new("main.rs") {
        &["crate::", "acc::"]
    } else {
        &["crate::"]
    };
    for prefix in prefixes {
        for (at, _) in code.match_indices(prefix) {
            if !is_word(code.as_bytes(), at) {
                let names = first_segments(&code[at + prefix.len()..]);
                found.extend(names.into_iter().map(|name| (line_of(code, at), name)));
            }
        }
    }
    let home = module_path(path);
    let mut at = 0;
    while let Some(n) = code[at..].find("super::") {
        let start = at + n;
        let mut rest = &code[start..];
        let mut ups = 0;
        while let Some(r) = rest.strip_prefix("super::") {
            (rest, ups) = (r, ups + 1);
        }
        if ups >= home.len() {
            found.extend(
                first_segments(rest)
                    .into_iter()
                    .map(|name| (line_of(code, start), name)),
            );
        }
        at = code.len() - rest.len();
    }
    found
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// `a::b` gives `a`; `{a::b, c::{d, e}}` gives `a` and `c`.
fn first_segments(text: &str) -> Vec<String> {
    let word = |s: &str| {
        s.trim_start()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect::<String>()
    };
    let Some(group) = text.strip_prefix('{') else {
        return vec![word(text)];
    };
    let (mut depth, mut start, mut names) = (1, 0, Vec::new());
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && c == ',') {
            names.push(word(&group[start..i]));
            start = i + 1;
        }
        if depth == 0 {
            break;
        }
    }
    names.retain(|n| !n.is_empty());
    names
}

/// Why a file of layer `from` may not name `to`; `None`: it may.
fn points_up(from: &str, to: &str) -> Option<String> {
    let rank = |name: &str| LAYERS.iter().position(|l| *l == name);
    if from == "demo" {
        return (rank(to).is_some())
            .then(|| format!("demo stands apart, it may not import `{to}`"));
    }
    match (rank(from), rank(to)) {
        (Some(from_rank), Some(to_rank)) if to_rank < from_rank => {
            Some(format!("`{from}` is below `{to}` and may not import it"))
        }
        (Some(from_rank), None) if to == "demo" && from_rank > 1 => {
            Some(format!("`{from}` may not import `demo`"))
        }
        _ => None,
    }
}

/// First line and length of every function longer than `max`.
fn long_functions(code: &str, max: usize) -> Vec<(usize, String, usize)> {
    let mut long = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if is_word(code.as_bytes(), at) {
            continue;
        }
        let name: String = code[at + 3..]
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        let Some(open) = body_start(&code[at..]) else {
            continue;
        };
        let mut depth = 0;
        for (i, c) in code[at + open..].char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                let lines = code[at..at + open + i].matches('\n').count() + 1;
                if lines > max && !name.is_empty() {
                    long.push((line_of(code, at), name, lines));
                }
                break;
            }
        }
    }
    long
}

/// Where a function's body begins, or `None` for one without a body (a trait's, a type's).
fn body_start(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' if depth == 0 => return Some(i),
            ';' if depth == 0 => return None,
            _ => {}
        }
        if depth < 0 {
            return None;
        }
    }
    None
}

#[track_caller]
fn none(breaches: &str) {
    assert!(breaches.is_empty(), "\n{breaches}");
}

#[test]
fn imports_point_down() {
    let mut breaches = String::new();
    for source in sources_of(ROOTS[0]) {
        for (line, to) in imports(&source.path, &source.code) {
            if let Some(why) = points_up(&layer_of(&source.path), &to) {
                writeln!(breaches, "{}:{line}: {why}", source.name()).unwrap();
            }
        }
    }
    none(&breaches);
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let circles = ROOTS
        .iter()
        .flat_map(|root| Graph::new(&sources_of(root)).circles());
    let circles = circles.map(|circle| circle.join(" <-> "));
    none(&circles.collect::<Vec<_>>().join("\n"));
}

#[test]
fn no_type_name_means_two_things() {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources() {
        for (name, line) in graph::types(&source.code) {
            all.entry(name)
                .or_default()
                .push(format!("{}:{line}", source.name()));
        }
    }
    let twice = all
        .into_iter()
        .filter(|(_, places)| places.len() > 1)
        .map(|(name, places)| format!("{name}: {}", places.join(", ")));
    none(&twice.collect::<Vec<_>>().join("\n"));
}

#[test]
fn every_file_is_in_a_layer() {
    let known = |layer: &str| LAYERS.contains(&layer) || ["main", "lib", "demo"].contains(&layer);
    let stray: Vec<String> = sources_of(ROOTS[0])
        .iter()
        .filter(|s| !known(&layer_of(&s.path)))
        .map(Source::name)
        .collect();
    none(&stray.join("\n"));
}

/// Only the supervisors use the launcher; `host` looks up the user that an instance runs as.
#[test]
fn only_supervisors_use_the_launcher() {
    let stray: Vec<String> = sources_of(ROOTS[0])
        .iter()
        .filter(|s| s.code.contains("acc_launch"))
        .filter(|s| !s.path.starts_with("driver/supervisor") && !s.path.ends_with("host/spawn.rs"))
        .map(Source::name)
        .collect();
    none(&stray.join("\n"));
}

#[test]
fn files_programs_and_clocks_are_reached_where_it_is_listed() {
    // The launcher makes a process an instance: it consists of such calls.
    let breaches = ROOTS[..2]
        .iter()
        .flat_map(|root| sources_of(root))
        .flat_map(|source| reach::breaches(&source));
    none(&breaches.collect::<Vec<_>>().join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent: Vec<String> = sources()
        .iter()
        .filter(|s| !s.text.starts_with("//! "))
        .map(Source::name)
        .collect();
    none(&silent.join("\n"));
}

#[test]
fn no_file_is_a_placeholder() {
    let unwritten = sources()
        .into_iter()
        .filter(|s| s.text.to_lowercase().starts_with("//! placeholder"));
    none(&unwritten.map(|s| s.name()).collect::<Vec<_>>().join("\n"));
}

#[test]
fn no_file_and_no_function_is_too_long() {
    let mut breaches = String::new();
    for source in sources() {
        let lines = source.code.lines().count();
        if lines > FILE_MAX {
            writeln!(
                breaches,
                "{}: {lines} lines before its tests, the most is {FILE_MAX}",
                source.name()
            )
            .unwrap();
        }
        for (line, name, length) in long_functions(&source.code, FUNCTION_MAX) {
            writeln!(
                breaches,
                "{}:{line}: `{name}` has {length} lines, the most is {FUNCTION_MAX}",
                source.name()
            )
            .unwrap();
        }
    }
    none(&breaches);
}

#[test]
fn no_test_file_is_too_long() {
    let mut breaches = String::new();
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let product: Vec<String> = sources().iter().map(Source::name).collect();
    for root in ROOTS.iter().chain(&["tests"]) {
        for file in walk(&home.join(root)) {
            let name = file.strip_prefix(home).unwrap().display().to_string();
            let lines = fs::read_to_string(&file).unwrap().lines().count();
            if lines > FILE_MAX && !product.contains(&name) {
                writeln!(breaches, "{name}: {lines} lines, the most is {FILE_MAX}").unwrap();
            }
        }
    }
    none(&breaches);
}

#[test]
fn the_product_does_not_unwrap() {
    let mut breaches = String::new();
    for source in sources() {
        for (n, line) in source.code.lines().enumerate() {
            if line.contains(".unwrap()") || line.contains(".expect(") {
                writeln!(breaches, "{}:{}: unwrap or expect", source.name(), n + 1).unwrap();
            }
        }
    }
    none(&breaches);
}

/// Functions that name a log or folder of an instance: a file that calls one opens these only with
/// `host::untrusted`, and removes them with `host::removal`.
const INSTANCE_PATHS: &[&str] = &[
    "app_log(",
    "access_log(",
    "uncounted_log(",
    "data_dir(",
    "instance_dir(",
];
/// Calls that open by name, follow a link, or walk a tree by themselves.
const BY_NAME: &[&str] = &[
    "File::open",
    "OpenOptions",
    "fs::read(",
    "fs::read_to_string(",
    "fs::write(",
    "fs::metadata(",
    "fs::copy(",
    "fs::rename(",
];

#[test]
fn files_of_instances_are_not_opened_by_name() {
    let mut breaches = String::new();
    for source in sources() {
        let named = INSTANCE_PATHS.iter().any(|path| source.code.contains(path));
        for (n, line) in source.code.lines().enumerate() {
            let of_kernel = source
                .text
                .lines()
                .nth(n)
                .is_some_and(|text| text.contains("/proc/"));
            let by_name = named
                && !of_kernel
                && !source.path.starts_with("config")
                && BY_NAME.iter().any(|word| line.contains(word));
            if by_name || line.contains("remove_dir_all") {
                writeln!(
                    breaches,
                    "{}:{}: use host::untrusted or removal",
                    source.name(),
                    n + 1
                )
                .unwrap();
            }
        }
    }
    none(&breaches);
}

/// Calls that create a file, folder or socket with a mode that depends on the umask.
const BY_UMASK: &[&str] = &[
    "fs::write(",
    "File::create",
    "create_dir(",
    "create_dir_all(",
    "fs::copy(",
    "UnixListener::bind(",
    "UnixDatagram::bind(",
    "mkfifo(",
    "mknod(",
];
/// Calls that must set the mode in the same statement.
const WITH_MODE: &[&str] = &["create(true)", "create_new(true)", "DirBuilder::new()"];

/// Lines that create a file, folder or socket without an explicit mode.
fn made_by_umask(code: &str) -> Vec<usize> {
    let found = |words: &'static [&'static str]| {
        words
            .iter()
            .flat_map(|word| code.match_indices(word).map(|(at, _)| at))
    };
    let statement = |at: usize| &code[at..code[at..].find(';').map_or(code.len(), |end| at + end)];
    let bare = found(WITH_MODE).filter(|at| !statement(*at).contains(".mode("));
    found(BY_UMASK)
        .chain(bare)
        .map(|at| line_of(code, at))
        .collect()
}

#[test]
fn every_created_file_has_an_explicit_mode() {
    let mut breaches = String::new();
    for source in sources() {
        for line in made_by_umask(&source.code) {
            let path = source.name();
            writeln!(
                breaches,
                "{path}:{line}: made by the umask; use host::fs or listen, or say the mode"
            )
            .unwrap();
        }
    }
    none(&breaches);
}
