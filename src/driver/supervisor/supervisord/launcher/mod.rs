//! Between supervisord and an instance: a launcher, which reads from a file what to become, and becomes it.
//!
//! supervisord is given the same command for all instances but for the file's name, so their arguments and environment are
//! neither in its memory, nor in its configuration, nor on a command line, and no value goes through its readers (INI, `%`, a
//! shell-like splitter). The launcher opens the log itself: an instance that wrote through a pipe of supervisord's would meet a
//! broken one when supervisord dies.
//!
//! It is a program of its own (`program.rs` and `sys.rs`, see there), carried within acc and put beside the files that it reads. Here is
//! what acc does with it; nothing is started here.

mod program;
mod sys;

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::driver::host::fs::{make_dir, write_atomic};
use crate::driver::host::spawn::UserIds;
use crate::driver::supervisor::SupervisorError;

/// The program, compiled by `build.rs`.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/launcher"));

/// Becomes what the file says; see `program`.
#[must_use]
pub fn launch(file: &Path) -> u8 {
    // A path that holds a zero byte names no file.
    CString::new(file.as_os_str().as_bytes()).map_or(126, |file| program::launch(&file))
}

/// What to become. It may hold secrets: its file is for acc alone.
#[derive(Debug)]
pub(super) struct Spec<'a> {
    /// The program: a path.
    pub(super) program: &'a Path,
    /// Arguments after argument 0.
    pub(super) args: &'a [String],
    /// The whole environment.
    pub(super) env: &'a [(String, String)],
    /// Working directory.
    pub(super) dir: &'a Path,
    /// Standard output and error; it is there and belongs to the user.
    pub(super) log: &'a Path,
    /// Whom to become; `None`: who supervisord is.
    pub(super) user: Option<&'a UserIds>,
    /// To be handed over, listening there; nothing is at this path.
    pub(super) socket: Option<&'a Path>,
    /// The pid file, which the launcher writes as the last thing but becoming the program.
    pub(super) pid: &'a Path,
    /// Which boot of this host it is.
    pub(super) boot: &'a str,
}

impl Spec<'_> {
    /// As the launcher reads it. That nothing in it holds a zero byte was checked before.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let mut say = |key: &str, value: &str| text.extend([key, "=", value, "\0"]);
        say("program", &self.program.to_string_lossy());
        self.args.iter().for_each(|arg| say("arg", arg));
        self.env.iter().for_each(|(name, value)| say("env", &format!("{name}={value}")));
        say("dir", &self.dir.to_string_lossy());
        say("log", &self.log.to_string_lossy());
        say("pid", &self.pid.to_string_lossy());
        say("beside", &self.pid.with_extension("launched").to_string_lossy());
        say("boot", self.boot);
        if let Some(user) = self.user {
            let ids: Vec<String> = [user.uid, user.gid].iter().chain(&user.groups).map(u32::to_string).collect();
            say("user", &ids.join(" "));
        }
        if let Some(path) = self.socket {
            say("socket", &path.to_string_lossy());
        }
        text
    }
}

