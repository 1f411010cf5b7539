//! Two applications that nobody here wrote, from PyPI and from npm, each with a model of a few lines, on nginx and supervisord.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use crate::support::{Bed, Combination, need, run};

/// Longest an installation may take.
const INSTALL: Duration = Duration::from_secs(240);

/// Installs once into a cached folder: `make` fills it, a mark says that it was filled to the end.
fn installed(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("apps");
    fs::create_dir_all(&cache).unwrap();
    let lock = fs::File::create(cache.join(format!("{name}.lock"))).unwrap();
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| e).unwrap();
    let dir = cache.join(name);
    if !dir.join("complete").exists() {
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        make(&dir);
        fs::write(dir.join("complete"), "").unwrap();
    }
    dir
}

#[test]
fn a_python_application_from_pypi() {
    if !need::programs(&["python3", "nginx", "supervisord"]) {
        return;
    }
    if run::run(Command::new("/usr/bin/python3").args(["-c", "import ensurepip, venv"]), INSTALL).code != Some(0) {
        need::skipped("not installed: python3-venv");
        return;
    }
    let dir = installed("python", |dir| {
        run::run(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(dir.join("venv")), INSTALL).ok();
        let mut pip = Command::new(dir.join("venv/bin/pip"));
        run::run(pip.args(["install", "--quiet", "--disable-pip-version-check", "gunicorn==23.0.0", "httpbin==0.10.2"]), INSTALL).ok();
    });
    let Some(bed) = Bed::with(Combination::REAL, |s| s.idle = "1s") else { return };
    let model = format!(
        "description = \"httpbin under gunicorn\"\nlisten = \"unix\"\nhealth = \"/status/200\"\n\
         command = [\"{}/venv/bin/gunicorn\", \"--bind\", \"unix:{{{{ socket }}}}\", \"httpbin:app\"]\n",
        dir.display()
    );
    bed.model("httpbin", &model);
    bed.create("bin", "httpbin");
    let reply = bed.get("bin", "/get?a=1").status(200).json();
    assert_eq!(reply["args"]["a"], "1", "{reply}");
    bed.monitor_until_asleep("bin");
    let reply = bed.send(&bed.ask("POST", "bin", "/post?b=2").header("Content-Type", "text/plain").body("hello")).status(200).json();
    assert_eq!((&reply["args"]["b"], &reply["data"]), (&"2".into(), &"hello".into()), "{reply}");
    // A response that lasts longer than the idle timeout.
    let slow = std::thread::scope(|scope| {
        let slow = scope.spawn(|| bed.get("bin", "/drip?duration=2&numbytes=20&delay=0"));
        while !slow.is_finished() {
            bed.acc(&["monitor"]).ok();
        }
        slow.join().unwrap().status(200)
    });
    assert_eq!(slow.body.len(), 20);
    bed.monitor_until_asleep("bin");
    bed.get("bin", "/headers").status(200);
}

#[test]
fn a_node_application_from_npm() {
    if !need::programs(&["node", "npm", "nginx", "supervisord"]) {
        return;
    }
    let dir = installed("node", |dir| {
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(dir).arg("json-server@0.17.4").current_dir(dir);
        run::run(&mut npm, INSTALL).ok();
    });
    let Some(bed) = Bed::with(Combination::REAL, |s| s.idle = "1s") else { return };
    let node = need::find("node").unwrap();
    let model = format!(
        "description = \"json-server\"\nlisten = \"tcp\"\nhealth = \"/db\"\n\
         command = [\"{}\", \"{}/node_modules/.bin/json-server\", \"--host\", \"127.0.0.1\", \"--port\", \"{{{{ port }}}}\", \"{{{{ data }}}}/db.json\"]\n",
        node.display(),
        dir.display()
    );
    bed.model("json-server", &model);
    bed.create("store", "json-server");
    let post = bed.ask("POST", "store", "/posts").header("Content-Type", "application/json").body(r#"{"id": 77, "title": "kept"}"#);
    bed.send(&post).status(201);
    bed.monitor_until_asleep("store");
    // What it was told before it slept it still knows.
    assert_eq!(bed.get("store", "/posts/77").status(200).json()["title"], "kept");
    assert_eq!(bed.info("store")["phase"], "awake");
    bed.acc(&["stop", "store"]).ok();
    assert_eq!(bed.get("store", "/posts/77").status(200).json()["title"], "kept");
}
