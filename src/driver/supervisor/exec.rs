//! Why an existing file cannot be executed: its first line or header, its file system, or the
//! folders above it.
//!
//! The kernel has only three messages for all of this ("no such file", "permission denied", "exec
//! format error"). This module changes nothing.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statvfs};

use super::Program;
use super::program_path::on_path;
use crate::host::command::is_executable;
use crate::host::spawn::UserIds;

/// How much of a file is read: its first line, or the headers of a program.
const HEAD: usize = 4096;
/// The `e_machine` value of programs for this processor.
const OWN_MACHINE: u16 = if cfg!(target_arch = "x86_64") {
    62
} else if cfg!(target_arch = "aarch64") {
    183
} else if cfg!(target_arch = "riscv64") {
    243
} else {
    0
};

/// Finds faults that make every start fail, for any user; checked before a start.
pub(super) fn sound(program: &Program, path: &Path) -> Result<(), String> {
    if statvfs(path).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::NOEXEC)) {
        return Err(format!(
            "its program `{}` is on a file system that is mounted with `noexec`",
            path.display()
        ));
    }
    let head = head(path);
    match head.strip_prefix(b"#!") {
        Some(line) => script(
            program,
            path,
            line.split(|b| *b == b'\n').next().unwrap_or_default(),
        ),
        None => match loader(&head).filter(|loader| !loader.exists()) {
            Some(loader) => Err(format!(
                "its program `{}` needs the loader `{}`, which is missing; the program was built for another system",
                path.display(),
                loader.display()
            )),
            None => Ok(()),
        },
    }
}

/// Finds the likely reason after a failed start.
pub(super) fn likely(program: &Program, path: &Path, user: Option<UserIds>) -> Option<String> {
    barred(program, path, user).or_else(|| foreign(path, &head(path)))
}

/// Returns nothing for a file that may be executed but not read, or for a pipe that an instance put
/// in its place: acc does not wait for that.
fn head(path: &Path) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD);
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path);
    let regular = opened
        .ok()
        .filter(|file| file.metadata().is_ok_and(|found| found.is_file()));
    let _ = regular.map(|file| file.take(HEAD as u64).read_to_end(&mut head));
    head
}

/// If the interpreter of a script is missing, the kernel reports "no such file" for the script:
/// name the interpreter. The kernel takes all that follows the interpreter as one argument, and a
/// carriage return as part of it.
fn script(program: &Program, path: &Path, line: &[u8]) -> Result<(), String> {
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let line = line.trim_ascii_start();
    let (name, word) = line.split_at(line.iter().position(blank).unwrap_or(line.len()));
    let name = Path::new(OsStr::from_bytes(name));
    let shown = path.display();
    let windows = |part: &[u8]| part.last() == Some(&b'\r');
    let carriage_return = || {
        let meant = String::from_utf8_lossy(line)
            .trim_end()
            .escape_debug()
            .to_string();
        format!(
            "the first line of its program `{shown}`, `#!{meant}`, ends with a carriage return, as lines of Windows do, which is taken for \
             a part of the name; `sed -i 's/\\r$//' {shown}` removes it"
        )
    };
    if name.is_absolute() && !name.exists() {
        return Err(match windows(name.as_os_str().as_bytes()) {
            true => carriage_return(),
            false => format!(
                "the interpreter `{}` of its program `{shown}` is missing",
                name.display()
            ),
        });
    }
    if name.is_absolute() && !is_executable(name) {
        return Err(format!(
            "the interpreter `{}` of its program `{shown}` is not executable",
            name.display()
        ));
    }
    let word: &[u8] = word
        .strip_prefix(b" ")
        .or(word.strip_prefix(b"\t"))
        .unwrap_or(word);
    let word = word.trim_ascii_start();
    if name.file_name() != Some("env".as_ref())
        || word.is_empty()
        || word.starts_with(b"-")
        || word.iter().any(|b| b"=/".contains(b))
    {
        return Ok(());
    }
    if windows(word) {
        return Err(carriage_return());
    }
    let wanted = String::from_utf8_lossy(word);
    let wanted = wanted.trim_end();
    match on_path(program, wanted) {
        Err(_) if program.env.iter().any(|(name, _)| name == "PATH") => Err(format!(
            "the interpreter `{wanted}` of its program `{shown}` is not in its `PATH`"
        )),
        _ => Ok(()),
    }
}

fn number(head: &[u8], at: u64, bytes: usize) -> Option<u64> {
    let at = usize::try_from(at).ok()?;
    let part = head.get(at..at.checked_add(bytes)?)?;
    Some(
        part.iter()
            .rev()
            .fold(0, |all, byte| all << 8 | u64::from(*byte)),
    )
}

