//! The users that `setup.sh` creates or runs as.

use super::*;

/// A system user that `setup.sh` creates as root; a user that a test created is removed with this
/// value.
pub(super) struct MadeUser {
    name: &'static str,
    was_there: bool,
}

impl MadeUser {
    pub(super) fn of(name: &'static str) -> Self {
        let mut user = Self {
            name,
            was_there: true,
        };
        user.was_there = user.find().is_some();
        user
    }

    pub(super) fn find(&self) -> Option<nix::unistd::User> {
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

/// With root, no process of an instance runs as root, unless that was asked for.
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

/// An ordinary user with only a home: no root, no apt, no runtime folder.
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
    // Another user created the folder first.
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
