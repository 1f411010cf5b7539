//! Rules of the source that no lint holds: imports point down and never in a circle, no type name
//! means two things, files, programs and clocks are reached from listed places only, every file says
//! what it is for, nothing grows too big.
//!
//! It reads `src/` and the sources of the other crates as text (comments and strings blanked out first) and never builds or runs
//! anything. Each rule reports all its breaches at once, and each has a test that shows it can
//! fail.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

#[path = "architecture/graph.rs"]
mod graph;
#[path = "architecture/reach.rs"]
mod reach;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use graph::Graph;

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
/// The folders of the product's sources, each of one crate: acc itself comes first.
const ROOTS: &[&str] = &["src", "crates/domain/src", "crates/launch/src"];
/// Longest source file, tests beside the code not counted.
const FILE_MAX: usize = 500;
/// Longest function, from its first line to its closing brace.
const FUNCTION_MAX: usize = 60;

/// One source file.
struct Source {
    /// Its folder of [`ROOTS`].
    root: &'static str,
    /// Path below that.
    path: PathBuf,
    /// As it stands.
    text: String,
    /// The code that is not test code, comments and strings blanked out; line numbers unchanged.
    code: String,
}

/// Blanks out comments, strings and character literals, keeping every newline and every column.
fn scrub(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = vec![b' '; bytes.len()];
    let mut i = 0;
    while i < bytes.len() {
        let end = match bytes[i] {
            b'/' if bytes.get(i + 1) == Some(&b'/') => line_end(bytes, i),
            b'/' if bytes.get(i + 1) == Some(&b'*') => block_end(bytes, i),
            b'"' => string_end(bytes, i),
            b'r' if !is_word(bytes, i) => raw_string_end(bytes, i).unwrap_or(i),
            b'\'' => char_end(bytes, i).unwrap_or(i),
            _ => i,
        };
        if end == i {
            out[i] = bytes[i];
            i += 1;
        } else {
            for k in i..end {
                if bytes[k] == b'\n' {
                    out[k] = b'\n';
                }
            }
            i = end;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Is the byte at `i` in the middle of a word?
fn is_word(bytes: &[u8], i: usize) -> bool {
    i > 0 && (bytes[i - 1].is_ascii_alphanumeric() || bytes[i - 1] == b'_') && bytes[i - 1] != b'b'
}

fn line_end(bytes: &[u8], from: usize) -> usize {
    bytes[from..]
        .iter()
        .position(|b| *b == b'\n')
        .map_or(bytes.len(), |n| from + n)
}

fn block_end(bytes: &[u8], from: usize) -> usize {
    let (mut depth, mut i) = (0, from);
    while i + 1 < bytes.len() {
        match &bytes[i..i + 2] {
            b"/*" => (depth, i) = (depth + 1, i + 2),
            b"*/" if depth == 1 => return i + 2,
            b"*/" => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], from: usize) -> usize {
    let mut i = from + 1;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 2,
            b'"' => return i + 1,
            _ => i += 1,
        }
    }
    bytes.len()
}

fn raw_string_end(bytes: &[u8], from: usize) -> Option<usize> {
    let hashes = bytes[from + 1..].iter().take_while(|b| **b == b'#').count();
    let open = from + 1 + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let found = bytes[open + 1..]
        .windows(close.len())
        .position(|w| w == close.as_bytes());
    Some(found.map_or(bytes.len(), |n| open + 1 + n + close.len()))
}

/// The end of a character literal; `None` for a lifetime.
fn char_end(bytes: &[u8], from: usize) -> Option<usize> {
    if bytes.get(from + 1) == Some(&b'\\') {
        return bytes[from + 3..]
            .iter()
            .position(|b| *b == b'\'')
            .map(|n| from + 3 + n + 1);
    }
    (2..=5)
        .find(|n| bytes.get(from + n) == Some(&b'\''))
        .filter(|n| *n == 2 || bytes[from + 1] >= 0x80)
        .map(|n| from + n + 1)
}

/// Is this the attribute of what exists for tests only?
fn is_for_tests(line: &str) -> bool {
    line == "#[cfg(test)]" || line.starts_with("#[cfg(all(test,")
}

/// The code without the test modules written into it.
fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let lines: Vec<&str> = code.lines().collect();
    let mut n = 0;
    while n < lines.len() {
        let next = lines.get(n + 1).map_or("", |l| l.trim());
        if is_for_tests(lines[n].trim())
            && next.ends_with('{')
            && (next.starts_with("mod ") || next.contains(" mod "))
        {
            let mut depth = 0;
            n += 1;
            while n < lines.len() {
                depth += lines[n].matches('{').count();
                depth -= lines[n].matches('}').count();
                n += 1;
                if depth == 0 {
                    break;
                }
            }
        } else {
            kept.push_str(lines[n]);
            kept.push('\n');
            n += 1;
        }
    }
    kept
}

/// Files that exist for tests only: declared as `#[cfg(test)] mod NAME;` by their parent.
fn test_files(root: &Path, sources: &[(PathBuf, String)]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (path, text) in sources {
        let code = scrub(text);
        let lines: Vec<&str> = code.lines().map(str::trim).collect();
        for pair in lines.windows(2) {
            let name = pair[1]
                .trim_start_matches("pub ")
                .strip_prefix("mod ")
                .and_then(|m| m.strip_suffix(';'));
            if let (true, Some(name)) = (is_for_tests(pair[0]), name) {
                let dir = match path.file_stem().and_then(|s| s.to_str()) {
                    Some("mod" | "lib" | "main") => path.parent().unwrap().to_owned(),
                    _ => path.with_extension(""),
                };
                found.push(dir.join(format!("{name}.rs")));
                found.push(dir.join(name).join("mod.rs"));
            }
        }
    }
    found.retain(|p| root.join(p).exists());
    found
}

/// The folder of a file's inner modules.
fn subtree(file: &Path) -> PathBuf {
    if file.ends_with("mod.rs") {
        file.parent().unwrap().to_owned()
    } else {
        file.with_extension("")
    }
}

/// All `.rs` files below `dir`, sorted.
fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(walk(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            all.push(path);
        }
    }
    all.sort();
    all
}

