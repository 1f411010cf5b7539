//! Between acc and an instance: a launcher, which reads what to become, and becomes it. Both
//! supervisors start instances by it, so that what makes a process an instance (session, signals,
//! limits, user, rights, socket, log) is in one place.
//!
//! supervisord is given the same command for all instances but for a file's name, so their
//! arguments and environment are neither in its memory, nor in its configuration, nor on a command
//! line, and no value goes through its readers (INI, `%`, a shell-like splitter). The builtin
//! supervisor gives it the same text in memory. The launcher opens the log itself: an instance that
//! wrote through a pipe of supervisord's would meet a broken one when supervisord dies.
//!
//! It is a program of its own (`program.rs`, `confine.rs` and `sys.rs`, see there), carried within
//! acc. Here is what acc tells it; `place` says where it is. Nothing is started here.

mod confine;
pub(super) mod place;
mod program;
mod sys;
mod understood;

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::Program;
use crate::host::failpoint;
use crate::host::spawn::UserIds;
pub use understood::{Understood, understand};

/// How much more readily than acc an instance is killed when memory runs out (`oom_score_adj`,
/// proc(5)).
const KILLED_BEFORE_ACC: i32 = 200;

/// Becomes what the file says; `-`: what standard input says. See `program`.
#[must_use]
pub fn launch(file: &Path) -> u8 {
    // A path that contains a zero byte names no file.
    CString::new(file.as_os_str().as_bytes()).map_or(126, |file| program::launch(&file))
}

/// What to become. It may hold secrets: its text is for acc alone.
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
    /// What an instance has and a service has not; `None`: a service.
    pub(super) instance: Option<InstanceSpec<'a>>,
    /// The pid file, which the launcher writes as the first thing, and which boot of this host it
    /// is. `None`: the launcher is given the file itself.
    pub(super) pid: Option<(&'a Path, &'a str)>,
}

/// What makes a process an instance.
#[derive(Debug)]
pub(super) struct InstanceSpec<'a> {
    /// Limits, umask and socket.
    pub(super) program: &'a Program,
    /// Whom to become; `None`: who starts it.
    pub(super) user: Option<&'a UserIds>,
    /// The launcher writes `0` into these files while it still may: so it joins control groups.
    pub(super) join: &'a [PathBuf],
    /// A test wants the launcher to be stopped right before it becomes the program.
    pub(super) stop: bool,
}

impl<'a> InstanceSpec<'a> {
    /// Of this program as this user, in these control groups; `run`: acc's run folder, where a test
    /// can ask for a fault.
    pub(super) fn of(
        program: &'a Program,
        user: Option<&'a UserIds>,
        join: &'a [PathBuf],
        run: Option<&Path>,
    ) -> Self {
        Self {
            program,
            user,
            join,
            stop: run.is_some_and(failpoint::stops_launch),
        }
    }
}

impl Spec<'_> {
    /// As the launcher reads it. That nothing in it contains a zero byte was checked before.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let mut say = |key: &str, value: &str| text.extend([key, "=", value, "\0"]);
        say("program", &self.program.to_string_lossy());
        self.args.iter().for_each(|arg| say("arg", arg));
        self.env
            .iter()
            .for_each(|(name, value)| say("env", &format!("{name}={value}")));
        say("dir", &self.dir.to_string_lossy());
        say("log", &self.log.to_string_lossy());
        if let Some((pid, boot)) = self.pid {
            say("pid", &pid.to_string_lossy());
            say("beside", &pid.with_extension("launched").to_string_lossy());
            say("boot", boot);
        }
        if let Some(instance) = &self.instance {
            instance.say(say);
        }
        text
    }
}

impl InstanceSpec<'_> {
    fn say(&self, mut say: impl FnMut(&str, &str)) {
        say("instance", oom_score_adj());
        say("umask", &self.program.umask.to_string());
        for (resource, soft, hard) in self.program.limits.list() {
            say("limit", &format!("{resource} {soft} {hard}"));
        }
        if let Some(user) = self.user {
            let ids: Vec<String> = [user.uid, user.gid]
                .iter()
                .chain(&user.groups)
                .map(u32::to_string)
                .collect();
            say("user", &ids.join(" "));
        }
        self.join
            .iter()
            .for_each(|path| say("join", &path.to_string_lossy()));
        if let Some(path) = &self.program.socket {
            say("socket", &path.to_string_lossy());
        }
        if self.stop {
            say("stop", "");
        }
    }
}

