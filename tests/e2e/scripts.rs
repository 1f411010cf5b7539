//! The scripts and units beside the binary: an installation from nothing to a demo and its removal,
//! and the results of linters.

mod refusals;
mod users;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use crate::support::fixture::{ACC, COMMAND};
use crate::support::{Combination, Done, need, processes, run};
use users::MadeUser;

/// Longest a run of `setup.sh` may take; it does not build here.
const SETUP: Duration = Duration::from_secs(120);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder for one installation; at the end everything in it is ended and removed.
///
/// Only one at a time on this machine: each `setup.sh` chooses the next free port, and an ordinary
/// user's run folder has a fixed name.
struct Place(
    PathBuf,
    #[expect(dead_code, reason = "held, never read")] Flock<fs::File>,
);

impl Place {
    fn new() -> Self {
        let lock = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open("/tmp/acc-test-setup.lock")
            .unwrap();
        let lock = Flock::lock(lock, FlockArg::LockExclusive)
            .map_err(|(_, e)| e)
            .unwrap();
        let dir = tempfile::Builder::new()
            .prefix("acc")
            .rand_bytes(5)
            .tempdir_in("/tmp")
            .unwrap()
            .keep();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        Self(dir, lock)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        processes::end_all(&self.0);
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// As root, the tests run instances as an existing user, so that no user is created.
fn as_whom() -> &'static [&'static str] {
    if nix::unistd::geteuid().is_root() {
        &["--user", "nobody"]
    } else {
        &[]
    }
}

/// The milliseconds in "asleep to answered in N ms".
#[track_caller]
fn took(done: &Done) -> u64 {
    let line = done
        .out
        .lines()
        .find(|l| l.contains("asleep to answered in"));
    let words = line
        .unwrap_or_else(|| panic!("no wake was shown: {done:?}"))
        .split(' ');
    words.filter_map(|w| w.parse().ok()).next_back().unwrap()
}

/// Installs twice, uninstalls and keeps the data, installs again, and removes everything.
fn comes_and_goes(place: &Place, setup: impl Fn(&[&str]) -> Command, program: &Path) {
    let setup = |more: &[&str]| run::run(&mut setup(more), SETUP);
    let first = setup(&[]).ok().says(&[
        "creating the demo instance",
        "demo.apps.localhost",
        "crontab",
    ]);
    assert!(took(&first) < 5000, "{first:?}");
    setup(&[])
        .ok()
        .says(&["already exists", "asleep to answered in"]);
    assert!(program.exists());
    setup(&["--uninstall"]).ok().says(&["removed", "kept: "]);
    assert!(!program.exists());
    assert!(
        processes::of(&place.0).is_empty(),
        "{:#?}",
        processes::of(&place.0)
    );
    // The data was kept: the demo exists again.
    setup(&[]).ok().says(&["demo instance: already exists"]);
    setup(&["--uninstall", "--purge-data"])
        .ok()
        .says(&["removed"]);
    assert!(
        processes::of(&place.0).is_empty(),
        "{:#?}",
        processes::of(&place.0)
    );
}

#[test]
fn setup_builtin_in_a_prefix() {
    let place = Place::new();
    let prefix = place.0.join("p");
    let setup = |more: &[&str]| {
        let mut command = Command::new(root().join("setup.sh"));
        command
            .args(["--builtin", "--prefix"])
            .arg(&prefix)
            .args(["--binary", ACC])
            .args(as_whom())
            .args(more);
        command
    };
    comes_and_goes(&place, setup, &prefix.join("bin/acc"));
    assert!(
        !prefix.exists(),
        "something is left in {}",
        prefix.display()
    );
}

/// Run again with a newer program, `setup.sh` upgrades the running acc: no instance is put to
/// sleep, and no request is lost meanwhile.
#[test]
fn setup_with_a_newer_program_upgrades_what_runs() {
    let place = Place::new();
    let prefix = place.0.join("p");
    let setup = |binary: &Path, more: &[&str]| {
        let mut command = Command::new(root().join("setup.sh"));
        command
            .args(["--builtin", "--prefix"])
            .arg(&prefix)
            .arg("--binary")
            .arg(binary)
            .args(as_whom())
            .args(more);
        run::run(&mut command, SETUP)
    };
    setup(ACC.as_ref(), &[]).ok();
    let acc = |arguments: &[&str]| {
        let mut command = Command::new(prefix.join("bin/acc"));
        run::run(
            command
                .arg("--config")
                .arg(prefix.join("etc/config.toml"))
                .args(arguments),
            SETUP,
        )
        .ok()
        .out
    };
    acc(&["create", "shop", "--model", "hello"]);
    let info: serde_json::Value = serde_json::from_str(&acc(&["info", "shop", "--json"])).unwrap();
    let host = info["url"]
        .as_str()
        .unwrap()
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .to_owned();
    let to = std::net::SocketAddr::from((
        [127, 0, 0, 1],
        host.rsplit_once(':').unwrap().1.parse().unwrap(),
    ));
    // The same program with one more byte counts as another file.
    let newer = place.0.join("newer");
    fs::copy(ACC, &newer).unwrap();
    std::io::Write::write_all(
        &mut fs::OpenOptions::new().append(true).open(&newer).unwrap(),
        b"x",
    )
    .unwrap();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut answered = 0;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                crate::support::Ask::new("GET", &host, "/")
                    .send(to)
                    .unwrap()
                    .status(200);
                answered += 1;
            }
            answered
        });
        let ending = crate::support::wait::Ending(&over);
        let done = setup(&newer, &[]);
        drop(ending);
        assert!(client.join().unwrap() > 10);
        done.ok()
            .says(&["upgraded the server", "asleep to answered in"]);
    });
    let after: serde_json::Value = serde_json::from_str(&acc(&["info", "shop", "--json"])).unwrap();
    assert_eq!(after["pid"], info["pid"], "an awake instance was restarted");
    setup(&newer, &["--uninstall", "--purge-data"]).ok();
}

