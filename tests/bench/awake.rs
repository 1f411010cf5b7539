//! Awake instances: the cost of acc's edges compared with an nginx configured by hand, in front of
//! the same application.
//!
//! nginx edge: compared with a static vhost in the same nginx, with the same log. Builtin edge:
//! compared with another nginx with as many workers as acc has threads, a pool of connections to
//! the application and the same log. wrk sends requests to both sides in turn.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::Settings;
use super::apps::{App, LIMIT, ask, folder};
use super::procs;
use super::round::{Round, Side};
use super::table::{Goal, Report, Row};
use crate::support::wait::pause;
use crate::support::{Combination, Fixture, need, wait_until};

const GROUP: &str = "awake";
/// Connections held open without a request.
const IDLE: usize = 1000;

/// How long they have been silent when memory is measured. acc frees idle connections after a
/// second, and returns their memory to the host after another second; nginx does so with the
/// answer.
const SILENT: Duration = Duration::from_secs(4);

/// The figures that wrk prints.
#[derive(Debug, Clone, Copy)]
struct Load {
    per_second: f64,
    p99_ms: f64,
}

/// A number with a unit of time, as wrk prints it, in milliseconds.
fn time_ms(text: &str) -> Option<f64> {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let number: f64 = digits.parse().ok()?;
    match &text[digits.len()..] {
        "us" => Some(number / 1000.0),
        "ms" => Some(number),
        "s" => Some(number * 1000.0),
        "m" => Some(number * 60_000.0),
        _ => None,
    }
}

/// The figures of wrk's output; an error if an answer was not a success.
fn read_wrk(text: &str) -> Result<Load, String> {
    if let Some(line) = text
        .lines()
        .find(|l| l.contains("Non-2xx") || l.contains("Socket errors"))
    {
        return Err(line.trim().to_owned());
    }
    let after = |key: &str| {
        text.lines()
            .find_map(|l| l.trim().strip_prefix(key).map(str::trim))
    };
    let per_second = after("Requests/sec:").and_then(|v| v.parse().ok());
    let p99_ms = after("99%").and_then(time_ms);
    per_second
        .zip(p99_ms)
        .map(|(per_second, p99_ms)| Load { per_second, p99_ms })
        .ok_or_else(|| format!("not from wrk: {text}"))
}

/// One run of wrk with two threads.
fn wrk(to: SocketAddr, host: &str, path: &str, connections: usize, settings: &Settings) -> Load {
    let program = need::find("wrk").expect("looked for before");
    let mut command = Command::new(program);
    command
        .arg("-t2")
        .arg(format!("-c{connections}"))
        .arg(format!("-d{}s", settings.load_seconds))
        .arg("--latency");
    command
        .arg("-H")
        .arg(format!("Host: {host}"))
        .arg(format!("http://{to}{path}"));
    let done = command.output().unwrap();
    read_wrk(&String::from_utf8_lossy(&done.stdout))
        .unwrap_or_else(|e| panic!("wrk to {host} at {to}{path}: {e}"))
}

/// A server to measure: a name for the table, an address, a `Host`.
struct Front<'a> {
    name: &'a str,
    address: SocketAddr,
    host: String,
}

/// Both servers under the same load, in turn: throughput and p99 of the first against the second.
fn compare(
    what: &str,
    sides: &[Front<'_>; 2],
    path: &str,
    connections: usize,
    goals: (Goal, Goal),
    settings: &Settings,
) -> Vec<Row> {
    let side = |front: &'_ Front<'_>| {
        let (address, host) = (front.address, front.host.clone());
        Side::new(front.name, move || {
            wrk(address, &host, path, connections, settings)
        })
    };
    let round = Round::run(
        settings.loads,
        settings.warm.min(1),
        sides.iter().map(side).collect(),
    );
    let of = |front: &Front<'_>, unit, get: fn(&Load) -> f64| {
        round.sample(front.name, unit, get).expect("taken")
    };
    let pair = |unit, get| (of(&sides[0], unit, get), of(&sides[1], unit, get));
    let (rate, tail) = (pair("/s", |l| l.per_second), pair("ms", |l| l.p99_ms));
    let row = |word: &str, pair: &(_, _), goal| {
        Row::ratio(
            GROUP,
            &format!("{what}, {connections} connections, {word}"),
            (&pair.0, &pair.1),
            0.5,
            goal,
        )
        .expect("one round")
    };
    vec![
        row("throughput", &rate, goals.0),
        row("p99", &tail, goals.1),
    ]
}

