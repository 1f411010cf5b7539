//! The applications that are woken, and their own start: how long each takes alone, the reference
//! of every wake.
//!
//! Alone and under acc they are the same program with the same arguments, listening the same way,
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

/// Pause between two looks whether an application answers by itself.
const LOOK: Duration = Duration::from_micros(200);
/// Longest any start or wake may take.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Something that can be woken.
pub struct App {
    /// For people.
    pub name: &'static str,
    /// The model made for it.
    pub model: &'static str,
    /// Program and arguments; `SOCKET` stands for the path of its socket.
    pub argv: Vec<String>,
    /// The same for one that is handed its socket by acc; the reference stays the start on a socket
    /// of its own.
    pub handed: Option<Vec<String>>,
}

impl App {
    /// The smallest: a C program of the benchmark's own, compiled into `dir`. An error says why
    /// there is none.
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

    /// Flask under gunicorn, both from PyPI. An error says why there is none.
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

    /// Node's own HTTP server. An error says why there is none.
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

    /// The same when it is handed its socket; without a way for that, as ever.
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

    /// Starts it alone and returns how long it took from the spawn to the first byte of its first
    /// answer, in milliseconds; it is asked every 0.2 ms. It is ended before this returns. It runs
    /// in `dir` and listens in `sockets`.
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

/// One request over a unix socket; false until the first byte of an answer has come.
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

/// A folder for the bench itself, with a short path, that everybody may pass through; removed with
/// the value.
pub fn folder() -> tempfile::TempDir {
    let dir = tempfile::Builder::new()
        .prefix("accb")
        .rand_bytes(5)
        .tempdir_in("/tmp")
        .unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// When a request was sent and when the first byte of its answer came, in microseconds of the boot
/// clock.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// Before the connect.
    pub sent_us: f64,
    /// The first byte.
    pub first_byte_us: f64,
}

impl Asked {
    /// From one to the other, in milliseconds.
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

/// Sends a request on a fresh connection and reads the answer, which has to be a 200.
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
