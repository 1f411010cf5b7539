//! The scripts and units beside the binary: set-up from nothing to a demo and away again, and what
//! linters say of them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use crate::support::fixture::{ACC, COMMAND};
use crate::support::{Combination, Done, need, processes, run};

/// Longest a run of the set-up may take; it does not build here.
const SETUP: Duration = Duration::from_secs(120);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder for one installation, with everything in it ended and removed at the end.
///
/// One at a time on this machine: each set-up chooses the next free port, and an ordinary user's
/// run folder has a fixed name.
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

/// Instances of a root who only tests run as somebody who is there anyway: no user is made.
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

/// Installs twice, uninstalls keeping the data, installs again, and removes everything.
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
    // The data was kept: the demo is there again.
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

/// Run again with a newer program, it upgrades what runs: nobody is put to sleep, and no request is
/// lost meanwhile.
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
    // The same program with a byte more is another file.
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

/// A system user that a set-up as root makes; one that a test has made goes with it.
struct MadeUser {
    name: &'static str,
    was_there: bool,
}

impl MadeUser {
    fn of(name: &'static str) -> Self {
        let mut user = Self {
            name,
            was_there: true,
        };
        user.was_there = user.find().is_some();
        user
    }

    fn find(&self) -> Option<nix::unistd::User> {
        nix::unistd::User::from_name(self.name).unwrap()
    }
}

impl Drop for MadeUser {
    fn drop(&mut self) {
        if !self.was_there && self.find().is_some() {
            let _ = Command::new("userdel").arg(self.name).output();
        }
    }
}

/// As root nothing of an instance runs as root, unless that is what was asked for.
#[test]
fn setup_as_root_in_a_prefix_gives_instances_a_user_of_their_own() {
    if !need::root("to run instances as another user") || !need::programs(&["useradd", "userdel"]) {
        return;
    }
    let user = MadeUser::of("acc");
    let place = Place::new();
    let setup = |prefix: &Path, more: &[&str]| {
        let mut command = Command::new(root().join("setup.sh"));
        command
            .args(["--builtin", "--prefix"])
            .arg(prefix)
            .args(["--binary", ACC])
            .args(more);
        // An admin with a strict umask.
        run::run(
            Command::new("sh")
                .args(["-c", "umask 077; exec \"$@\"", "sh"])
                .arg(command.get_program())
                .args(command.get_args()),
            SETUP,
        )
    };
    let closed = place.0.join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    setup(&closed.join("p"), &[]).error(1).says(&[
        "user `acc`",
        "cannot pass through `",
        "closed` (mode 700)",
        "--user root",
    ]);
    assert!(
        !closed.join("p").exists() && (user.was_there || user.find().is_none()),
        "something was made"
    );

    let prefix = place.0.join("p");
    let done = setup(&prefix, &[]).ok().says(&[
        "user: acc",
        "asleep to answered in",
        "export ACC_CONFIG=",
    ]);
    let uid = user.find().unwrap().uid.as_raw();
    assert_ne!(uid, 0);
    let exports: Vec<&str> = done
        .out
        .lines()
        .map(str::trim)
        .filter(|l| l.starts_with("export "))
        .collect();
    let typed = format!("{}\nacc info demo --json", exports.join("\n"));
    let info = run::run(
        Command::new("bash").args(["-c", &typed]).current_dir("/"),
        COMMAND,
    )
    .ok();
    let info: serde_json::Value = serde_json::from_str(&info.out).unwrap();
    let owner = std::os::unix::fs::MetadataExt::uid(
        &fs::metadata(format!("/proc/{}", info["pid"])).unwrap(),
    );
    assert_eq!(owner, uid, "an instance runs as another user");
    setup(&prefix, &["--user", "nobody"])
        .error(1)
        .says(&["instances run as `acc`", "edit `user`"]);
    setup(&prefix, &[])
        .ok()
        .says(&["user: acc, already exists"]);
    setup(&prefix, &["--uninstall", "--purge-data"])
        .ok()
        .says(&["kept: the system user acc (`userdel acc`"]);
    assert!(
        !prefix.exists() && user.find().is_some(),
        "another installation may need it"
    );

    setup(&closed.join("p"), &["--user", "root"])
        .ok()
        .says(&["instances run as root", "asleep to answered in"]);
    setup(&closed.join("p"), &["--uninstall", "--purge-data"]).ok();
}

/// What cannot work is refused before anything is written; what has gone wrong can be taken away.
#[test]
fn setup_refuses_first_and_uninstalls_what_is_broken() {
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
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    setup(&["--port", &port])
        .error(1)
        .says(&["taken by another program"]);
    setup(&["--port", "25000"]).code(2).says(&["error: "]);
    assert!(!prefix.exists(), "something was written");
    fs::create_dir_all(prefix.join("home")).unwrap();
    fs::set_permissions(prefix.join("home"), fs::Permissions::from_mode(0o777)).unwrap();
    setup(&[])
        .error(1)
        .says(&["can be written by others", "chmod go-w"]);
    assert!(!prefix.join("bin").exists());
    fs::set_permissions(prefix.join("home"), fs::Permissions::from_mode(0o755)).unwrap();

    setup(&[]).ok();
    let config = prefix.join("etc/config.toml");
    setup(&["--port", "1025"]).error(1).says(&[
        "listens on [\"127.0.0.1:",
        "edit `listen`",
        "halt` and `",
    ]);
    assert!(
        fs::read_to_string(prefix.join("etc/config.toml.installed"))
            .unwrap()
            .starts_with("# "),
        "it explains itself"
    );
    // Broken, and something runs: nothing is removed. Nothing runs: it goes.
    let good = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{good}\n[ports]\nrange = \"1-2\"\n")).unwrap();
    setup(&["--uninstall"])
        .error(1)
        .says(&[" server", "nothing was removed"]);
    assert!(prefix.join("bin/acc").exists());
    processes::end_all(&place.0);
    setup(&["--uninstall"])
        .ok()
        .says(&["no process runs", "kept: ", "removed"]);
    assert!(!prefix.join("bin").exists() && !prefix.join("run").exists() && config.exists());
    setup(&[])
        .error(1)
        .says(&["the existing config is invalid"]);
    setup(&["--uninstall", "--purge-data"]).ok();
    assert!(
        !prefix.exists(),
        "something is left in {}",
        prefix.display()
    );
}

