//! Where requests are logged: in a folder that no instance can write to, and what happens when
//! something is wrong with that folder.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::support::fixture::SOON;
use crate::support::wait::holds;
use crate::support::{Combination, Fixture, need, wait_until};

fn folder(fixture: &Fixture, name: &str) -> PathBuf {
    fixture.home().join("log/access").join(name)
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
        let Some(fixture) = Fixture::of_tenants(combination, |s| s.idle = "60s") else {
            continue;
        };
        fixture.create("shop", "tester");
        fixture.get("shop", "/").status(200);
        let log = folder(&fixture, "shop").join("access.log");
        wait_until("the request is written down", SOON, || {
            holds(lines(&log) > 0, "no line")
        });
        assert_eq!(
            fs::metadata(folder(&fixture, "shop")).unwrap().mode() & 0o7777,
            0o700,
            "{combination:?}"
        );
        assert_eq!(
            fs::metadata(fixture.home().join("log/access"))
                .unwrap()
                .uid(),
            0,
            "{combination:?}"
        );
        assert!(
            !fixture
                .instance("shop")
                .join("log/access")
                .symlink_metadata()
                .unwrap()
                .is_dir(),
            "a folder of the instance's"
        );
        fixture
            .acc(&["logs", "shop", "--access"])
            .ok()
            .says(&["GET /"]);
        fixture.acc(&["destroy", "--force", "shop"]).ok();
        assert!(log.exists(), "a destroyed one keeps its logs");
        fixture.acc(&["purge", "shop"]).ok();
        assert!(!folder(&fixture, "shop").exists(), "{combination:?}");
        // Requests to a host without an instance leave nothing there either.
        fixture.get("nothing", "/").status(404);
        assert_eq!(
            fs::read_dir(fixture.home().join("log/access"))
                .unwrap()
                .count(),
            0,
            "{combination:?}"
        );
    }
}

#[test]
fn missing_folders_are_made_by_a_boot_and_by_a_monitor_run() {
    for combination in [Combination::REAL, Combination::BUILTIN] {
        let Some(fixture) = Fixture::with(combination, |s| s.idle = "60s") else {
            continue;
        };
        fixture.create("shop", "tester");
        let log = folder(&fixture, "shop").join("access.log");
        let gone = || fs::remove_dir_all(folder(&fixture, "shop")).unwrap();
        gone();
        fixture.monitor();
        wait_until("a line is in the new folder", SOON, || {
            fixture.get("shop", "/").status(200);
            holds(lines(&log) > 0, "no line")
        });
        fixture.acc(&["halt"]).ok();
        gone();
        fixture.acc(&["boot"]).ok();
        assert!(folder(&fixture, "shop").is_dir(), "{combination:?}");
    }
}

/// A compromised edge can put anything into that folder. The other instances are still served,
/// logged and put to sleep.
#[test]
fn something_in_place_of_an_access_log_harms_no_other_instance() {
    for combination in Combination::ALL {
        let Some(fixture) = Fixture::with(combination, |s| s.idle = "1s") else {
            continue;
        };
        for name in ["shop", "blog"] {
            fixture.create(name, "tester");
        }
        let secret = fixture.dir.join("secret");
        fs::write(&secret, "for root only\n").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let log = folder(&fixture, "shop").join("access.log");
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
            // nginx itself waits for the reader of a pipe, and follows a link: only nginx could
            // have put one there.
            if combination.edge == "builtin" {
                fixture.get("shop", "/").status(200);
            }
            let shown = fixture.acc(&["logs", "shop", "--access"]);
            assert!(
                !shown.out.contains("for root only"),
                "{combination:?} {what}: {shown:?}"
            );
            let blog = folder(&fixture, "blog").join("access.log");
            let before = lines(&blog);
            fixture.get("blog", "/").status(200);
            wait_until("the neighbour's request is written down", SOON, || {
                holds(lines(&blog) > before, before)
            });
            fixture.monitor_until_asleep("blog");
            assert_eq!(
                fs::read_to_string(&secret).unwrap(),
                "for root only\n",
                "{combination:?} {what}"
            );
        }
        fs::remove_file(&log).unwrap();
    }
}
