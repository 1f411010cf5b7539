//! The `files/` folder of a model: lists its entries and refuses unusable ones.
//!
//! It changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use crate::config::trust;

/// The suffix of files that are rendered; it is removed.
const RENDERED: &str = "tera";

/// What an entry becomes in the folder of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileKind {
    /// A folder.
    Folder,
    /// A file, copied as it is.
    Copy,
    /// A file, rendered.
    Render,
    /// A link to this target, which is inside the folder too.
    Link(PathBuf),
}

/// One entry; folders come before their content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Path below `files/`.
    pub from: PathBuf,
    /// Path below the instance's folder.
    pub to: PathBuf,
    /// What it becomes.
    pub kind: FileKind,
    /// Permission bits, without set-user-id and similar.
    pub mode: u32,
}

/// The content of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree {
    /// The usable entries.
    pub entries: Vec<FileEntry>,
    /// Each unusable path with the reason.
    pub refused: Vec<(PathBuf, String)>,
}

/// Lists everything below `root`. A missing folder is empty. What other users can change is
/// unusable, because instances would run it.
pub fn walk(root: &Path) -> io::Result<Tree> {
    let mut found = Walk {
        root,
        entries: Vec::new(),
        refused: Vec::new(),
    };
    match fs::metadata(root) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Tree::default()),
        Err(e) => return Err(e),
        Ok(data) if !data.is_dir() => found
            .refused
            .push((PathBuf::new(), "must be a folder".to_owned())),
        Ok(_) => match trust::distrust(root)? {
            Some(why) => found.refused.push((PathBuf::new(), why.of(root))),
            None => found.folder(Path::new(""))?,
        },
    }
    let mut targets = BTreeMap::new();
    for entry in &found.entries {
        if let Some(other) = targets.insert(entry.to.clone(), &entry.from) {
            found.refused.push((
                entry.from.clone(),
                format!("becomes the same file as `{}`", other.display()),
            ));
        }
    }
    Ok(Tree {
        entries: found.entries,
        refused: found.refused,
    })
}

struct Walk<'r> {
    root: &'r Path,
    entries: Vec<FileEntry>,
    refused: Vec<(PathBuf, String)>,
}

impl Walk<'_> {
    fn folder(&mut self, below: &Path) -> io::Result<()> {
        let mut names = fs::read_dir(self.root.join(below))?
            .map(|e| Ok(e?.file_name()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        names
            .into_iter()
            .try_for_each(|name| self.entry(below.join(name)))
    }

    fn entry(&mut self, from: PathBuf) -> io::Result<()> {
        let path = self.root.join(&from);
        let data = fs::symlink_metadata(&path)?;
        let mode = data.permissions().mode() & 0o777;
        if let Some(why) = trust::of_entry(&data) {
            self.refused.push((from, why));
            return Ok(());
        }
        let rendered = from.extension().is_some_and(|e| e == RENDERED);
        let to = if rendered && data.is_file() {
            from.with_extension("")
        } else {
            from.clone()
        };
        let kind = if data.is_dir() {
            FileKind::Folder
        } else if data.is_file() && rendered {
            FileKind::Render
        } else if data.is_file() {
            FileKind::Copy
        } else if data.is_symlink() {
            let target = fs::read_link(&path)?;
            if !stays_inside(&from, &target) {
                self.refused.push((
                    from,
                    format!("is a link to `{}`, outside the folder", target.display()),
                ));
                return Ok(());
            }
            FileKind::Link(target)
        } else {
            self.refused.push((
                from,
                "is neither a file, nor a folder, nor a link".to_owned(),
            ));
            return Ok(());
        };
        let inside = (kind == FileKind::Folder).then(|| from.clone());
        self.entries.push(FileEntry {
            from,
            to,
            kind,
            mode,
        });
        inside.map_or(Ok(()), |folder| self.folder(&folder))
    }
}

/// Whether a link at `from` with this target stays below the folder. `..` is allowed only at the
/// beginning of the target: later it may follow another link, and could lead anywhere.
fn stays_inside(from: &Path, target: &Path) -> bool {
    let mut room = from.components().count().saturating_sub(1);
    let mut may_climb = true;
    for part in target.components() {
        match part {
            Component::Normal(_) => may_climb = false,
            Component::CurDir => {}
            Component::ParentDir if may_climb && room > 0 => room -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn everything_is_found_and_what_leads_out_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at = |p: &str| dir.path().join(p);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::write(at("a/b/x.conf.tera"), "").unwrap();
        fs::write(at("run"), "").unwrap();
        fs::write(at("same"), "").unwrap();
        fs::write(at("same.tera"), "").unwrap();
        symlink("../run", at("a/in")).unwrap();
        symlink("../../run", at("a/out")).unwrap();
        symlink("/etc/passwd", at("abs")).unwrap();
        symlink("a/in/../../run", at("round")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        let Tree { entries, refused } = walk(dir.path()).unwrap();
        let seen: Vec<_> = entries
            .iter()
            .map(|e| (e.to.to_str().unwrap(), &e.kind))
            .collect();
        let link = FileKind::Link("../run".into());
        assert_eq!(
            seen,
            [
                ("a", &FileKind::Folder),
                ("a/b", &FileKind::Folder),
                ("a/b/x.conf", &FileKind::Render),
                ("a/in", &link),
                ("run", &FileKind::Copy),
                ("same", &FileKind::Copy),
                ("same", &FileKind::Render)
            ]
        );
        let names: Vec<_> = refused
            .iter()
            .map(|(path, _)| path.to_str().unwrap())
            .collect();
        assert_eq!(names, ["a/out", "abs", "fifo", "round", "same.tera"]);
        assert_eq!(walk(&at("nothing")).unwrap(), Tree::default());
        assert_eq!(walk(&at("run")).unwrap().refused.len(), 1);
    }
}