/// An ordinary user, with nothing but a home: no root, no apt, no runtime folder.
#[test]
fn setup_as_an_ordinary_user() {
    if !need::root("to become an ordinary user") || !need::programs(&["setpriv"]) {
        return;
    }
    const USER: u32 = 61_234;
    let place = Place::new();
    for file in ["setup.sh", "config.example.toml"] {
        fs::copy(root().join(file), place.0.join(file)).unwrap();
    }
    fs::copy(ACC, place.0.join("built")).unwrap();
    let home = place.0.join("home");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(USER), Some(USER)).unwrap();
    let setup = |more: &[&str]| {
        let mut command = Command::new("setpriv");
        command
            .args([
                &format!("--reuid={USER}"),
                &format!("--regid={USER}"),
                "--clear-groups",
            ])
            .arg(place.0.join("setup.sh"));
        command
            .arg("--binary")
            .arg(place.0.join("built"))
            .args(more)
            .current_dir(&place.0);
        command
            .env_clear()
            .env("HOME", &home)
            .env("PATH", "/usr/bin:/bin");
        command
    };
    // Somebody else was there first.
    let run_dir = Path::new("/tmp/acc-61234");
    fs::create_dir(run_dir).unwrap();
    chown(run_dir, Some(USER + 1), None).unwrap();
    let refused = run::run(&mut setup(&[]), SETUP);
    fs::remove_dir(run_dir).unwrap();
    refused
        .error(1)
        .says(&["`/tmp/acc-61234` belongs to user 61235"]);
    assert!(
        !home.join(".config").exists() && !home.join(".local").exists(),
        "something was written"
    );
    comes_and_goes(&place, setup, &home.join(".local/bin/acc"));
    assert!(
        !Path::new("/tmp/acc-61234").exists(),
        "the run folder is left"
    );
    assert!(
        !home.join(".local/share/bash-completion").exists()
            && !home.join(".local/share/man").exists(),
        "help is left"
    );
    assert!(!home.join(".local/share/acc").exists() && !home.join(".config/acc").exists());
}

/// What is beside acc's own things, or was never acc's, stays.
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
    // A shipped model that was changed is not what acc has made any more.
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

/// Who owns a folder above could replace what acc trusts.
#[test]
fn setup_refuses_places_below_a_folder_of_others() {
    if !need::root("to make folders of others") {
        return;
    }
    let place = Place::new();
    let theirs = place.0.join("theirs");
    fs::create_dir(&theirs).unwrap();
    chown(&theirs, Some(65_534), None).unwrap();
    let link = place.0.join("link");
    std::os::unix::fs::symlink(&theirs, &link).unwrap();
    for above in [&theirs, &link] {
        let mut command = Command::new(root().join("setup.sh"));
        command
            .args(["--builtin", "--no-demo", "--prefix"])
            .arg(above.join("p"))
            .args(["--binary", ACC])
            .args(as_whom());
        run::run(&mut command, SETUP).error(1).says(&[
            "theirs` belongs to user 65534",
            "could replace",
            "chown 0",
        ]);
    }
    assert!(!theirs.join("p").exists());
}

#[test]
fn setup_refuses_what_it_does_not_know() {
    let setup = |arguments: &[&str]| {
        run::run(
            Command::new(root().join("setup.sh")).args(arguments),
            COMMAND,
        )
    };
    let wrong = |arguments: &[&str], said: &str| {
        let done = setup(arguments).code(2);
        let last = done.err.lines().last().unwrap_or_default();
        assert!(
            last.starts_with("error: ") && last.contains(said),
            "{done:?}"
        );
    };
    wrong(&["--bulitin"], "`--bulitin`");
    wrong(&["--port"], "--port");
    wrong(&["--port", "eighty"], "`eighty`");
    wrong(&["--port", "0"], "`0`");
    wrong(&["--port", "65536"], "`65536`");
    wrong(&["--port", "20500"], "20000-29999");
    wrong(&["--purge-data"], "--purge-data");
    setup(&["--help"]).ok().says(&["--uninstall"]);
    // No Rust toolchain: one clear line how to get it.
    let place = Place::new();
    let mut bare = Command::new(root().join("setup.sh"));
    bare.args(["--builtin", "--prefix"])
        .arg(place.0.join("p"))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", &place.0)
        .env("CARGO_HOME", &place.0);
    if need::find("cargo").is_some_and(|p| !p.starts_with("/usr/bin")) {
        run::run(&mut bare, COMMAND)
            .error(1)
            .says(&["no Rust toolchain", "https://sh.rustup.rs"]);
    }
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
    // `verify` wants the program to be there: the units are checked with the binary under test in
    // its place.
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
        // A signal would reach supervisord, which ends everything at a SIGHUP and starts it again.
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