#[test]
fn setup_with_nginx_and_supervisord_in_a_prefix() {
    if !need::root("the set-up takes nginx and supervisord for root only")
        || !Combination::REAL.possible()
    {
        return;
    }
    let place = Place::new();
    let _edge = MadeUser::of("acc-edge");
    let prefix = place.0.join("p");
    let setup = |more: &[&str]| {
        let mut command = Command::new(root().join("setup.sh"));
        command
            .arg("--prefix")
            .arg(&prefix)
            .args(["--binary", ACC])
            .args(as_whom())
            .args(more);
        command
    };
    comes_and_goes(&place, setup, &prefix.join("bin/acc"));
    assert!(
        !prefix.exists(),
        "something is left in {}",
        prefix.display()
    );
}

/// Files beside acc's own, and files that never belonged to acc, stay.
#[test]
fn an_uninstall_removes_what_acc_has_made_and_nothing_else() {
    let place = Place::new();
    let prefix = place.0.join("p");
    let setup = |more: &[&str]| {
        let mut command = Command::new(root().join("setup.sh"));
        command
            .args(["--builtin", "--no-demo", "--prefix"])
            .arg(&prefix)
            .args(["--binary", ACC])
            .args(as_whom())
            .args(more);
        run::run(&mut command, SETUP)
    };
    setup(&[]).ok();
    let home = prefix.join("home");
    let (kept, gone): (Vec<_>, Vec<_>) = (
        [
            "photos/1.jpg",
            "models/own/model.toml",
            "models/hello/notes",
            "log/other.log",
            "nginx/own.conf",
            "acc.db.backup",
        ]
        .map(|path| home.join(path))
        .into(),
        [
            "acc.db",
            "instances",
            "supervisor",
            "log/server.log",
            "models/hello/.shipped",
            "models/hello-tcp",
        ]
        .map(|path| home.join(path))
        .into(),
    );
    for path in &kept {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "mine").unwrap();
    }
    // A shipped model that was changed no longer counts as acc's file.
    fs::write(
        home.join("models/python-http/model.toml"),
        "command = [\"true\"]\n",
    )
    .unwrap();
    fs::write(prefix.join("run/mine"), "").unwrap();
    setup(&["--uninstall", "--purge-data"]).ok().says(&[
        "removed",
        "kept: ",
        "more in it than acc has made",
        "models of your own",
    ]);
    for path in kept.iter().chain([
        &home.join("models/python-http/model.toml"),
        &prefix.join("run/mine"),
    ]) {
        assert!(path.exists(), "`{}` was removed", path.display());
    }
    for path in gone {
        assert!(!path.exists(), "`{}` is left", path.display());
    }
    // A folder that only looks like a home.
    let other = place.0.join("srv");
    for path in ["models/hello", "instances/shop", "log"] {
        fs::create_dir_all(other.join(path)).unwrap();
    }
    fs::write(other.join("log/server.log"), "").unwrap();
    fs::create_dir_all(prefix.join("etc")).unwrap();
    fs::write(
        prefix.join("etc/config.toml"),
        format!(
            "home = \"{}\"\nrun = \"{}\"\n",
            other.display(),
            other.join("r").display()
        ),
    )
    .unwrap();
    setup(&["--uninstall", "--purge-data"])
        .ok()
        .says(&["kept: ", "there is no acc.db in it"]);
    assert!(
        other.join("log/server.log").exists()
            && other.join("instances/shop").exists()
            && other.join("models/hello").exists()
    );
}

#[test]
fn shellcheck_is_content() {
    if !need::programs(&["shellcheck"]) {
        return;
    }
    let bash = "src/interface/cli/commands/completions.bash";
    run::run(
        Command::new("shellcheck")
            .args(["setup.sh", "tests/run", ".ci/run", bash])
            .current_dir(root()),
        COMMAND,
    )
    .ok();
}

#[test]
fn systemd_accepts_the_units() {
    if !need::programs(&["systemd-analyze"]) {
        return;
    }
    // `verify` requires that the program exists: the units are checked with the binary under test
    // in its place.
    let place = Place::new();
    let mut command = Command::new("systemd-analyze");
    command.arg("verify");
    for unit in [
        "acc.service",
        "acc.slice",
        "acc.socket",
        "acc-monitor.service",
        "acc-monitor.timer",
    ] {
        let text = fs::read_to_string(root().join("systemd").join(unit)).unwrap();
        // A signal would reach supervisord, which ends everything at a SIGHUP and starts everything
        // again.
        assert!(
            unit != "acc.service" || text.contains("\nExecReload=/usr/local/bin/acc reload\n"),
            "{text}"
        );
        let path = place.0.join(unit);
        fs::write(&path, text.replace("/usr/local/bin/acc", ACC)).unwrap();
        command.arg(path);
    }
    let dropin = place.0.join("acc.service.d");
    fs::create_dir(&dropin).unwrap();
    fs::copy(
        root().join("systemd/builtin.conf"),
        dropin.join("builtin.conf"),
    )
    .unwrap();
    let done = run::run(&mut command, COMMAND).ok();
    let complaints: Vec<&str> = done.err.lines().filter(|l| l.contains("acc")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}