/// The `e_machine` value of a program; `None`: it is not one.
fn machine(head: &[u8]) -> Option<u16> {
    let little = *head.get(5)? == 1;
    let bytes: [u8; 2] = head
        .starts_with(b"\x7fELF")
        .then(|| head.get(18..20)?.try_into().ok())??;
    Some(if little {
        u16::from_le_bytes(bytes)
    } else {
        u16::from_be_bytes(bytes)
    })
}

/// The loader of a program for this processor (`PT_INTERP`).
fn loader(head: &[u8]) -> Option<PathBuf> {
    const INTERPRETER: u64 = 3;
    // 64 bits, little-endian: all processors that acc supports.
    if machine(head)? != OWN_MACHINE || head.get(4..6) != Some(&[2, 1]) {
        return None;
    }
    let (table, size, count) = (
        number(head, 32, 8)?,
        number(head, 54, 2)?,
        number(head, 56, 2)?,
    );
    let entry = (0..count)
        .filter_map(|n| table.checked_add(n * size))
        .find(|at| number(head, *at, 4) == Some(INTERPRETER))?;
    let (at, length) = (
        number(head, entry.checked_add(8)?, 8)?,
        number(head, entry.checked_add(32)?, 8)?,
    );
    let (at, length) = (usize::try_from(at).ok()?, usize::try_from(length).ok()?);
    let name = head
        .get(at..at.checked_add(length)?)?
        .split(|b| *b == 0)
        .next()?;
    Some(PathBuf::from(OsStr::from_bytes(name)))
}

/// Describes a program for another processor, or a file that is not a program. The host may be
/// configured to run it, so this is reported only after a failed start.
fn foreign(path: &Path, head: &[u8]) -> Option<String> {
    let shown = path.display();
    match machine(head) {
        Some(machine) if machine != OWN_MACHINE && OWN_MACHINE != 0 => {
            let name = match machine {
                3 => "x86, 32 bits",
                8 => "MIPS",
                21 => "POWER",
                22 => "S/390",
                40 => "ARM, 32 bits",
                62 => "x86-64",
                183 => "ARM, 64 bits",
                243 => "RISC-V",
                _ => "another",
            };
            Some(format!(
                "its program `{shown}` is built for another processor ({name}) than this host's ({})",
                std::env::consts::ARCH
            ))
        }
        Some(_) => None,
        None if head.is_empty() || head.starts_with(b"#!") => None,
        None => Some(format!(
            "its program `{shown}` is no program of this system, and no script that begins with `#!`"
        )),
    }
}

/// Finds a folder that the user may not enter, or a file that it may not execute, by their modes.
fn barred(program: &Program, path: &Path, user: Option<UserIds>) -> Option<String> {
    let (name, ids) = match (user, program.account.name()) {
        (Some(ids), Some(name)) => (name.to_owned(), ids),
        _ => own()?,
    };
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let parent = |path: &'_ Path| path.parent().map(Path::to_owned).unwrap_or_default();
    let ways = [
        (program.dir.clone(), "its folder", &*program.dir),
        (parent(path), "its program", path),
        (parent(&real), "its program", &*real),
    ];
    for (last, what, to) in ways {
        let mut folders: Vec<&Path> = last.ancestors().collect();
        folders.reverse();
        let closed = folders
            .into_iter()
            .find(|folder| fs::metadata(folder).is_ok_and(|found| !may(&ids, &found, 1)));
        if let Some(folder) = closed {
            return Some(format!(
                "user `{name}` may not enter the folder `{}`, on the way to {what} `{}`",
                folder.display(),
                to.display()
            ));
        }
    }
    let found = fs::metadata(path).ok()?;
    if !may(&ids, &found, 1) {
        return Some(format!(
            "user `{name}` may not execute its program `{}`",
            path.display()
        ));
    }
    let is_script = head(path).starts_with(b"#!");
    (is_script && !may(&ids, &found, 4)).then(|| {
        format!(
            "user `{name}` may not read its program `{}`, which is a script",
            path.display()
        )
    })
}

/// acc's own user.
fn own() -> Option<(String, UserIds)> {
    let uid = nix::unistd::geteuid();
    let user = nix::unistd::User::from_uid(uid).ok().flatten();
    let groups = rustix::process::getgroups()
        .ok()?
        .into_iter()
        .map(rustix::process::Gid::as_raw)
        .collect();
    let ids = UserIds {
        uid: uid.as_raw(),
        gid: rustix::process::getegid().as_raw(),
        groups,
    };
    Some((user.map_or_else(|| uid.to_string(), |user| user.name), ids))
}

