//! acc's locks: only acc's user can hold one, whatever the umask is and whoever created the file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use crate::support::fixture::{COMMAND, SOON};
use crate::support::wait::{holds, wait_until};
use crate::support::{Combination, Fixture, need, processes, run};

const LOCKS: [&str; 3] = ["owner.lock", "owner.next", "server.lock"];

#[test]
fn their_modes_do_not_depend_on_the_umask() {
    for combination in [Combination::REAL, Combination::BUILTIN] {
        let Some(fixture) = Fixture::unbooted(combination, |_| {}) else {
            continue;
        };
        let boot = fixture.command(&["boot"]);
        let mut wide = Command::new("sh");
        wide.args(["-c", "umask 0; exec \"$@\"", "sh"])
            .arg(boot.get_program())
            .args(boot.get_args())
            .current_dir(&fixture.dir);
        run::run(&mut wide, COMMAND).ok();
        let mode =
            |path: std::path::PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let more: &[&str] = if combination.supervisor == "supervisord" {
            &["supervisord.lock", "supervisor.sock"]
        } else {
            &[]
        };
        for name in LOCKS.iter().chain(more).chain(&["control.sock"]) {
            let mode =
                mode(fixture.run().join(name)) & if name.ends_with("sock") { 0o077 } else { 0o777 };
            assert_eq!(
                mode,
                if name.ends_with("sock") { 0 } else { 0o600 },
                "{name} ({combination:?})"
            );
        }
        assert_eq!(mode(fixture.home().join("acc.db")), 0o600);
    }
}

/// A process of `nobody` that holds a lock on a file until it is killed.
struct Stranger(Child);

impl Stranger {
    fn holding(path: &std::path::Path, how: &str) -> Self {
        let mut command = Command::new(need::find("flock").unwrap());
        command
            .args([how, "--no-fork"])
            .arg(path)
            .args(["sh", "-c", "echo holds; exec sleep 600"]);
        let mut child = command
            .uid(65_534)
            .gid(65_534)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
        Self(child)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lock files that an older acc made readable for all, and that others have held locked since: acc
/// boots, and its server restarts.
#[test]
fn locks_held_by_strangers_since_before_block_nothing() {
    if !need::root("to hold a lock as another user") || !need::programs(&["flock"]) {
        return;
    }
    for (combination, how) in [
        (Combination::REAL, "--shared"),
        (Combination::BUILTIN, "--exclusive"),
    ] {
        let Some(fixture) = Fixture::unbooted(combination, |s| s.idle = "60s") else {
            continue;
        };
        fs::create_dir(fixture.run()).unwrap();
        let held: Vec<Stranger> = LOCKS
            .iter()
            .map(|name| {
                let path = fixture.run().join(name);
                fs::write(&path, "1").unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
                Stranger::holding(&path, how)
            })
            .collect();
        fixture.acc(&["boot"]).ok();
        fixture.create("shop", "tester");
        fixture.acc(&["stop", "shop"]).ok();
        let worker = || {
            processes::of(&fixture.dir)
                .into_iter()
                .find(|p| p.command.contains(" worker "))
        };
        let before = worker().unwrap();
        processes::signal(before.pid, nix::sys::signal::Signal::SIGKILL);
        wait_until("another worker serves", SOON, || {
            holds(worker().is_some_and(|w| w.pid != before.pid), "none")
        });
        fixture.get("shop", "/").status(200);
        fixture.acc(&["halt"]).ok();
        drop(held);
    }
}
