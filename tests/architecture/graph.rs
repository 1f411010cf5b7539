//! Which file of the product imports which, and which types it defines: read from the text of `use`
//! items and paths.
//!
//! A re-export counts for the file that it comes from, so a folder's `mod.rs` may show what its
//! files define. It never sees what a macro writes.

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, line_of, module_path};

/// The files by their module path, and what each re-exports: name -> path.
pub struct Graph<'a> {
    modules: BTreeMap<Vec<String>, usize>,
    exports: Vec<BTreeMap<String, Vec<String>>>,
    sources: &'a [Source],
}

impl<'a> Graph<'a> {
    pub fn new(sources: &'a [Source]) -> Self {
        let modules = sources
            .iter()
            .enumerate()
            .filter(|(_, s)| !s.path.ends_with("main.rs"));
        let modules = modules.map(|(n, s)| (module_path(&s.path), n)).collect();
        let exports = sources.iter().map(|s| exports(&s.code)).collect();
        Self {
            modules,
            exports,
            sources,
        }
    }

    /// The files that each file uses, in the order of the sources.
    fn uses(&self) -> Vec<BTreeSet<usize>> {
        let of = |n: usize| {
            let source = &self.sources[n];
            if source.path.ends_with("main.rs") {
                return BTreeSet::new();
            }
            let home = module_path(&source.path);
            paths(&source.code)
                .iter()
                .filter_map(|path| self.resolve(&home, path, 0))
                .filter(|to| *to != n)
                .collect()
        };
        (0..self.sources.len()).map(of).collect()
    }

    /// The file that defines what a path names, seen from the module `home`.
    fn resolve(&self, home: &[String], path: &[String], depth: usize) -> Option<usize> {
        let ups = path.iter().take_while(|p| *p == "super").count();
        let absolute: Vec<String> = match path.first()?.as_str() {
            "crate" | "acc" => path[1..].to_vec(),
            "self" => [home, &path[1..]].concat(),
            "super" => [home.get(..home.len().checked_sub(ups)?)?, &path[ups..]].concat(),
            first => {
                let child = [home, &[first.to_owned()]].concat();
                if !self.modules.contains_key(&child) {
                    return None;
                }
                [home, path].concat()
            }
        };
        let (length, file) = (0..=absolute.len())
            .rev()
            .find_map(|n| Some((n, *self.modules.get(&absolute[..n])?)))?;
        let exported = absolute
            .get(length)
            .and_then(|name| self.exports[file].get(name));
        match exported {
            Some(to) if depth < 6 => self
                .resolve(&module_path(&self.sources[file].path), to, depth + 1)
                .or(Some(file)),
            _ => Some(file),
        }
    }

    /// Every group of files in which each file imports every other, directly or through others.
    pub fn circles(&self) -> Vec<Vec<String>> {
        let uses = self.uses();
        let reach: Vec<BTreeSet<usize>> = (0..uses.len()).map(|n| reachable(&uses, n)).collect();
        let mut circles = BTreeSet::new();
        for n in 0..uses.len() {
            if reach[n].contains(&n) {
                let all = reach[n].iter().filter(|m| reach[**m].contains(&n));
                let mut circle: Vec<String> = all
                    .map(|m| self.sources[*m].path.display().to_string())
                    .collect();
                circle.sort();
                circles.insert(circle);
            }
        }
        circles.into_iter().collect()
    }
}

/// All files that `from` imports, directly or through others.
fn reachable(uses: &[BTreeSet<usize>], from: usize) -> BTreeSet<usize> {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(n) = next.pop() {
        next.extend(uses[n].iter().filter(|m| seen.insert(**m)));
    }
    seen
}

fn is_part(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The text of each `use` item, and whether it re-exports.
fn use_items(code: &str) -> Vec<(bool, &str)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let line = code[..at].rsplit('\n').next().unwrap_or_default().trim();
        if line.is_empty() || line.starts_with("pub") {
            let end = code[at..].find(';').map_or(code.len(), |n| at + n);
            found.push((!line.is_empty(), &code[at + 4..end]));
        }
    }
    found
}