/// The built-in template with one more server: what an admin would write by hand for this one
/// application.
fn with_static_vhost(templates: &Path, socket: &str, log: &Path) {
    let built_in = fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/nginx/nginx.conf"),
    )
    .unwrap();
    let vhost = format!(
        "
    server {{
{{%- for address in listen %}}
        listen {{{{ address }}}};
{{%- endfor %}}
        server_name by-hand.bench;
        location / {{
            proxy_set_header Host $host;
            proxy_set_header Connection \"\";
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_pass http://unix:{socket}:;
            access_log \"{}\" acc;
        }}
    }}
}}
",
        log.display()
    );
    let text = built_in
        .trim_end()
        .strip_suffix('}')
        .expect("the template ends with the end of http")
        .to_owned()
        + &vhost;
    fs::create_dir_all(templates.join("nginx")).unwrap();
    fs::write(templates.join("nginx/nginx.conf"), text).unwrap();
}

/// The nginx edge against a static vhost.
pub fn nginx(settings: &Settings) -> Report {
    let (dir, mut report) = (folder(), Report::default());
    let app = match ready(&dir) {
        Ok(app) => app,
        Err(why) => {
            report
                .rows
                .push(Row::skipped(GROUP, "awake, nginx edge", why));
            return report;
        }
    };
    let templates = dir.path().join("templates");
    let combination = Combination {
        edge: "nginx",
        supervisor: "builtin",
    };
    let Some(fixture) = Fixture::unbooted(combination, |s| {
        s.idle = "1h";
        s.edge = format!("templates = \"{}\"", templates.display());
    }) else {
        report.rows.push(Row::skipped(
            GROUP,
            "awake, nginx edge",
            "not installed: nginx",
        ));
        return report;
    };
    let socket = fixture.run().join("sock/bench/app.sock");
    with_static_vhost(
        &templates,
        &socket.display().to_string(),
        &dir.path().join("by-hand.log"),
    );
    fixture.acc(&["boot"]).ok();
    awake(&fixture, &app);
    assert_eq!(
        fixture.info("bench")["listen"]["unix"],
        socket.display().to_string(),
        "the vhost by hand leads to the instance"
    );
    let sides = [
        Front {
            name: "acc",
            address: fixture.address(),
            host: fixture.host("bench"),
        },
        Front {
            name: "static vhost",
            address: fixture.address(),
            host: "by-hand.bench".to_owned(),
        },
    ];
    let goals = (Goal::AtLeast(0.95), Goal::AtMost(1.1));
    for connections in settings.connections() {
        report.rows.extend(compare(
            "awake, nginx edge",
            &sides,
            "/",
            *connections,
            goals,
            settings,
        ));
    }
    report
}

/// The tiny application; an error says what is missing.
fn ready(dir: &tempfile::TempDir) -> Result<App, String> {
    if need::find("wrk").is_none() || need::find("nginx").is_none() {
        return Err("not installed: wrk or nginx".to_owned());
    }
    super::limits::raise_open_files();
    App::tiny(dir.path())
}

/// Creates the instance and sends it one request.
fn awake(fixture: &Fixture, app: &App) {
    fixture.model(app.model, &app.model_text());
    fixture.acc(&["create", "bench", "--model", app.model]).ok();
    ask(fixture.address(), &fixture.host("bench"));
}

/// The benchmark's own nginx, ended when the value is dropped.
struct Nginx {
    child: Child,
    address: SocketAddr,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.child.id().cast_signed()),
            nix::sys::signal::Signal::SIGTERM,
        );
        let _ = self.child.wait();
    }
}

