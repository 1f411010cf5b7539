//! `--peers`: other tools that do a part of acc's work, if they are installed, compared with acc:
//! the wake over the application's own start (own start, acc and the peer in turn), and the memory
//! of the processes that stay while the application sleeps.
//!
//! Each tool is optional, and set up as its manual says for one application that sleeps as soon as
//! possible. A tool that cannot be measured is a line that says why. All processes of a peer
//! mention its folder, and are ended by that; the applications themselves, which acc runs too, are
//! in another folder.

mod php;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::Settings;
use super::apps::{App, LIMIT, ask, clock_us, folder};
use super::procs;
use super::round::{Round, Sample, Side};
use super::table::{Goal, Report, Row};
use crate::support::wait::{holds, pause};
use crate::support::{Combination, Fixture, need, processes, wait_until};
use php::php;

const GROUP: &str = "peers";
const PROXYD: &str = "/lib/systemd/systemd-socket-proxyd";

/// A tool that runs one application in a folder of its own.
struct Peer<'a> {
    name: &'static str,
    dir: &'a Path,
    address: SocketAddr,
    /// Starts the tool; also after every sleep, if the tool ends with its application.
    start: Box<dyn Fn() + 'a>,
    /// A word of the application's command line.
    word: &'a str,
    /// Does the tool end with its application?
    ends: bool,
}

impl Drop for Peer<'_> {
    fn drop(&mut self) {
        // First an orderly end: some tools have helpers in sessions of their own.
        for process in processes::of(self.dir) {
            processes::signal(process.pid, nix::sys::signal::Signal::SIGTERM);
        }
        pause(Duration::from_millis(500));
        processes::end_all(self.dir);
    }
}

impl Peer<'_> {
    /// The pids of the application.
    fn application(&self) -> Vec<i32> {
        processes::of(self.dir)
            .into_iter()
            .filter(|p| p.command.starts_with(self.word))
            .map(|p| p.pid)
            .collect()
    }

    /// Waits until the application sleeps, or makes it so.
    fn sleep(&self) {
        if self.ends {
            processes::end_all(self.dir);
            (self.start)();
        }
        let apps = || self.application();
        wait_until(
            &format!("{} puts its application to sleep", self.name),
            Duration::from_secs(60),
            || holds(apps().is_empty(), format!("{:?}", apps())),
        );
    }

    fn wake(&self, settings: &Settings) -> f64 {
        self.sleep();
        pause(settings.settle);
        ask(self.address, "bench").took()
    }

    fn memory(&self) -> f64 {
        procs::own_mib(
            &processes::of(self.dir)
                .iter()
                .map(|p| p.pid)
                .collect::<Vec<_>>(),
        )
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|l| l.local_addr())
        .unwrap()
}

/// Starts a program in the background, in a folder that its processes mention. Its end is not
/// awaited: it is ended by its folder.
fn background(dir: &Path, argv: &[&str]) {
    let log = fs::File::create(dir.join("peer.log")).unwrap();
    let mut command = Command::new(argv[0]);
    command
        .args(&argv[1..])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    let mut child = command.env("HOME", dir).spawn().unwrap();
    std::thread::spawn(move || child.wait());
}

/// Waits until a program listens there, without a request.
fn listening(address: SocketAddr) {
    wait_until("the peer listens", LIMIT, || {
        let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
        let port = format!("0100007F:{:04X} 00000000:0000 0A", address.port());
        holds(table.contains(&port), "nobody listens")
    });
}

/// The rows of one peer: its wake and acc's, both over the own start of the same application.
fn compare(peer: &Peer<'_>, app: &App, settings: &Settings) -> Vec<Row> {
    let dir = folder();
    let Some(fixture) = Fixture::with(Combination::BUILTIN, |s| s.idle = "1h") else {
        return Vec::new();
    };
    fixture.model(app.model, &app.model_text());
    fixture.acc(&["create", "bench", "--model", app.model]).ok();
    (peer.start)();
    if !peer.ends {
        listening(peer.address);
        ask(peer.address, "bench");
    }
    let own_start = || {
        pause(settings.settle);
        app.own_start(dir.path(), dir.path())
    };
    let acc = || {
        fixture.acc(&["stop", "bench"]).ok();
        pause(settings.settle);
        ask(fixture.address(), &fixture.host("bench")).took()
    };
    let sides = vec![
        Side::new("own start", own_start),
        Side::new("acc", acc),
        Side::new(peer.name, || peer.wake(settings)),
    ];
    let round = Round::run(settings.peers, 1, sides);
    let took = |side: &str| round.sample(side, "ms", |v| *v).expect("taken");
    let row = |side: &str, what: String| {
        Row::added(
            GROUP,
            &what,
            (&took(side), &took("own start")),
            0.5,
            Goal::None,
        )
        .expect("one round")
    };
    peer.sleep();
    fixture.acc(&["stop", "bench"]).ok();
    let memory = Round::run(
        1,
        0,
        vec![
            Side::new("acc", || procs::own_mib(&procs::servers(&fixture))),
            Side::new(peer.name, || peer.memory()),
        ],
    );
    let used = |side: &str| memory.sample(side, "MiB", |v| *v).expect("taken");
    let ratio = Row::ratio(
        GROUP,
        &format!("memory at rest, acc against {}", peer.name),
        (&used("acc"), &used(peer.name)),
        0.5,
        Goal::None,
    );
    vec![
        row(peer.name, format!("wake, {}, {}", peer.name, app.name)),
        row(
            "acc",
            format!("wake, acc (builtin) beside {}, {}", peer.name, app.name),
        ),
        ratio
            .expect("one round")
            .note("own memory of all its processes, one application asleep"),
    ]
}