/// `a::{b as c, d::e}` as its paths, each with the name by which it is known.
fn expand(text: &str) -> Vec<(String, Vec<String>)> {
    let text = text.trim();
    if let Some((before, group)) = text.split_once('{').filter(|_| text.ends_with('}')) {
        let before = before.trim().trim_end_matches("::");
        let (mut depth, mut parts, mut part) = (0, Vec::new(), String::new());
        for c in group[..group.len() - 1].chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if c == ',' && depth == 0 {
                parts.push(std::mem::take(&mut part))
            } else {
                part.push(c)
            }
        }
        parts.push(part);
        let parts = parts.iter().filter(|p| !p.trim().is_empty());
        return parts
            .flat_map(|p| expand(&format!("{before}::{}", p.trim())))
            .collect();
    }
    let (path, name) = text.split_once(" as ").unwrap_or((text, ""));
    let mut path: Vec<String> = path
        .split("::")
        .map(|p| p.trim().to_owned())
        .filter(|p| !p.is_empty())
        .collect();
    if path.len() > 1 && path.last().is_some_and(|p| p == "self") {
        path.pop();
    }
    let name = if name.trim().is_empty() {
        path.last().cloned().unwrap_or_default()
    } else {
        name.trim().to_owned()
    };
    vec![(name, path)]
}

fn exports(code: &str) -> BTreeMap<String, Vec<String>> {
    use_items(code)
        .into_iter()
        .filter(|(public, _)| *public)
        .flat_map(|(_, text)| expand(text))
        .collect()
}

/// All paths that a file names: those it imports, and those written out that begin at `crate`,
/// `super`, `self` or a module.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found: Vec<Vec<String>> = use_items(code)
        .into_iter()
        .filter(|(public, _)| !public)
        .flat_map(|(_, text)| expand(text))
        .map(|(_, path)| path)
        .collect();
    // A re-export does not count as a use.
    let items = use_items(code);
    let code = items.iter().fold(code.to_owned(), |code, (_, item)| {
        code.replacen(item, "", 1)
    });
    let mut rest = code.as_str();
    while let Some(at) = rest.find("::") {
        let head: String = rest[..at]
            .chars()
            .rev()
            .take_while(|c| is_part(*c))
            .collect::<String>()
            .chars()
            .rev()
            .collect();
        let tail: String = rest[at + 2..]
            .chars()
            .take_while(|c| is_part(*c) || *c == ':')
            .collect();
        let before = &rest[..at - head.len()];
        // `pub(in super::super)` says who may see it.
        let begins = head.starts_with(|c: char| c.is_lowercase())
            && !before.ends_with("::")
            && !before.ends_with("(in ");
        if begins && !tail.is_empty() {
            let path = format!("{head}::{tail}");
            found.push(
                path.split("::")
                    .map(str::to_owned)
                    .filter(|p| !p.is_empty())
                    .collect(),
            );
        }
        rest = &rest[at + 2 + tail.len()..];
    }
    found
}

/// The types a file defines, with their lines; types that a trait or an implementation names are no
/// definitions.
pub fn types(code: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for word in ["struct ", "enum ", "trait ", "union ", "type "] {
        for (at, _) in code.match_indices(word) {
            let before = code[..at].rsplit('\n').next().unwrap_or_default();
            let begins = before.is_empty()
                || before.trim_end().ends_with("pub")
                || before.trim_end().ends_with(')');
            let name: String = code[at + word.len()..]
                .chars()
                .take_while(|c| is_part(*c))
                .collect();
            if begins && !before.starts_with(' ') && name.starts_with(|c: char| c.is_uppercase()) {
                found.push((name, line_of(code, at)));
            }
        }
    }
    found
}
