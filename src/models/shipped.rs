//! The models that come with acc: compiled in, installed below `home/models`, and updated there
//! unless the operator changed them.
//!
//! The hash of each installed file is recorded (in `.shipped`). A file that still has the hash of
//! an older acc is replaced; any other belongs to the operator and is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::config::regular::{read, read_to_string};
use crate::host::fs::write_atomic;

/// Path below the models folder, and text.
pub const SHIPPED: &[(&str, &str)] = &[
    (
        "hello/model.toml",
        include_str!("../../models/hello/model.toml"),
    ),
    (
        "hello-fd/model.toml",
        include_str!("../../models/hello-fd/model.toml"),
    ),
    (
        "hello-tcp/model.toml",
        include_str!("../../models/hello-tcp/model.toml"),
    ),
    (
        "python-http/model.toml",
        include_str!("../../models/python-http/model.toml"),
    ),
    (
        "python-http/files/app.py",
        include_str!("../../models/python-http/files/app.py"),
    ),
];

/// The file with the hashes of a model's files.
const RECORD: &str = ".shipped";

/// Installs or updates the shipped models below `models`, which is made if missing. A second run
/// changes nothing.
///
/// # Errors
/// The first file that cannot be read or written; earlier ones are done.
pub fn install_shipped(models: &Path) -> io::Result<()> {
    install(models, SHIPPED)
}

fn install(models: &Path, shipped: &[(&str, &str)]) -> io::Result<()> {
    let names: BTreeSet<&str> = shipped
        .iter()
        .filter_map(|(path, _)| path.split('/').next())
        .collect();
    for name in names {
        let dir = models.join(name);
        make_dir(&dir)?;
        let record = dir.join(RECORD);
        let old = read_record(&record).map_err(|e| about(&record, &e))?;
        let mut new = BTreeMap::new();
        for (path, text) in shipped {
            let Some(below) = path.strip_prefix(name).and_then(|p| p.strip_prefix('/')) else {
                continue;
            };
            let recorded = old.get(below).map(String::as_str);
            let file = dir.join(below);
            if let Some(hash) = install_file(&file, text, recorded).map_err(|e| about(&file, &e))? {
                new.insert(below.to_owned(), hash);
            }
        }
        if new != old {
            write_atomic(&record, show_record(&new).as_bytes(), 0o644)?;
        }
    }
    Ok(())
}

/// Writes the file if it is missing or unchanged since an older acc. Returns the hash to record;
/// none for a file of the operator.
fn install_file(path: &Path, text: &str, recorded: Option<&str>) -> io::Result<Option<String>> {
    let wanted = hash(text.as_bytes());
    let there = match read(path) {
        Ok(bytes) => Some(hash(&bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
    if there.as_ref() == Some(&wanted) {
        return Ok(Some(wanted));
    }
    if there.is_some() && there.as_deref() != recorded {
        // The record is kept: if the operator restores the old text, it is updated again.
        return Ok(recorded.map(str::to_owned));
    }
    if let Some(dir) = path.parent() {
        make_dir(dir)?;
    }
    write_atomic(path, text.as_bytes(), 0o644)?;
    Ok(Some(wanted))
}

fn make_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
}

fn about(path: &Path, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("`{}`: {e}", path.display()))
}

fn read_record(path: &Path) -> io::Result<BTreeMap<String, String>> {
    match read_to_string(path) {
        Ok(text) => Ok(text
            .lines()
            .filter_map(|l| l.split_once("  "))
            .map(|(hash, path)| (path.to_owned(), hash.to_owned()))
            .collect()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(e) => Err(e),
    }
}

/// In the format of `sha256sum`.
fn show_record(record: &BTreeMap<String, String>) -> String {
    record
        .iter()
        .map(|(path, hash)| format!("{hash}  {path}\n"))
        .collect()
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_below_models_is_shipped() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        let mut files = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path)
                } else {
                    files.push(path.strip_prefix(&root).unwrap().display().to_string())
                }
            }
        }
        files.sort();
        let mut shipped: Vec<_> = SHIPPED.iter().map(|(path, _)| (*path).to_owned()).collect();
        shipped.sort();
        assert_eq!(files, shipped);
    }

    #[test]
    fn models_are_renewed_unless_the_operator_changed_them() {
        let dir = tempfile::tempdir().unwrap();
        let models = dir.path().join("models");
        let read = |path: &str| fs::read_to_string(models.join(path)).unwrap();
        install(
            &models,
            &[("m/a", "a1"), ("m/files/b", "b1"), ("n/c", "c1")],
        )
        .unwrap();
        assert_eq!(
            (read("m/a"), read("m/files/b"), read("n/c")),
            ("a1".into(), "b1".into(), "c1".into())
        );
        fs::write(models.join("m/a"), "mine").unwrap();
        install(
            &models,
            &[("m/a", "a2"), ("m/files/b", "b2"), ("n/c", "c2")],
        )
        .unwrap();
        assert_eq!(
            (read("m/a"), read("m/files/b"), read("n/c")),
            ("mine".into(), "b2".into(), "c2".into())
        );
        fs::remove_file(models.join("n/c")).unwrap();
        fs::write(models.join("m/a"), "a1").unwrap();
        install(
            &models,
            &[("m/a", "a3"), ("m/files/b", "b2"), ("n/c", "c2")],
        )
        .unwrap();
        assert_eq!(
            (read("m/a"), read("n/c")),
            ("a3".into(), "c2".into()),
            "the old text put back is renewed, a missing file written"
        );
        let before = fs::metadata(models.join("m/.shipped"))
            .unwrap()
            .modified()
            .unwrap();
        install(
            &models,
            &[("m/a", "a3"), ("m/files/b", "b2"), ("n/c", "c2")],
        )
        .unwrap();
        assert_eq!(
            fs::metadata(models.join("m/.shipped"))
                .unwrap()
                .modified()
                .unwrap(),
            before
        );
    }

    #[test]
    fn a_pipe_in_the_place_of_a_file_is_an_error_that_names_it() {
        for (pipe, beside) in [("a", "b"), (RECORD, "a")] {
            let dir = tempfile::tempdir().unwrap();
            let models = dir.path().to_owned();
            fs::create_dir(models.join("m")).unwrap();
            nix::unistd::mkfifo(&models.join("m").join(pipe), nix::sys::stat::Mode::S_IRWXU)
                .unwrap();
            let (said, says) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                said.send(install(&models, &[("m/a", "a1"), ("m/b", "b1")]))
            });
            let error = says
                .recv_timeout(std::time::Duration::from_secs(20))
                .expect("it waits for the pipe")
                .unwrap_err();
            assert!(
                error
                    .to_string()
                    .ends_with(&format!("/m/{pipe}`: it is not a regular file")),
                "{error}"
            );
            assert!(!dir.path().join("m").join(beside).exists());
        }
    }

    #[test]
    fn a_folder_of_the_same_name_that_is_the_operators_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("m")).unwrap();
        fs::write(dir.path().join("m/a"), "mine").unwrap();
        install(dir.path(), &[("m/a", "a1")]).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("m/a")).unwrap(), "mine");
        assert!(!dir.path().join("m/.shipped").exists());
    }
}
