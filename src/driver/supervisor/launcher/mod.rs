//! The request that acc sends to a launcher, for both supervisors. `place` says where the launcher
//! is. The library `acc_launch` (`crates/launch`) carries out the request and defines its format.
//!
//! supervisord gets the same command for all instances, except for a file name. So arguments and
//! environment are not in its memory, in its configuration or on a command line, and no value
//! passes through its parsers (INI, `%`, shell-like splitting). The builtin supervisor passes the
//! same text in memory. The launcher opens the log itself: a pipe of supervisord's would break when
//! supervisord dies.
//!
//! It starts nothing.
//! Nothing is started here.

pub(super) mod place;

use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use acc_launch::LaunchRequest;

use super::{Program, program_path};
use crate::host::failpoint;
use crate::host::spawn::UserIds;

/// How much sooner than acc the kernel kills an instance when memory runs out (`oom_score_adj`,
/// proc(5)).
const KILLED_BEFORE_ACC: i32 = 200;

/// Builds a request for this program with these arguments, environment and log.
pub(super) fn request(
    program: &Path,
    args: &[String],
    env: &[(String, String)],
    log: &Path,
) -> io::Result<LaunchRequest> {
    let env = env.iter().map(|(name, value)| format!("{name}={value}"));
    Ok(LaunchRequest {
        args: args.iter().map(c_string).collect::<io::Result<_>>()?,
        env: env.map(c_string).collect::<io::Result<_>>()?,
        ..LaunchRequest::new(c_string(program)?, c_string(log)?)
    })
}

/// Adds the user and the control groups of an instance. `run`: acc's run folder, where a test can
/// request a fault.
pub(super) fn instance(
    request: LaunchRequest,
    program: &Program,
    user: Option<&UserIds>,
    join: &[PathBuf],
    run: Option<&Path>,
) -> io::Result<LaunchRequest> {
    Ok(LaunchRequest {
        dir: c_string(&program.dir)?,
        umask: program.umask,
        limits: program.limits.list(),
        user: user.cloned(),
        join: join.iter().map(c_string).collect::<io::Result<_>>()?,
        socket: program.socket.as_ref().map(c_string).transpose()?,
        instance: Some(c_string(oom_score_adj())?),
        stop: run.is_some_and(failpoint::stops_launch),
        ..request
    })
}

/// Adds a pid file that the launcher writes, and the current boot.
pub(super) fn noted(
    request: LaunchRequest,
    pid_file: &Path,
    boot: &str,
) -> io::Result<LaunchRequest> {
    Ok(LaunchRequest {
        pid_file: Some(c_string(pid_file)?),
        boot: c_string(boot)?,
        ..request
    })
}

/// Refuses a text with a zero byte.
fn c_string(text: impl AsRef<OsStr>) -> io::Result<CString> {
    Ok(CString::new(text.as_ref().as_bytes())?)
}

impl Program {
    /// The launcher's request for this program; `None`: it is refused before a start.
    #[must_use]
    pub fn launch_request(&self, user: Option<&UserIds>) -> Option<LaunchRequest> {
        let (path, args) = (program_path::path(self).ok()?, self.argv.get(1..)?);
        let plain = request(&path, args, &self.env, &self.log).ok()?;
        instance(plain, self, user, &[], None).ok()
    }
}

/// The value for an instance: above acc's own, whatever started acc. The highest is 1000.
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

    fn spec(program: &Path, log: &Path, pid: &Path) -> LaunchRequest {
        noted(request(program, &[], &[], log).unwrap(), pid, "this-boot").unwrap()
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
        let args = [
            "-c".to_owned(),
            "env; pwd; umask; printf '%s|' \"$0\" \"$@\"; ls -l /proc/$$/fd; cat".to_owned(),
            odd.to_owned(),
        ];
        let env = [
            ("ODD".to_owned(), odd.to_owned()),
            ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
        ];
        let spec = LaunchRequest {
            dir: c_string(dir.path()).unwrap(),
            ..request(Path::new("/bin/sh"), &args, &env, &log).unwrap()
        };
        let spec = noted(spec, &pid, "this-boot").unwrap();
        fs::write(&file, spec.text()).unwrap();
        let command = ensure(&dir.path().join("launch"), &[]).unwrap();
        // Its own descriptors, and one more that no process closes.
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
        let plain = spec(Path::new("/bin/true"), &log, &pid);
        let taken = instance(plain, &a, None, &[], None).unwrap();
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