/// Puts the launcher into this folder, unless it is there, and returns its command without the last argument. Where no program
/// may be run from the folder's file system: the slower way, acc's own binary.
pub(super) fn ensure(dir: &Path, acc: &[String]) -> Result<Vec<String>, SupervisorError> {
    let path = dir.join("launcher");
    let failed = |deed, path: &PathBuf| {
        let path = path.clone();
        move |source| SupervisorError::File { deed, path, source }
    };
    let is_there = || {
        let found = fs::metadata(&path).ok()?;
        let whole = found.is_file() && found.len() == PROGRAM.len() as u64 && found.permissions().mode() & 0o777 == 0o755;
        whole.then(|| fs::read(&path).is_ok_and(|bytes| bytes == PROGRAM))
    };
    if is_there() != Some(true) {
        make_dir(dir, 0o700).map_err(failed("make", &dir.to_owned()))?;
        write_atomic(&path, PROGRAM, 0o755).map_err(failed("write", &path))?;
    }
    let mount = rustix::fs::statvfs(&path).map_err(|e| failed("look at", &path)(e.into()))?;
    if mount.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC) {
        return Ok(acc.to_vec());
    }
    Ok(vec![path.to_string_lossy().into_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec<'a>(program: &'a Path, log: &'a Path, pid: &'a Path) -> Spec<'a> {
        Spec { program, args: &[], env: &[], dir: Path::new("/"), log, user: None, socket: None, pid, boot: "this-boot" }
    }

    #[test]
    fn it_is_put_in_place_once_and_again_when_it_was_changed() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("launch");
        let command = ensure(&place, &[]).unwrap();
        assert_eq!(command, [place.join("launcher").display().to_string()]);
        let inode = |path: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
        let first = inode(&command[0]);
        ensure(&place, &[]).unwrap();
        assert_eq!(inode(&command[0]), first);
        let mut other = PROGRAM.to_vec();
        other[100] ^= 1;
        fs::write(&command[0], &other).unwrap();
        ensure(&place, &[]).unwrap();
        assert!(fs::read(&command[0]).unwrap() == PROGRAM);
    }

    #[test]
    fn it_becomes_what_the_file_says_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (file, log, pid) = (dir.path().join("a.spec"), dir.path().join("app.log"), dir.path().join("a.pid"));
        let odd = "a=b \"c\" 'd' $E %s ; # \\ \n \x01 \u{fc}";
        let spec = Spec {
            args: &["-c".to_owned(), "env; pwd; umask; printf '%s|' \"$0\" \"$@\"; ls -l /proc/$$/fd; cat".to_owned(), odd.to_owned()],
            env: &[("ODD".to_owned(), odd.to_owned()), ("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            dir: dir.path(),
            ..spec(Path::new("/bin/sh"), &log, &pid)
        };
        fs::write(&file, spec.text()).unwrap();
        let command = ensure(&dir.path().join("launch"), &[]).unwrap();
        // Of its own, and one more that nobody closes.
        let mut launcher = std::process::Command::new(&command[0]);
        launcher.arg(&file).env("SECRET", "of supervisord");
        let open = fs::File::open("/etc/hosts").unwrap();
        rustix::io::fcntl_setfd(&open, rustix::io::FdFlags::empty()).unwrap();
        let mut child = launcher.spawn().unwrap();
        assert!(child.wait().unwrap().success());
        let (noted, process) = (fs::read_to_string(&pid).unwrap(), child.id().to_string());
        assert_eq!(noted.split(' ').next(), Some(process.as_str()));
        assert!(noted.ends_with(&format!(" this-boot {}\n", log.display())), "{noted}");
        let said = fs::read_to_string(&log).unwrap();
        assert!(said.contains(&format!("ODD={odd}\n")) && said.contains(&format!("{odd}|")), "{said}");
        assert!(said.contains(&format!("{}\n0022\n", dir.path().display())), "{said}");
        assert!(!said.contains("SECRET") && !said.contains("/etc/hosts"), "{said}");
    }

    #[test]
    fn what_cannot_be_become_is_said_where_it_is_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let (file, log, pid) = (dir.path().join("a.spec"), dir.path().join("app.log"), dir.path().join("a.pid"));
        let command = ensure(&dir.path().join("launch"), &[]).unwrap();
        let launched = || {
            let done = std::process::Command::new(&command[0]).arg(&file).output().unwrap();
            (done.status.code().unwrap(), String::from_utf8(done.stderr).unwrap())
        };
        let expect = |code: i32, why: &str| {
            let (found, said) = launched();
            assert_eq!(found, code, "{said}");
            assert!(said.contains(why), "{said}");
        };
        expect(127, "could not start `");
        for (text, why) in
            [("", "not complete"), ("program=/x", "not complete"), ("what=1\0", "`what` is not understood"), ("x\0", "is not")]
        {
            fs::write(&file, text).unwrap();
            expect(126, why);
        }
        fs::write(&file, spec(Path::new("/x"), &dir.path().join("none/app.log"), &pid).text()).unwrap();
        expect(127, "none/app.log`");
        let taken = Spec { socket: Some(&file), ..spec(Path::new("/bin/true"), &log, &pid) };
        fs::write(&file, taken.text()).unwrap();
        assert_eq!(launched().0, 126);
        let said = fs::read_to_string(&log).unwrap();
        assert!(said.contains(&format!("could not start `/bin/true`: its socket `{}`: Address", file.display())), "{said}");
        for (program, code) in [("/no/such/program", 127), ("/etc", 126), ("/etc/hosts", 126)] {
            fs::write(&file, spec(Path::new(program), &log, &pid).text()).unwrap();
            assert_eq!(launched().0, code);
            assert!(fs::read_to_string(&log).unwrap().contains(&format!("acc: could not start `{program}`: ")));
        }
    }
}