impl Nginx {
    /// In front of this socket, with a pool of 64 connections to it.
    fn start(dir: &Path, socket: &str) -> Self {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|l| l.local_addr())
            .unwrap();
        let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let place = dir.join("nginx");
        fs::create_dir_all(&place).unwrap();
        let text = format!(
            "daemon off; pid nginx.pid; error_log error.log; worker_processes {workers};
{}
events {{ worker_connections 8192; }}
http {{
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
    log_format acc '$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \"$http_referer\" \"$http_user_agent\" $request_time';
    access_log access.log acc buffer=64k flush=1s;
    keepalive_requests 1000000;
    proxy_buffering off;
    proxy_buffer_size 32k;
    proxy_buffers 4 32k;
    upstream app {{ server unix:{socket}; keepalive 64; keepalive_requests 1000000; }}
    server {{
        listen {address} backlog=4096;
        location / {{
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Host $host;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_pass http://app;
        }}
    }}
}}
",
            if need::is_root() { "user root;" } else { "" }
        );
        fs::write(place.join("nginx.conf"), text).unwrap();
        let mut command = Command::new(need::find("nginx").expect("looked for before"));
        command
            .arg("-p")
            .arg(&place)
            .args(["-c", "nginx.conf"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // nginx prints its first messages before it has read where its log is.
        command.arg("-e").arg("error.log");
        let nginx = Self {
            child: command.spawn().unwrap(),
            address,
        };
        wait_until("nginx listens", LIMIT, || {
            let said = |e| {
                format!(
                    "{e}; {}",
                    fs::read_to_string(place.join("error.log")).unwrap_or_default()
                )
            };
            std::net::TcpStream::connect(address)
                .map(drop)
                .map_err(said)
        });
        nginx
    }
}

/// The builtin edge against nginx with a pool.
pub fn builtin(settings: &Settings) -> Report {
    let (dir, mut report) = (folder(), Report::default());
    let app = match ready(&dir) {
        Ok(app) => app,
        Err(why) => {
            report
                .rows
                .push(Row::skipped(GROUP, "awake, builtin edge", why));
            return report;
        }
    };
    let Some(fixture) = Fixture::with(Combination::BUILTIN, |s| s.idle = "1h") else {
        return report;
    };
    awake(&fixture, &app);
    let nginx = Nginx::start(
        dir.path(),
        fixture.info("bench")["listen"]["unix"]
            .as_str()
            .expect("a unix socket"),
    );
    let sides = [
        Front {
            name: "acc",
            address: fixture.address(),
            host: fixture.host("bench"),
        },
        Front {
            name: "nginx, keepalive 64",
            address: nginx.address,
            host: "bench".to_owned(),
        },
    ];
    report
        .rows
        .extend(memory(&fixture, &nginx, &sides, settings));
    let goals = (Goal::AtLeast(1.0), Goal::AtMost(1.2));
    for (path, size) in [("/", "small answers"), ("/big", "1 MiB answers")] {
        for connections in settings.connections() {
            report.rows.extend(compare(
                &format!("awake, builtin edge, {size}"),
                &sides,
                path,
                *connections,
                goals,
                settings,
            ));
        }
    }
    report
}

/// Memory while many connections are open and silent, each after one request; measured on servers
/// that have done nothing else yet.
fn memory(
    fixture: &Fixture,
    nginx: &Nginx,
    sides: &[Front<'_>; 2],
    settings: &Settings,
) -> Vec<Row> {
    let count = if settings.quick { 20 } else { IDLE };
    let held = |front: &Front<'_>, pids: &[i32]| {
        let before = procs::own_mib(pids);
        let open: Vec<_> = (0..count)
            .map(|_| procs::idle_connection(front.address, &front.host))
            .collect();
        pause(SILENT);
        let with = procs::own_mib(pids);
        drop(open);
        (with, with - before)
    };
    let (acc, other) = (
        procs::servers(fixture),
        procs::family(nginx.child.id().cast_signed()),
    );
    let take = vec![
        Side::new(sides[0].name, || held(&sides[0], &acc)),
        Side::new(sides[1].name, || held(&sides[1], &other)),
    ];
    // One round only: a server keeps the memory of the first connections for later ones.
    let round = Round::run(1, 0, take);
    let pair = |get: fn(&(f64, f64)) -> f64| {
        let of = |front: &Front<'_>| round.sample(front.name, "MiB", get).expect("taken");
        (of(&sides[0]), of(&sides[1]))
    };
    let (all, more) = (pair(|v| v.0), pair(|v| v.1));
    let what = format!("memory at {count} idle keep-alive connections, builtin edge");
    vec![
        Row::ratio(GROUP, &what, (&all.0, &all.1), 0.5, Goal::AtMost(1.0))
            .expect("one round")
            .note("own memory of all processes"),
        Row::ratio(
            GROUP,
            &format!("{what}: growth"),
            (&more.0, &more.1),
            0.5,
            Goal::None,
        )
        .expect("one round")
        .note("above none"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRK: &str = "Running 1s test @ http://127.0.0.1:1/
  2 threads and 32 connections
  Latency Distribution
     50%  371.00us
     99%    1.92ms
  84911 requests in 1.10s, 14.25MB read
Requests/sec:  77171.30
Transfer/sec:     12.95MB
";

    #[test]
    fn wrk_is_understood_and_its_errors_are_not_passed_over() {
        let load = read_wrk(WRK).unwrap();
        assert_eq!((load.per_second, load.p99_ms), (77171.3, 1.92));
        assert_eq!(
            (time_ms("371.00us"), time_ms("1.5s"), time_ms("?")),
            (Some(0.371), Some(1500.0), None)
        );
        let bad = WRK.to_owned() + "  Non-2xx or 3xx responses: 12\n";
        assert_eq!(read_wrk(&bad).unwrap_err(), "Non-2xx or 3xx responses: 12");
        assert!(read_wrk("").is_err());
    }
}
