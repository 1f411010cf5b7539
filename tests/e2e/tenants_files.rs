//! What an instance can do with its own files, and what it must not cost others: logs of any size
//! and speed, folders of any depth, something else in the place of its socket, and text that would
//! control a terminal.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::support::fixture::SOON;
use crate::support::wait::holds;
use crate::support::{Combination, Fixture, Mounted, need, processes, wait_until};

const MIB: u64 = 1024 * 1024;
/// The size limit of all logs of an instance together.
const LOGS_MAX: u64 = 45 * MIB;

/// Bytes on the disk of all files directly in a folder.
fn on_disk(dir: &Path) -> u64 {
    fs::read_dir(dir)
        .unwrap()
        .filter_map(|e| Some(e.ok()?.metadata().ok()?.blocks() * 512))
        .sum()
}

fn logs(fixture: &Fixture) -> PathBuf {
    fixture.instance("shop").join("log")
}

/// Makes nested folders, deeper than any path can be.
fn dig(into: &Path, levels: usize) {
    use nix::fcntl::{OFlag, open, openat};
    use nix::sys::stat::{Mode, mkdirat};
    let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY;
    let mut at = open(into, flags, Mode::empty()).unwrap();
    for _ in 0..levels {
        mkdirat(&at, "d", Mode::S_IRWXU).unwrap();
        at = openat(&at, "d", flags, Mode::empty()).unwrap();
    }
}

#[test]
fn a_log_that_is_a_hole_costs_nothing_and_is_shown_at_once() {
    for combination in [Combination::REAL, Combination::BUILTIN] {
        let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
            continue;
        };
        fixture.create("shop", "tester");
        let log = logs(&fixture).join("app.log");
        fs::OpenOptions::new()
            .write(true)
            .open(&log)
            .unwrap()
            .set_len(40 << 30)
            .unwrap();
        let shown = fixture.acc(&["logs", "shop"]).ok();
        assert!(shown.out.len() < 1024 * 1024, "{}", shown.out.len());
        wait_until("the log is cut", SOON, || {
            holds(fs::metadata(&log).unwrap().len() == 0, "not cut")
        });
        assert!(on_disk(&logs(&fixture)) < LOGS_MAX, "{combination:?}");
        fixture.get("shop", "/").status(200);
    }
}

/// Without a monitor run the server itself limits the log. A log that grows too fast causes an
/// event, and only one.
#[test]
fn who_writes_without_end_does_not_fill_the_disk() {
    for combination in [Combination::REAL, Combination::BUILTIN] {
        let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
            continue;
        };
        fixture.model(
            "loud",
            "command = [\"/bin/sh\", \"-c\", \"{{ acc }} demo-app --socket {{ socket }} --name {{ name }} & exec yes a line of a log\"]\n",
        );
        fixture.create("shop", "loud");
        let cut = || {
            fixture
                .json(&["events", "shop"])
                .as_array()
                .unwrap()
                .iter()
                .filter(|e| e["kind"] == "log_cut")
                .count()
        };
        wait_until("it is said that it writes too fast", SOON, || {
            holds(cut() == 1, cut())
        });
        let began = crate::support::now();
        while began.elapsed() < Duration::from_secs(3) {
            let used = on_disk(&logs(&fixture));
            assert!(used < 2048 * MIB, "{} MiB {combination:?}", used / MIB);
        }
        fixture.acc(&["stop", "--now", "shop"]).ok();
        // A monitor run may come while the server is still cutting the log itself: then the next
        // run limits it.
        wait_until("a pass bounds it", SOON, || {
            fixture.monitor();
            let used = on_disk(&logs(&fixture));
            holds(
                used < LOGS_MAX,
                format!("{} MiB {combination:?}", used / MIB),
            )
        });
        assert_eq!(cut(), 1, "{combination:?}");
    }
}

/// A log that is longer than the disk has room for is still cut, and no other instance meets a full
/// disk.
#[test]
fn without_room_for_a_copy_a_log_is_cut() {
    if !need::root("to mount a small tmpfs") {
        return;
    }
    for combination in [Combination::REAL, Combination::BUILTIN] {
        let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
            continue;
        };
        fixture.create("shop", "tester");
        let folder = logs(&fixture);
        fs::rename(&folder, fixture.instance("shop").join("former")).unwrap();
        fs::create_dir(&folder).unwrap();
        let small = Mounted::tmpfs(&folder, "size=30m,mode=755");
        fs::write(folder.join("app.log"), vec![b'x'; 25 << 20]).unwrap();
        wait_until("it is cut", SOON, || {
            let free = nix::sys::statvfs::statvfs(small.path()).unwrap();
            let free = free.blocks_available() * free.fragment_size() / MIB;
            holds(free > 10, format!("{free} MiB are free"))
        });
        fixture.get("shop", "/").status(200);
        drop(small);
        fs::remove_dir(&folder).unwrap();
        fs::rename(fixture.instance("shop").join("former"), &folder).unwrap();
    }
}