/// systemd-socket-proxyd, started by the first connection as its socket unit would, with the
/// application beside it.
fn socket_proxyd(settings: &Settings) -> Result<Vec<Row>, String> {
    let activate = need::find("systemd-socket-activate")
        .filter(|_| Path::new(PROXYD).is_file())
        .ok_or("not installed")?;
    let (dir, apps) = (folder(), folder());
    let app = App::tiny(apps.path())?;
    let (address, socket) = (free_address(), dir.path().join("app.sock"));
    let (tiny, socket) = (
        apps.path().join("tiny").display().to_string(),
        socket.display().to_string(),
    );
    // In place of systemd, a shell orders the start: it checks every millisecond.
    let script = format!(
        "rm -f {socket}; {tiny} --unix {socket} & while ! [ -S {socket} ]; do sleep 0.001; done; exec {PROXYD} {socket}"
    );
    let start = || {
        background(
            dir.path(),
            &[
                activate.to_str().unwrap(),
                "-l",
                &address.to_string(),
                "sh",
                "-c",
                &script,
            ],
        );
        listening(address);
    };
    let peer = Peer {
        name: "systemd-socket-proxyd",
        dir: dir.path(),
        address,
        start: Box::new(start),
        word: &tiny,
        ends: true,
    };
    Ok(compare(&peer, &app, settings))
}

/// Phusion Passenger, standalone, with its builtin engine.
fn passenger(settings: &Settings) -> Result<Vec<Row>, String> {
    let program = need::find("passenger").ok_or("not installed")?;
    let (dir, apps) = (folder(), folder());
    let app = App::tiny(apps.path())?;
    let (address, tiny) = (
        free_address(),
        apps.path().join("tiny").display().to_string(),
    );
    let at = |name: &str| dir.path().join(name).display().to_string();
    let start = || {
        let (port, command) = (address.port().to_string(), format!("{tiny} --port $PORT"));
        let (log, pid) = (at("passenger.log"), at("passenger.pid"));
        let argv = [
            program.to_str().unwrap(),
            "start",
            "--engine",
            "builtin",
            "--address",
            "127.0.0.1",
            "--port",
            &port,
            "--app-start-command",
            &command,
            "--min-instances",
            "0",
            "--pool-idle-time",
            "1",
            "--max-preloader-idle-time",
            "1",
            "--log-file",
            &log,
            "--pid-file",
            &pid,
            "--no-install-runtime",
            "--disable-security-update-check",
            "--disable-anonymous-telemetry",
        ];
        background(dir.path(), &argv);
    };
    let word = format!("{tiny} --port");
    let peer = Peer {
        name: "Passenger",
        dir: dir.path(),
        address,
        start: Box::new(start),
        word: &word,
        ends: false,
    };
    Ok(compare(&peer, &app, settings))
}

/// uWSGI's emperor with one vassal on demand.
fn emperor(settings: &Settings) -> Result<Vec<Row>, String> {
    let program = need::find("uwsgi").ok_or("not installed")?;
    let (dir, apps) = (folder(), folder());
    let script = apps.path().join("app.py").display().to_string();
    fs::write(
        &script,
        "def application(environ, start_response):\n    start_response(\"200 OK\", [(\"Content-Length\", \"6\")])\n    return [b\"hello\\n\"]\n",
    )
    .map_err(|e| e.to_string())?;
    let (uwsgi, address, vassals) = (
        program.display().to_string(),
        free_address(),
        dir.path().join("vassals"),
    );
    fs::create_dir_all(&vassals).map_err(|e| e.to_string())?;
    let vassal = format!(
        "[uwsgi]\nplugin = python3\nprotocol = http\nwsgi-file = {}\nmaster = true\nidle = 1\ndie-on-idle = true\n",
        script
    );
    fs::write(vassals.join("app.ini"), vassal).map_err(|e| e.to_string())?;
    fs::write(vassals.join("app.ini.socket"), address.to_string()).map_err(|e| e.to_string())?;
    let argv = [
        &uwsgi,
        "--plugin",
        "python3",
        "--master",
        "--http-socket",
        "SOCKET",
        "--wsgi-file",
        &script,
    ];
    let app = App {
        name: "uWSGI",
        model: "bench-uwsgi",
        argv: argv.map(String::from).into(),
        handed: None,
    };
    let start = || {
        let argv = [
            &uwsgi,
            "--emperor",
            vassals.to_str().unwrap(),
            "--emperor-on-demand-extension",
            ".socket",
            "--emperor-freq",
            "1",
        ];
        background(dir.path(), &argv);
    };
    let word = format!(
        "{} --ini",
        fs::canonicalize(&program)
            .unwrap_or(program.clone())
            .display()
    );
    let peer = Peer {
        name: "uWSGI emperor",
        dir: dir.path(),
        address,
        start: Box::new(start),
        word: &word,
        ends: false,
    };
    Ok(compare(&peer, &app, settings))
}

/// A function that measures one peer.
type Measure = fn(&Settings) -> Result<Vec<Row>, String>;

/// The rows of all peers.
pub fn measure(settings: &Settings) -> Report {
    let all: [(&str, Measure); 4] = [
        ("systemd-socket-proxyd", socket_proxyd),
        ("Phusion Passenger", passenger),
        ("uWSGI emperor", emperor),
        ("php-fpm ondemand", php),
    ];
    let mut report = Report::default();
    for (name, measure) in all {
        match measure(settings) {
            Ok(rows) => report.rows.extend(rows),
            Err(why) => report.rows.push(Row::skipped(GROUP, name, why)),
        }
    }
    report
}
