//! nginx's workers, when acc is root: which user they run as, who can reach the files they share
//! with acc, and what is noticed when they do not answer. Instances run as `nobody` here, and
//! workers as `daemon`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::User;

use crate::support::fixture::{COMMAND, SOON};
use crate::support::wait::holds;
use crate::support::{Combination, Fixture, need, processes, run, wait_until};

/// The conventional `nobody`.
const NOBODY: u32 = 65_534;
const USERS: &str = "user = \"daemon\"";

/// An application that executes `CODE` on its socket after the bind and before the listen.
const PYTHON: &str = r#"
import os, socket, sys
path = os.environ["APP_SOCKET"]
s = socket.socket(socket.AF_UNIX)
BEFORE
s.bind(path)
AFTER
s.listen(64)
while True:
    c, _ = s.accept()
    if c.recv(65536):
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
    c.close()
"#;

/// A fixture as root whose instances run as `nobody`; `None`: not possible on this machine.
fn fixture(combination: Combination) -> Option<Fixture> {
    if !need::root("to run instances as another user") {
        return None;
    }
    let mut fixture = Fixture::unbooted(combination, |s| {
        (s.top, s.edge, s.idle) = ("user = \"nobody\"".into(), USERS.into(), "60s");
    })?;
    // The models run the binary under test, which must be reachable for that user.
    let theirs = fixture.dir.join("acc");
    fs::copy(&fixture.acc, &theirs).unwrap();
    fixture.acc = theirs;
    Some(fixture)
}

fn edge() -> User {
    User::from_name("daemon").unwrap().unwrap()
}

fn workers(fixture: &Fixture) -> Vec<i32> {
    let all = processes::of(&fixture.dir).into_iter();
    all.filter(|p| p.command.starts_with("nginx: worker process"))
        .map(|p| p.pid)
        .collect()
}

/// Owner, group, mode.
fn of(path: &Path) -> (u32, u32, u32) {
    let found = fs::symlink_metadata(path).unwrap();
    (found.uid(), found.gid(), found.mode() & 0o7777)
}

/// A command run by the user of the instances.
fn as_nobody(program: &str, arguments: &[&str]) -> run::Done {
    run::run(
        Command::new(program)
            .args(arguments)
            .uid(NOBODY)
            .gid(NOBODY)
            .current_dir("/"),
        COMMAND,
    )
}

fn nginx() -> [Combination; 2] {
    [Combination::ALL[0], Combination::ALL[1]]
}