/// Whether the mode allows this user the access (4: read, 1: execute or enter).
fn may(ids: &UserIds, found: &fs::Metadata, bit: u32) -> bool {
    let shift = match () {
        () if ids.uid == found.uid() => 6,
        () if ids.gid == found.gid() || ids.groups.contains(&found.gid()) => 3,
        () => 0,
    };
    // Root may enter every folder, and execute what any user may.
    ids.uid == 0 && (bit != 1 || found.is_dir() || found.mode() & 0o111 != 0)
        || found.mode() >> shift & bit != 0
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::suite::program;
    use super::*;
    use crate::domain::account::Account;

    fn file(dir: &Path, name: &str, bytes: &[u8], mode: u32) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_script_with_line_ends_of_windows_or_a_wrong_interpreter_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let plain = file(dir.path(), "plain", b"x", 0o644);
        let with_path = Program {
            env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            ..program("a", dir.path(), &["x"])
        };
        let not_executable = format!("#!{}\n", plain.display());
        for (text, why) in [
            (
                "#!/bin/sh\r\necho\r\n",
                "`#!/bin/sh`, ends with a carriage return",
            ),
            ("#! /bin/sh\r\n", "ends with a carriage return"),
            (
                "#!/usr/bin/env sh\r\n",
                "`#!/usr/bin/env sh`, ends with a carriage return",
            ),
            (
                "#!/no/such/thing -x\n",
                "the interpreter `/no/such/thing` of its program",
            ),
            (
                "#!/usr/bin/env no-such-thing\n",
                "the interpreter `no-such-thing` of its program",
            ),
            (not_executable.as_str(), "is not executable"),
        ] {
            let path = file(dir.path(), "script", text.as_bytes(), 0o755);
            let said = sound(&with_path, &path).unwrap_err();
            assert!(
                said.contains(why) && said.contains(&path.display().to_string()),
                "{text:?}: {said}"
            );
        }
        for text in [
            "#!/bin/sh\n",
            "#! /bin/sh -e\n",
            "#!/usr/bin/env sh\n",
            "#!/usr/bin/env -S sh -e\n",
            "#!/usr/bin/env A=1 sh\n",
            "#!",
        ] {
            sound(
                &with_path,
                &file(dir.path(), "script", text.as_bytes(), 0o755),
            )
            .unwrap();
        }
    }

    #[test]
    fn programs_of_other_systems_are_told() {
        let own = head(Path::new("/proc/self/exe"));
        assert_eq!(machine(&own), Some(OWN_MACHINE));
        assert!(foreign(Path::new("/x"), &own).is_none());
        let mut other = own.clone();
        other[18..20].copy_from_slice(&8_u16.to_le_bytes());
        assert!(foreign(Path::new("/x"), &other).unwrap().contains("MIPS"));
        assert!(
            foreign(Path::new("/x"), b"MZ")
                .unwrap()
                .contains("no program of this system")
        );
        let shell = head(&fs::canonicalize("/bin/sh").unwrap());
        if let Some(name) = loader(&shell) {
            assert!(name.exists(), "{}", name.display());
            let text = name.as_os_str().as_bytes();
            let at = shell.windows(text.len()).position(|w| w == text).unwrap();
            let mut missing = shell.clone();
            missing[at + 1] = b'X';
            let dir = tempfile::tempdir().unwrap();
            let said = sound(
                &program("a", dir.path(), &["x"]),
                &file(dir.path(), "x", &missing, 0o755),
            )
            .unwrap_err();
            assert!(said.contains("needs the loader `/X"), "{said}");
        }
        let pipe = tempfile::tempdir().unwrap();
        let pipe = pipe.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(head(&pipe), b"");
        for cut in [0, 4, 6, 19, 33, 57, 64, 100] {
            let _ = (machine(&shell[..cut]), loader(&shell[..cut]));
        }
    }

    #[test]
    fn who_may_not_enter_which_folder_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let closed = dir.path().join("closed");
        fs::create_dir(&closed).unwrap();
        let path = file(&closed, "app", b"#!/bin/sh\n", 0o755);
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        let stranger = UserIds {
            uid: 65_533,
            gid: 65_533,
            groups: vec![65_533],
        };
        let of = |dir: &Path| Program {
            account: Account::User {
                name: "www".into(),
                uid: 65_533,
                gid: 65_533,
            },
            ..program("a", dir, &["x"])
        };
        let said = |dir: &Path, path: &Path| barred(&of(dir), path, Some(stranger.clone()));
        let enter = format!("user `www` may not enter the folder `{}`", closed.display());
        assert!(said(Path::new("/"), &path).unwrap().starts_with(&enter));
        assert!(
            said(&closed, Path::new("/bin/sh"))
                .unwrap()
                .starts_with(&enter)
        );
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(said(&closed, &path), None);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o711)).unwrap();
        assert!(
            said(&closed, &path)
                .unwrap()
                .contains("may not read its program")
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(
            said(&closed, &path)
                .unwrap()
                .contains("may not execute its program")
        );
    }
}
