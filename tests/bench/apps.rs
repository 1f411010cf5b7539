//! The applications that are woken, and their own start: how long each start takes without acc, the
//! reference of every wake.
//!
//! With and without acc it is the same program with the same arguments, listening in the same way,
//! as the same user.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::support::wait::pause;
use crate::support::{installed, need, now};

/// Pause between two checks whether an application answers.
const LOOK: Duration = Duration::from_micros(200);
/// Longest time any start or wake may take.
pub const LIMIT: Duration = Duration::from_secs(30);

/// An application that can be woken.
pub struct App {
    /// The name in the tables.
    pub name: &'static str,
    /// The model made for it.
    pub model: &'static str,
    /// Program and arguments; `SOCKET` stands for the path of its socket.
    pub argv: Vec<String>,
    /// The same for an application that gets its socket from acc; the reference is still the start
    /// on a socket of its own.
    pub handed: Option<Vec<String>>,
}

impl App {
    /// The smallest one: a C program of the benchmark itself, compiled into `dir`. An error says
    /// why this failed.
    pub fn tiny(dir: &Path) -> Result<Self, String> {
        let compiler = need::find("cc").ok_or("not installed: cc")?;
        let program = dir.join("tiny");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/tiny.c");
        let done = Command::new(compiler)
            .args(["-O2", "-o"])
            .arg(&program)
            .arg(&source)
            .output()
            .map_err(|e| e.to_string())?;
        if !done.status.success() {
            return Err(format!(
                "it does not compile: {}",
                String::from_utf8_lossy(&done.stderr)
            ));
        }
        let argv = vec![text(&program), "--unix".into(), "SOCKET".into()];
        Ok(Self {
            name: "tiny",
            model: "bench-tiny",
            argv,
            handed: Some(vec![text(&program), "--fd".into(), "3".into()]),
        })
    }

    /// Flask under gunicorn, both from PyPI. An error says why it is not available.
    pub fn flask(dir: &Path) -> Result<Self, String> {
        let venv = installed::flask()?;
        let source = "from flask import Flask\n\napp = Flask(__name__)\n\n\n@app.get(\"/\")\ndef home():\n    return \"hello\\n\"\n";
        fs::write(dir.join("benchapp.py"), source).map_err(|e| e.to_string())?;
        let argv = [
            text(&venv.join("bin/gunicorn")),
            "--chdir".into(),
            text(dir),
            "--bind".into(),
            "unix:SOCKET".into(),
            "benchapp:app".into(),
        ];
        Ok(Self {
            name: "Flask under gunicorn",
            model: "bench-flask",
            argv: argv.into(),
            handed: None,
        })
    }

    /// Node's own HTTP server. An error says why it is not available.
    pub fn node(dir: &Path) -> Result<Self, String> {
        let node = need::find("node").ok_or("not installed: node")?;
        let program = dir.join("app.js");
        let source = "require('node:http').createServer((_, answer) => answer.end('hello\\n')).listen(process.argv[2]);\n";
        fs::write(&program, source).map_err(|e| e.to_string())?;
        Ok(Self {
            name: "Node",
            model: "bench-node",
            argv: vec![text(&node), text(&program), "SOCKET".into()],
            handed: None,
        })
    }

    /// Its `model.toml`.
    pub fn model_text(&self) -> String {
        self.text(&self.argv, "unix")
    }

    /// The model for an application that gets its socket from acc; the usual model if the
    /// application cannot do this.
    pub fn handed_model_text(&self) -> String {
        self.handed
            .as_ref()
            .map_or_else(|| self.model_text(), |argv| self.text(argv, "fd"))
    }

    fn text(&self, argv: &[String], listen: &str) -> String {
        let argv: Vec<String> = argv
            .iter()
            .map(|a| format!("{:?}", a.replace("SOCKET", "{{ socket }}")))
            .collect();
        format!(
            "description = \"{}\"\nlisten = \"{listen}\"\ncommand = [{}]\n",
            self.name,
            argv.join(", ")
        )
    }

    /// Starts the application without acc, with requests every 0.2 ms, and returns the time from
    /// the spawn to the first byte of its first answer, in milliseconds. The application runs in
    /// `dir`, listens in `sockets`, and is ended before this returns.
    pub fn own_start(&self, dir: &Path, sockets: &Path) -> f64 {
        let socket = sockets.join("own.sock");
        let _ = fs::remove_file(&socket);
        let argv: Vec<String> = self
            .argv
            .iter()
            .map(|a| a.replace("SOCKET", &text(&socket)))
            .collect();
        let mut command = Command::new(&argv[0]);
        command
            .args(&argv[1..])
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", dir)
            .env("LANG", "C.UTF-8");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir(dir)
            .process_group(0);
        let began = now();
        let mut child = command.spawn().unwrap();
        while !answers(&socket) {
            assert!(
                began.elapsed() < LIMIT,
                "{} does not answer by itself",
                self.name
            );
            pause(LOOK);
        }
        let took = ms(began.elapsed());
        let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
        let _ = child.wait();
        took
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Milliseconds.
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// One request over a unix socket; true once the first byte of an answer has arrived.
fn answers(socket: &Path) -> bool {
    let Ok(mut stream) = UnixStream::connect(socket) else {
        return false;
    };
    let mut first = [0; 12];
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: own\r\nConnection: close\r\n\r\n")
        .is_ok()
        && stream.read_exact(&mut first).is_ok()
        && first.starts_with(b"HTTP/1.1 200")
}

/// A folder for the benchmark itself, with a short path, that every user may enter; removed when
/// the value is dropped.
pub fn folder() -> tempfile::TempDir {
    let dir = tempfile::Builder::new()
        .prefix("accb")
        .rand_bytes(5)
        .tempdir_in("/tmp")
        .unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// When a request was sent and when the first byte of its answer arrived, in microseconds of the
/// boot clock.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// Before the connect.
    pub sent_us: f64,
    /// The first byte.
    pub first_byte_us: f64,
}

impl Asked {
    /// The time between the two, in milliseconds.
    pub fn took(&self) -> f64 {
        (self.first_byte_us - self.sent_us) / 1000.0
    }
}

/// The boot clock, as acc's events use it, in microseconds.
pub fn clock_us() -> f64 {
    let t = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).unwrap();
    #[expect(
        clippy::cast_precision_loss,
        reason = "2^52 microseconds are 142 years"
    )]
    let (seconds, nanos) = (t.tv_sec() as f64, t.tv_nsec() as f64);
    seconds * 1e6 + nanos / 1e3
}

/// Sends a request on a new connection and reads the answer, which must be a 200.
pub fn ask(to: SocketAddr, host: &str) -> Asked {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let sent_us = clock_us();
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = vec![0; 4096];
    let first = stream.read(&mut answer).unwrap();
    let first_byte_us = clock_us();
    answer.truncate(first);
    stream.read_to_end(&mut answer).unwrap();
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "not a 200: {}",
        String::from_utf8_lossy(&answer)
    );
    Asked {
        sent_us,
        first_byte_us,
    }
}
