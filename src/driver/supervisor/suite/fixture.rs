//! One supervisor with folders of its own, and an end to all it started when the test ends, however
//! it ends.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::super::builtin::Builtin;
use super::super::fake::Fake;
use super::super::members::InstanceMembers;
use super::super::pid_file;
use super::super::supervisord::{Supervisord, SupervisordSettings};
use super::*;
use crate::host::cgroup::{CgroupKind, Cgroups};
use crate::host::{command, process};
use crate::render::Templates;

/// Logs beyond this are rotated by the builtin supervisor.
const LOG_MAX: u64 = 1 << 20;

/// How the processes of an instance are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Way {
    /// As this host would have it.
    Best,
    Unified,
    Census,
}

impl Way {
    /// `None`: not possible here.
    fn members(self, pid_dir: &Path) -> Option<InstanceMembers> {
        let run = pid_dir.parent().unwrap();
        match self {
            Self::Best => Some(InstanceMembers::of(pid_dir)),
            Self::Unified => Some(InstanceMembers::in_groups(
                pid_dir,
                Some(Cgroups::find_of(run, &[CgroupKind::Unified]).ok()?),
            )),
            Self::Census => Some(InstanceMembers::in_groups(pid_dir, None)),
        }
    }
}

/// A runner that runs acc's own services as well, as all kinds here do.
pub(in super::super) trait Both: Runner + OwnServices {}

impl<T: Runner + OwnServices> Both for T {}

pub(in super::super) struct Fixture {
    kind: &'static str,
    way: Way,
    supervisor: Arc<dyn Both>,
    fake: Option<Arc<Fake>>,
    dir: tempfile::TempDir,
    /// Ends written to: what was written is lost when the last one closes.
    open: Mutex<Vec<File>>,
}

impl Fixture {
    pub(in super::super) fn builtin() -> Self {
        Self::builtin_by(Way::Best).unwrap()
    }

    /// `None`: this way is not possible here.
    pub(in super::super) fn builtin_by(way: Way) -> Option<Self> {
        let dir = tempdir();
        let pid_dir = dir.path().join("state/pid");
        let supervisor = Arc::new(
            Builtin::new(pid_dir.clone(), LOG_MAX, Vec::new()).with_members(way.members(&pid_dir)?),
        );
        Some(Self {
            kind: "builtin",
            way,
            supervisor,
            fake: None,
            dir,
            open: Mutex::default(),
        })
    }

    /// A real supervisord that answers, with instances' processes known in this way; `None`: not
    /// possible here.
    pub(in super::super) async fn supervisord_by(way: Way) -> Option<Self> {
        let fixture = Self::supervisord_of(tempdir(), way, |_| {})?;
        assert_eq!(
            fixture.supervisor.boot(&[]).await.unwrap(),
            Ensured::Started
        );
        Some(fixture)
    }

    pub(in super::super) fn fake() -> Self {
        let fake = Arc::new(Fake::new());
        let supervisor = Arc::clone(&fake) as Arc<dyn Both>;
        Self {
            kind: "fake",
            way: Way::Best,
            supervisor,
            fake: Some(fake),
            dir: tempdir(),
            open: Mutex::default(),
        }
    }

    /// A real supervisord that answers; `None`: not installed, which is printed (and a failure in
    /// CI).
    pub(in super::super) async fn supervisord() -> Option<Self> {
        let fixture = Self::supervisord_down()?;
        assert_eq!(
            fixture.supervisor.boot(&[]).await.unwrap(),
            Ensured::Started
        );
        Some(fixture)
    }

    /// The same, not yet booted.
    pub(in super::super) fn supervisord_down() -> Option<Self> {
        Self::supervisord_in(tempdir(), |_| {})
    }

    pub(in super::super) fn supervisord_in(
        dir: tempfile::TempDir,
        change: impl FnOnce(&mut SupervisordSettings),
    ) -> Option<Self> {
        Self::supervisord_of(dir, Way::Best, change)
    }

    fn supervisord_of(
        dir: tempfile::TempDir,
        way: Way,
        change: impl FnOnce(&mut SupervisordSettings),
    ) -> Option<Self> {
        if command::find_program("supervisord").is_none() {
            #[expect(clippy::disallowed_methods, reason = "the one switch of the tests")]
            let ci = std::env::var_os("CI").is_some();
            assert!(!ci, "supervisord is not installed");
            println!("skipped: supervisord is not installed");
            return None;
        }
        let mut settings = settings(dir.path());
        change(&mut settings);
        let members = way.members(&settings.pid_dir)?;
        let supervisor = Arc::new(Supervisord::new(settings).with_members(members));
        Some(Self {
            kind: "supervisord",
            way,
            supervisor,
            fake: None,
            dir,
            open: Mutex::default(),
        })
    }

    /// Another driver on the same folders, as after a restart of acc.
    pub(in super::super) fn again(&self) -> Arc<dyn Both> {
        let members = self.way.members(&self.pid_dir()).unwrap();
        match self.kind {
            "builtin" => {
                Arc::new(Builtin::new(self.pid_dir(), LOG_MAX, Vec::new()).with_members(members))
            }
            "supervisord" => {
                Arc::new(Supervisord::new(settings(self.dir.path())).with_members(members))
            }
            _ => Arc::clone(&self.supervisor),
        }
    }

    /// For tests that need both.
    pub(in super::super) fn supervisor(&self) -> Arc<dyn Both> {
        Arc::clone(&self.supervisor)
    }