impl Source {
    /// For people.
    fn name(&self) -> String {
        format!("{}/{}", self.root, self.path.display())
    }
}

/// The product's sources, without the files that only tests use.
fn sources() -> Vec<Source> {
    ROOTS.iter().flat_map(|root| sources_of(root)).collect()
}

/// Those of one folder.
fn sources_of(root: &'static str) -> Vec<Source> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(root);
    let read = |p: PathBuf| {
        (
            p.strip_prefix(&folder).unwrap().to_owned(),
            fs::read_to_string(&p).unwrap(),
        )
    };
    let all: Vec<(PathBuf, String)> = walk(&folder).into_iter().map(read).collect();
    let tests = test_files(&folder, &all);
    let product = all.into_iter().filter(|(path, _)| {
        !tests
            .iter()
            .any(|t| path == t || path.starts_with(subtree(t)))
    });
    product
        .map(|(path, text)| Source {
            root,
            code: without_tests(&scrub(&text)),
            path,
            text,
        })
        .collect()
}

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

/// The launcher is of the supervisors alone; `host` looks up whom to become.
#[test]
fn what_makes_an_instance_is_used_where_instances_are_started() {
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

/// Who names a log or folder of an instance opens what is there by `host::untrusted`, and removes
/// it by `host::removal`.
const INSTANCE_PATHS: &[&str] = &[
    "app_log(",
    "access_log(",
    "uncounted_log(",
    "data_dir(",
    "instance_dir(",
];
/// What goes by a name, follows a link, or goes down a tree by itself.
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

/// What makes something with whatever mode the umask leaves.
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
/// What is to say the mode in the same statement.
const WITH_MODE: &[&str] = &["create(true)", "create_new(true)", "DirBuilder::new()"];

/// Lines that make a file, folder or socket without a mode by number.
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
fn whatever_is_made_has_its_mode_by_number() {
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
    let named =
        graph::types("pub struct A;\n    type B = u8;\npub(super) enum C {}\ntype D = u8;\n");
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
        without_tests("a\n#[cfg(test)]\npub(super) mod t {\n b {\n}\n}\nc\n"),
        "a\nc\n"
    );
    assert_eq!(
        without_tests("a\n#[cfg(test)]\nmod suite;\nb\n"),
        "a\n#[cfg(test)]\nmod suite;\nb\n"
    );
}