/// The number of an instance: above that of acc, whatever started acc. The highest is 1000.
fn oom_score_adj() -> &'static str {
    static OF_INSTANCES: OnceLock<String> = OnceLock::new();
    OF_INSTANCES.get_or_init(|| {
        let own = std::fs::read_to_string("/proc/self/oom_score_adj")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0);
        (own + KILLED_BEFORE_ACC).min(1000).to_string()
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::suite;
    use super::place::ensure;
    use super::*;

    fn spec<'a>(program: &'a Path, log: &'a Path, pid: &'a Path) -> Spec<'a> {
        Spec {
            program,
            args: &[],
            env: &[],
            dir: Path::new("/"),
            log,
            instance: None,
            pid: Some((pid, "this-boot")),
        }
    }

    #[test]
    fn it_becomes_what_the_file_says_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (file, log, pid) = (
            dir.path().join("a.spec"),
            dir.path().join("app.log"),
            dir.path().join("a.pid"),
        );
        let odd = "a=b \"c\" 'd' $E %s ; # \\ \n \x01 \u{fc}";
        let spec = Spec {
            args: &[
                "-c".to_owned(),
                "env; pwd; umask; printf '%s|' \"$0\" \"$@\"; ls -l /proc/$$/fd; cat".to_owned(),
                odd.to_owned(),
            ],
            env: &[
                ("ODD".to_owned(), odd.to_owned()),
                ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
            ],
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
        assert!(
            noted.ends_with(&format!(" this-boot {}\n", log.display())),
            "{noted}"
        );
        let said = fs::read_to_string(&log).unwrap();
        assert!(
            said.contains(&format!("ODD={odd}\n")) && said.contains(&format!("{odd}|")),
            "{said}"
        );
        assert!(
            said.contains(&format!("{}\n0022\n", dir.path().display())),
            "{said}"
        );
        assert!(
            !said.contains("SECRET") && !said.contains("/etc/hosts"),
            "{said}"
        );
    }

    #[test]
    fn what_cannot_be_become_is_said_where_it_is_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let (file, log, pid) = (
            dir.path().join("a.spec"),
            dir.path().join("app.log"),
            dir.path().join("a.pid"),
        );
        let command = ensure(&dir.path().join("launch"), &[]).unwrap();
        let launched = || {
            let done = std::process::Command::new(&command[0])
                .arg(&file)
                .output()
                .unwrap();
            (
                done.status.code().unwrap(),
                String::from_utf8(done.stderr).unwrap(),
            )
        };
        let expect = |code: i32, why: &str| {
            let (found, said) = launched();
            assert_eq!(found, code, "{said}");
            assert!(said.contains(why), "{said}");
        };
        expect(127, "could not start `");
        for (text, why) in [
            ("", "not complete"),
            ("program=/x", "not complete"),
            ("what=1\0", "`what` is not understood"),
            ("x\0", "is not"),
        ] {
            fs::write(&file, text).unwrap();
            expect(126, why);
        }
        fs::write(
            &file,
            spec(Path::new("/x"), &dir.path().join("none/app.log"), &pid).text(),
        )
        .unwrap();
        expect(127, "none/app.log`");
        let a = Program {
            socket: Some(file.clone()),
            ..suite::program("a", dir.path(), &["/bin/true"])
        };
        let taken = Spec {
            instance: Some(InstanceSpec::of(&a, None, &[], None)),
            ..spec(Path::new("/bin/true"), &log, &pid)
        };
        fs::write(&file, taken.text()).unwrap();
        assert_eq!(launched().0, 126);
        let said = fs::read_to_string(&log).unwrap();
        assert!(
            said.contains(&format!(
                "could not start `/bin/true`: its socket `{}`: Address",
                file.display()
            )),
            "{said}"
        );
        for (program, code) in [
            ("/no/such/program", 127),
            ("/etc", 126),
            ("/etc/hosts", 126),
        ] {
            fs::write(&file, spec(Path::new(program), &log, &pid).text()).unwrap();
            assert_eq!(launched().0, code);
            assert!(
                fs::read_to_string(&log)
                    .unwrap()
                    .contains(&format!("acc: could not start `{program}`: "))
            );
        }
    }
}