    pub(in super::super) fn runner(&self) -> Arc<dyn Runner> {
        self.supervisor()
    }

    pub(in super::super) fn own_services(&self) -> Arc<dyn OwnServices> {
        self.supervisor()
    }

    pub(in super::super) fn is_supervisord(&self) -> bool {
        self.kind == "supervisord"
    }

    /// Working directory of its programs.
    pub(in super::super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(in super::super) fn settings(&self) -> SupervisordSettings {
        settings(self.dir.path())
    }

    pub(in super::super) fn pid_dir(&self) -> PathBuf {
        self.dir.path().join("state/pid")
    }

    /// Does this run, or this process of a service, still run?
    pub(in super::super) fn is_alive(&self, run: &(impl Clone + Into<RunId>)) -> bool {
        let run_id = run.clone().into();
        match &self.fake {
            Some(_) => futures_util::FutureExt::now_or_never(self.alive_in_fake(&run_id)).unwrap(),
            None => process::is_same(run_id.process().unwrap()).unwrap(),
        }
    }

    async fn alive_in_fake(&self, run_id: &RunId) -> bool {
        let fake = self.fake.as_ref().unwrap();
        let service = fake.service("nginx").await.unwrap();
        service.map(RunId::from).as_ref() == Some(run_id)
            || fake
                .running()
                .await
                .unwrap()
                .iter()
                .any(|(_, running)| running == run_id)
    }

    /// A pipe that a program reads to wait for its end.
    pub(in super::super) fn make_fifo(&self, name: &str) {
        let path = self.dir.path().join(format!("go-{name}"));
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    }

    /// Lets an obedient program end; `exit` must be how it does.
    pub(in super::super) fn finish(&self, name: &InstanceName, exit: Exit) {
        if let Some(fake) = &self.fake {
            fake.exit(name, exit);
            return;
        }
        // For reading too: opening never waits for the reader, and what is written stays until it
        // comes.
        let mut fifo = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.dir.path().join(format!("go-{name}")))
            .unwrap();
        fifo.write_all(b"go\n").unwrap();
        self.open.lock().unwrap().push(fifo);
    }

    pub(in super::super) fn make_stubborn(&self, name: &InstanceName) {
        if let Some(fake) = &self.fake {
            fake.make_stubborn(name, true);
        }
    }

    pub(in super::super) async fn wait_for_file(&self, name: &str) {
        if self.fake.is_none() {
            let path = self.dir.path().join(name);
            eventually(name, async || path.exists().then_some(())).await;
        }
    }

    /// How often an obedient program began.
    pub(in super::super) async fn count(&self, name: &InstanceName) -> usize {
        match &self.fake {
            Some(fake) => fake.starts(name),
            None => {
                let log = self.dir.path().join("log/app.log");
                eventually("a line in the log", async || {
                    Some(
                        fs::read_to_string(&log)
                            .unwrap_or_default()
                            .matches("began")
                            .count(),
                    )
                    .filter(|n| *n > 0)
                })
                .await
            }
        }
    }

    /// Files of the supervisor that are named after an instance.
    pub(in super::super) fn traces(&self, name: &str) -> Vec<PathBuf> {
        ["state/pid", "state/supervisor/loaded"]
            .into_iter()
            .filter_map(|dir| fs::read_dir(self.dir.path().join(dir)).ok())
            .flat_map(|entries| entries.map(|e| e.unwrap().path()))
            .filter(|path| path.file_stem().is_some_and(|stem| stem == name))
            .collect()
    }

    /// The process of supervisord.
    pub(in super::super) fn daemon(&self) -> Option<Process> {
        let pid = fs::read_to_string(self.settings().pid_file)
            .ok()?
            .trim()
            .parse()
            .ok()?;
        process::by_pid(pid).unwrap()
    }
}

fn tempdir() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    // Programs of other users run in it.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn settings(dir: &Path) -> SupervisordSettings {
    SupervisordSettings {
        dir: dir.join("state/supervisor"),
        socket: dir.join("state/s.sock"),
        pid_file: dir.join("state/s.pid"),
        log: dir.join("state/log/supervisord.log"),
        pid_dir: dir.join("state/pid"),
        log_max: LOG_MAX,
        keep: 64,
        launcher: vec!["/bin/false".into()],
        program: None,
        templates: Arc::new(Templates::new(None).unwrap()),
    }
}

/// Everything whose parent is this process.
fn children(parent: i32) -> Vec<i32> {
    let pids = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let is_child = |pid: &i32| {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        text.rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok())
            == Some(parent)
    };
    pids.filter(is_child).collect()
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let daemon = self.daemon();
        let mut all: Vec<Process> = Vec::new();
        if let Some(daemon) = daemon {
            // First the parent: it would start its services again.
            let _ = process::signal_one(daemon, libc::SIGSTOP);
            all.extend(
                children(daemon.pid)
                    .into_iter()
                    .filter_map(|pid| process::by_pid(pid).ok()?),
            );
        }
        all.extend(
            pid_file::files(&self.pid_dir())
                .unwrap()
                .iter()
                .filter_map(|file| pid_file::living(file).ok()?),
        );
        for process in all {
            let _ = process::signal_group(process, libc::SIGKILL);
        }
        if let Some(daemon) = daemon {
            let _ = process::signal_one(daemon, libc::SIGKILL);
        }
        if let Some(members) = self.way.members(&self.pid_dir()) {
            members.end_all();
        }
    }
}
