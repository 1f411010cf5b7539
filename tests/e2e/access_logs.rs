//! Where requests are written down: in a folder that no instance can write to, and what happens
//! when something is wrong with it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::support::bed::SOON;
use crate::support::wait::holds;
use crate::support::{Bed, Combination, need, wait_until};

fn folder(bed: &Bed, name: &str) -> PathBuf {
    bed.home().join("log/access").join(name)
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap_or_default().lines().count()
}

#[test]
fn no_instance_can_reach_the_access_logs() {
    if !need::root("to run instances as another user") {
        return;
    }
    for combination in Combination::ALL {
        let Some(bed) = Bed::of_tenants(combination, |s| s.idle = "60s") else {
            continue;
        };
        bed.create("zebra", "tester");
        bed.get("zebra", "/").status(200);
        let log = folder(&bed, "zebra").join("access.log");
        wait_until("the request is written down", SOON, || {
            holds(lines(&log) > 0, "no line")
        });
        assert_eq!(
            fs::metadata(folder(&bed, "zebra")).unwrap().mode() & 0o7777,
            0o700,
            "{combination:?}"
        );
        assert_eq!(
            fs::metadata(bed.home().join("log/access")).unwrap().uid(),
            0,
            "{combination:?}"
        );
        assert!(
            !bed.instance("zebra")
                .join("log/access")
                .symlink_metadata()
                .unwrap()
                .is_dir(),
            "a folder of the instance's"
        );
        bed.acc(&["logs", "zebra", "--access"])
            .ok()
            .says(&["GET /"]);
        bed.acc(&["destroy", "--force", "zebra"]).ok();
        assert!(log.exists(), "a destroyed one keeps its logs");
        bed.acc(&["purge", "zebra"]).ok();
        assert!(!folder(&bed, "zebra").exists(), "{combination:?}");
        // Nor does a host that belongs to nobody leave anything there.
        bed.get("nothing", "/").status(404);
        assert_eq!(
            fs::read_dir(bed.home().join("log/access")).unwrap().count(),
            0,
            "{combination:?}"
        );
    }
}

#[test]
fn folders_that_are_missing_are_made_by_a_boot_and_by_a_pass() {
    for combination in [Combination::REAL, Combination::BUILTIN] {
        let Some(bed) = Bed::with(combination, |s| s.idle = "60s") else {
            continue;
        };
        bed.create("zebra", "tester");
        let log = folder(&bed, "zebra").join("access.log");
        let gone = || fs::remove_dir_all(folder(&bed, "zebra")).unwrap();
        gone();
        bed.monitor();
        wait_until("a line is in the new folder", SOON, || {
            bed.get("zebra", "/").status(200);
            holds(lines(&log) > 0, "no line")
        });
        bed.acc(&["halt"]).ok();
        gone();
        bed.acc(&["boot"]).ok();
        assert!(folder(&bed, "zebra").is_dir(), "{combination:?}");
    }
}

/// An edge that was taken over can put anything there. The neighbours are served, written down and
/// put to sleep all the same.
#[test]
fn what_takes_the_place_of_an_access_log_harms_nobody_else() {
    for combination in Combination::ALL {
        let Some(bed) = Bed::with(combination, |s| s.idle = "1s") else {
            continue;
        };
        for name in ["zebra", "okapi"] {
            bed.create(name, "tester");
        }
        let secret = bed.dir.join("secret");
        fs::write(&secret, "for root only\n").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let log = folder(&bed, "zebra").join("access.log");
        let plant: [(&str, &dyn Fn()); 3] = [
            ("link", &|| symlink(&secret, &log).unwrap()),
            ("loop", &|| symlink("access.log", &log).unwrap()),
            ("pipe", &|| {
                nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).unwrap()
            }),
        ];
        for (what, plant) in plant {
            let _ = fs::remove_file(&log);
            plant();
            // nginx itself waits for the reader of a pipe, and follows a link: only it can put one
            // there.
            if combination.edge == "builtin" {
                bed.get("zebra", "/").status(200);
            }
            let shown = bed.acc(&["logs", "zebra", "--access"]);
            assert!(
                !shown.out.contains("for root only"),
                "{combination:?} {what}: {shown:?}"
            );
            let okapi = folder(&bed, "okapi").join("access.log");
            let before = lines(&okapi);
            bed.get("okapi", "/").status(200);
            wait_until("the neighbour's request is written down", SOON, || {
                holds(lines(&okapi) > before, before)
            });
            bed.monitor_until_asleep("okapi");
            assert_eq!(
                fs::read_to_string(&secret).unwrap(),
                "for root only\n",
                "{combination:?} {what}"
            );
        }
        fs::remove_file(&log).unwrap();
    }
}