#[test]
fn folders_of_any_depth_are_purged_by_the_server_that_goes_on() {
    for combination in [Combination::REAL, Combination::BUILTIN] {
        let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
            continue;
        };
        fixture.create("shop", "tester");
        fixture.create("blog", "tester");
        dig(&fixture.instance("shop").join("data"), 15_000);
        dig(&fixture.run().join("sock/shop"), 3_000);
        let before = fixture.server().unwrap().pid;
        fixture.acc(&["destroy", "--force", "shop"]).ok();
        fixture.acc(&["purge", "shop"]).ok();
        assert_eq!(fixture.server().unwrap().pid, before, "{combination:?}");
        fixture.get("blog", "/").status(200);
        // A slow disk needs its time for 18,000 folders.
        wait_until("nothing is left", SOON * 6, || {
            fixture.monitor();
            let left: usize = [fixture.home(), fixture.run()]
                .iter()
                .map(|d| fs::read_dir(d.join("trash")).unwrap().count())
                .sum();
            holds(left == 0, left)
        });
        fixture.assert_no_trace_of("shop");
    }
}

#[test]
fn what_takes_the_place_of_a_socket_or_a_log_gives_way() {
    for combination in Combination::ALL {
        let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
            continue;
        };
        fixture.create("shop", "tester");
        let (socket, log) = (
            fixture.run().join("sock/shop/app.sock"),
            logs(&fixture).join("app.log"),
        );
        let secret = fixture.dir.join("secret");
        fs::write(&secret, "for root only").unwrap();
        let plant: [(&str, &dyn Fn()); 5] = [
            ("a file", &|| fs::write(&socket, "").unwrap()),
            ("a folder", &|| {
                fs::create_dir_all(socket.join("a/b")).unwrap()
            }),
            ("a link", &|| symlink(&secret, &socket).unwrap()),
            ("a link for the log", &|| symlink(&secret, &log).unwrap()),
            ("a second name of the log", &|| {
                fs::hard_link(&log, fixture.instance("shop").join("data/log")).unwrap()
            }),
        ];
        for (what, plant) in plant {
            fixture.acc(&["stop", "shop"]).ok();
            let _ = fs::remove_file(&socket);
            if what.contains("for the log") {
                fs::remove_file(&log).unwrap();
            }
            plant();
            let reply = fixture.get("shop", "/");
            assert_eq!(reply.status, 200, "{combination:?} {what}");
        }
        assert_eq!(fs::read_to_string(&secret).unwrap(), "for root only");
        let server = fixture.server().unwrap().pid;
        assert!(processes::alive(server));
    }
}

/// Control characters are shown escaped, through a pipe too; `--raw` prints the original bytes.
#[test]
fn what_an_application_prints_does_not_drive_a_terminal() {
    let Some(fixture) = Fixture::with(Combination::BUILTIN, |s| s.idle = "60s") else {
        return;
    };
    fixture.create("shop", "tester");
    let nasty = "\u{1b}]0;title\u{7}\u{1b}[2J\u{202e}words\n";
    fs::write(logs(&fixture).join("app.log"), nasty).unwrap();
    assert!(
        fixture
            .acc(&["logs", "shop", "--raw"])
            .ok()
            .out
            .ends_with(nasty)
    );
    assert!(
        fixture
            .acc(&["logs", "shop"])
            .ok()
            .out
            .contains(r"\x1b]0;title\x07\x1b[2J\u{202e}words"),
        "through a pipe"
    );
    let pty = nix::pty::openpty(None, None).unwrap();
    let mut child = fixture
        .command(&["logs", "shop"])
        .stdin(Stdio::null())
        .stdout(Stdio::from(pty.slave))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut text = Vec::new();
    // The end of the terminal is reported as an error.
    let _ = fs::File::from(pty.master).read_to_end(&mut text);
    assert!(child.wait().unwrap().success());
    let text = String::from_utf8(text).unwrap();
    assert!(
        text.contains(r"\x1b]0;title\x07\x1b[2J\u{202e}words"),
        "{text:?}"
    );
    fixture.model("dies", "command = [\"/bin/sh\", \"-c\", \"printf '\\\\033[2Jwords\\\\342\\\\200\\\\256\\\\n'; exit 3\"]\n");
    let failed = fixture.acc(&["create", "dies", "--model", "dies"]).code(1);
    assert!(
        failed.err.contains(r"\x1b[2Jwords\u{202e}"),
        "{}",
        failed.err
    );
    fixture
        .acc(&["create", "dies", "--model", "dies", "--asleep"])
        .ok();
    fixture.acc(&["start", "dies"]).code(1);
    for words in [
        ["info", "dies"],
        ["info", "--json"],
        ["events", "dies"],
        ["events", "--json"],
    ] {
        let said = fixture
            .acc(&if words[1] == "--json" {
                [words[0], "--json", "dies"].to_vec()
            } else {
                words.to_vec()
            })
            .ok();
        assert!(
            !format!("{}{}", said.out, said.err).contains(['\u{1b}', '\u{202e}']),
            "{words:?}"
        );
    }
}