#[test]
fn the_edge_is_out_of_the_reach_of_instances() {
    for combination in nginx() {
        let Some(fixture) = fixture(combination) else {
            continue;
        };
        fixture.acc(&["boot"]).ok();
        fixture.create("shop", "tester");
        fixture.create("wiki", "hello-fd");
        let edge = edge();
        let (uid, gid) = (edge.uid.as_raw(), edge.gid.as_raw());
        let (socket, gate) = (fixture.run().join("wake.sock"), fixture.run().join("gate"));
        assert_eq!((of(&socket), of(&gate)), ((0, gid, 0o660), (0, gid, 0o710)));
        for name in ["shop", "wiki"] {
            let folder = fixture.run().join("sock").join(name);
            assert_eq!(
                (of(&folder), of(&folder.join("app.sock"))),
                ((NOBODY, gid, 0o2710), (NOBODY, gid, 0o660)),
                "{name}"
            );
        }
        for pid in workers(&fixture) {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let ids = |key: &str| {
                status
                    .lines()
                    .find_map(|l| l.strip_prefix(key))
                    .unwrap()
                    .split_whitespace()
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            assert_eq!(
                (ids("Uid:"), ids("Gid:")),
                (
                    [uid; 4].map(|n| n.to_string()).join(" "),
                    [gid; 4].map(|n| n.to_string()).join(" ")
                )
            );
            assert_eq!(ids("Groups:"), gid.to_string());
            let sent = as_nobody("kill", &["-STOP", &pid.to_string()]);
            assert_ne!(
                sent.code,
                Some(0),
                "an instance's user can stop nginx's workers"
            );
        }
        for path in [&socket, &fixture.run().join("control.sock")] {
            assert_ne!(
                as_nobody("chmod", &["000", path.to_str().unwrap()]).code,
                Some(0)
            );
        }
        assert_ne!(
            as_nobody("ls", &[gate.join("shop.sock").to_str().unwrap()]).code,
            Some(0),
            "an instance's user passes through the gates"
        );
        fixture.get("shop", "/").status(200);
        fixture.get("wiki", "/").status(200);
        assert!(
            fixture.info("shop")["wakes"] == 1
                && fs::read_to_string(fixture.home().join("log/server.log"))
                    .unwrap()
                    .contains("is up")
        );
    }
}

/// Even if another user changes the mode of the socket, or passes a descriptor of it on: only
/// nginx's workers and root are answered.
#[test]
fn a_stranger_on_the_wake_socket_gets_no_answer() {
    if !need::programs(&["python3"]) {
        return;
    }
    let ask = "import socket, sys\ns = socket.socket(socket.AF_UNIX); s.settimeout(10); s.connect(sys.argv[1])\n\
               try: s.sendall(b'GET / HTTP/1.1\\r\\nHost: shop.apps.localhost\\r\\nX-Real-IP: 6.6.6.6\\r\\nConnection: close\\r\\n\\r\\n')\n\
               except BrokenPipeError: pass\ntry: print(len(s.recv(100)))\nexcept ConnectionResetError: print(0)";
    for combination in Combination::ALL {
        let Some(fixture) = fixture(combination) else {
            continue;
        };
        fixture.acc(&["boot"]).ok();
        fixture
            .acc(&["create", "shop", "--model", "tester", "--asleep"])
            .ok();
        let socket = fixture.run().join("wake.sock");
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
        let said = as_nobody("python3", &["-c", ask, socket.to_str().unwrap()]).ok();
        assert_eq!(
            (said.out.trim(), fixture.phase("shop").as_str()),
            ("0", "asleep"),
            "{combination:?}"
        );
        let root = run::run(
            Command::new("python3").args(["-c", ask]).arg(&socket),
            COMMAND,
        )
        .ok();
        assert_ne!(root.out.trim(), "0");
    }
}

#[test]
fn stopped_workers_continue_after_a_monitor_run() {
    for combination in nginx() {
        let Some(fixture) = fixture(combination) else {
            continue;
        };
        fixture.acc(&["boot"]).ok();
        fixture.create("shop", "tester");
        fixture.monitor();
        let all = workers(&fixture);
        // One stopped worker leaves some requests without an answer; all of them stopped, every
        // request.
        for stopped in [&all[..1], &all[..]] {
            stopped
                .iter()
                .for_each(|pid| processes::signal(*pid, Signal::SIGSTOP));
            fixture.acc(&["doctor"]).says(&[
                "processes of nginx were stopped by a signal",
                "`acc monitor` fixes it",
            ]);
            fixture
                .monitor()
                .says(&["nginx", "were stopped by a signal"]);
            fixture.get("shop", "/").status(200);
        }
        fixture
            .acc(&["events"])
            .ok()
            .says(&["repaired", "were stopped by a signal"]);
        assert_eq!(workers(&fixture), all, "they are the same");
        let quiet = fixture.monitor();
        assert_eq!(quiet.out, "", "nothing more is to be done");
        all.iter()
            .for_each(|pid| processes::signal(*pid, Signal::SIGSTOP));
        fixture
            .acc(&["boot"])
            .ok()
            .says(&["were stopped by a signal"]);
        fixture.get("shop", "/").status(200);
    }
}

#[test]
fn a_wake_socket_that_nginx_cannot_use_is_put_right() {
    for combination in nginx() {
        let Some(fixture) = fixture(combination) else {
            continue;
        };
        fixture.acc(&["boot"]).ok();
        fixture
            .acc(&["create", "shop", "--model", "tester", "--asleep"])
            .ok();
        let socket = fixture.run().join("wake.sock");
        let right = of(&socket);
        for (owner, mode) in [(0, 0o000), (NOBODY, 0o600)] {
            chown(&socket, Some(owner), Some(owner)).unwrap();
            fs::set_permissions(&socket, fs::Permissions::from_mode(mode)).unwrap();
            fixture.get("shop", "/").status(502);
            fixture
                .monitor()
                .says(&["wake.sock` had another owner or mode"]);
            assert_eq!(of(&socket), right);
            fixture.get("shop", "/").status(200);
            fixture.acc(&["stop", "shop"]).ok();
        }
        let worker = fixture.server().unwrap();
        fs::remove_file(&socket).unwrap();
        // The server may have repaired it first.
        fixture.monitor();
        wait_until("a sleeper is woken again", SOON, || {
            let status = fixture.get("shop", "/").status;
            holds(status == 200, status)
        });
        assert_eq!(
            (of(&socket), fixture.server().unwrap().pid),
            (right, worker.pid),
            "the server's process stays"
        );
        fixture.acc(&["events"]).ok().says(&[
            "creating them again: `wake.sock`",
            "had another owner or mode",
        ]);
    }
}

/// Frameworks differ: gunicorn makes its socket world-writable and gives it to its own group,
/// others restrict it to their user.
#[test]
fn the_edge_reaches_a_socket_whatever_the_application_did_to_it() {
    if !need::programs(&["python3"]) {
        return;
    }
    for combination in nginx() {
        let Some(fixture) = fixture(combination) else {
            continue;
        };
        fixture.acc(&["boot"]).ok();
        let gid = edge().gid.as_raw();
        let cases = [
            ("plain", "", ""),
            ("closed", "os.umask(0o077)", ""),
            (
                "open",
                "os.umask(0)",
                "os.chown(path, os.getuid(), os.getgid())",
            ),
            ("chmod", "", "os.chmod(path, 0o600)"),
            ("folder", "", "os.chmod(os.path.dirname(path), 0o700)"),
        ];
        for (name, before, after) in cases {
            let dir = fixture.model(
                name,
                "command = [\"python3\", \"app.py\"]\n[env]\nAPP_SOCKET = \"{{ socket }}\"\n",
            );
            fs::create_dir_all(dir.join("files")).unwrap();
            fs::write(
                dir.join("files/app.py"),
                PYTHON.replace("BEFORE", before).replace("AFTER", after),
            )
            .unwrap();
            fixture.create(name, name);
            let folder = fixture.run().join("sock").join(name);
            let seen = || (of(&folder), of(&folder.join("app.sock")));
            assert_eq!(
                seen(),
                ((NOBODY, gid, 0o2710), (NOBODY, gid, 0o660)),
                "{name} ({combination:?})"
            );
            fixture.get(name, "/").status(200);
            // Later on, too: a monitor run notices.
            fs::set_permissions(folder.join("app.sock"), fs::Permissions::from_mode(0o600))
                .unwrap();
            fixture
                .monitor()
                .says(&["the edge could not connect to its socket"]);
            assert_eq!(
                seen(),
                ((NOBODY, gid, 0o2710), (NOBODY, gid, 0o660)),
                "{name} ({combination:?})"
            );
        }
    }
}

#[test]
fn a_boot_without_a_user_for_the_edge_is_one_clear_error() {
    let Some(fixture) = fixture(Combination::REAL) else {
        return;
    };
    let config = fs::read_to_string(fixture.config()).unwrap();
    for (user, why) in [
        ("nobody", "which instances also run as"),
        ("no-such-user", "there is no user `no-such-user`"),
        ("root", "which is root"),
    ] {
        fs::write(
            fixture.config(),
            config.replace(USERS, &format!("user = \"{user}\"")),
        )
        .unwrap();
        fixture
            .acc(&["boot"])
            .error(1)
            .says(&["`edge.user`", why, "hint: "]);
        fixture.acc(&["doctor"]).code(1).says(&[why]);
        assert!(!fixture.run().exists(), "something was made");
    }
    fs::write(fixture.config(), config).unwrap();
}

/// The umask: hardened hosts have 027 or 077, some old scripts 000.
#[test]
fn the_umask_of_the_user_who_boots_changes_no_mode() {
    for combination in Combination::ALL {
        for umask in ["000", "027", "077"] {
            let Some(fixture) = fixture(combination) else {
                continue;
            };
            let under = |arguments: &[&str]| {
                let script = format!("umask {umask}; exec \"$0\" \"$@\"");
                let command = fixture.command(arguments);
                let mut shell = Command::new("sh");
                shell
                    .arg("-c")
                    .arg(script)
                    .arg(command.get_program())
                    .args(command.get_args())
                    .current_dir(&fixture.dir);
                run::run(&mut shell, COMMAND).ok()
            };
            under(&["boot"]);
            under(&["create", "shop", "--model", "tester"]);
            fixture.get("shop", "/").status(200);
            under(&["stop", "shop"]);
            fixture.get("shop", "/").status(200);
            let mut open = Vec::new();
            written_by_others(&fixture.home(), &mut open);
            written_by_others(&fixture.run(), &mut open);
            assert!(
                open.is_empty(),
                "umask {umask} ({combination:?}): {open:#?}"
            );
            under(&["halt"]);
            fs::remove_dir_all(fixture.run()).unwrap();
            under(&["boot"]);
            fixture.get("shop", "/").status(200);
        }
    }
}

/// Files and folders of root that another user may write; files made by an instance are its own.
fn written_by_others(dir: &Path, into: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(found) = fs::symlink_metadata(&path) else {
            continue;
        };
        let of_edge = path.ends_with("wake.sock");
        if found.uid() == 0
            && !found.is_symlink()
            && found.mode() & if of_edge { 0o002 } else { 0o022 } != 0
        {
            into.push(format!("{} {:04o}", path.display(), found.mode() & 0o7777));
        }
        if found.is_dir() {
            written_by_others(&path, into);
        }
    }
}
