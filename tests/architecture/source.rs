//! The sources as the rules read them: which files there are, and their code without comments,
//! strings and tests.

use std::fs;
use std::path::{Path, PathBuf};

use super::ROOTS;

/// One source file.
pub(super) struct Source {
    /// Its folder, one of [`ROOTS`].
    pub(super) root: &'static str,
    /// Its path below that folder.
    pub(super) path: PathBuf,
    /// The unchanged text.
    pub(super) text: String,
    /// The code without test code, with comments and strings blanked out; line numbers unchanged.
    pub(super) code: String,
}

/// Blanks out comments, strings and character literals, keeping every newline and every column.
pub(super) fn scrub(text: &str) -> String {
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
pub(super) fn is_word(bytes: &[u8], i: usize) -> bool {
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

/// Does this attribute mark an item that exists only for tests?
fn is_for_tests(line: &str) -> bool {
    line == "#[cfg(test)]" || line.starts_with("#[cfg(all(test,")
}

/// The code without inline test modules.
pub(super) fn without_tests(code: &str) -> String {
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

/// Files that exist only for tests: declared as `#[cfg(test)] mod NAME;` by their parent.
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
pub(super) fn walk(dir: &Path) -> Vec<PathBuf> {
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
    /// The path as messages show it.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.root, self.path.display())
    }
}

/// The product's sources, without the files that only tests use.
pub(super) fn sources() -> Vec<Source> {
    ROOTS.iter().flat_map(|root| sources_of(root)).collect()
}

/// The sources of one folder.
pub(super) fn sources_of(root: &'static str) -> Vec<Source> {
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
