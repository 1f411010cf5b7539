//! One nginx with its edge, applications that echo what they got, and a client that sends exactly
//! the bytes it is given.

mod application;

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};

use super::super::*;
use crate::config::{
    Config, EdgeConfig, EdgeKind, EventsConfig, IdleConfig, LogConfig, LogFormat, StopConfig,
    SupervisorKind, WakeConfig,
};
use crate::domain::account::Account;
use crate::domain::instance::Listen;
use crate::domain::name::HostName;
use crate::domain::port::PortRange;
use crate::domain::rule::Rule;
pub(super) use application::Seen;
use application::{answer, headers};

/// Whether the program is installed. Without it a test prints that, and fails in CI.
pub(super) fn need_nginx() -> bool {
    let found = program::find(&program::search_path()).is_ok();
    if !found {
        println!("skipped: nginx is not installed");
        assert!(
            std::env::vars().all(|(k, _)| k != "CI"),
            "nginx is needed in CI"
        );
    }
    found
}

pub(super) fn name(text: &str) -> InstanceName {
    InstanceName::parse(text).unwrap()
}

pub(super) fn host(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

/// Settings of an installation in this folder.
pub(super) fn config(dir: &Path, listen: SocketAddr) -> Config {
    Config {
        file: None,
        home: dir.join("h o;m{e"),
        run: dir.join("r"),
        domain: host("apps.localhost"),
        user: None,
        edge: EdgeConfig {
            kind: EdgeKind::Nginx,
            listen: vec![listen],
            max_body: 8 << 20,
            per_client: None,
            shared_addresses: Vec::new(),
            trusted_proxies: Vec::new(),
            public_scheme: crate::config::Scheme::Http,
            public_port: None,
            templates: None,
            user: None,
        },
        supervisor: SupervisorKind::Builtin,
        idle: IdleConfig {
            timeout: Duration::from_secs(1),
            min_awake: Duration::ZERO,
            check_every: None,
            silent_connections: None,
        },
        wake: WakeConfig {
            timeout: Duration::from_secs(1),
            page_after: Duration::from_secs(1),
            max_waiting: 1,
            max_at_once: 1,
            per_client: None,
        },
        stop: StopConfig {
            drain: Duration::from_secs(1),
            drain_streams: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
        },
        ports: PortRange {
            first: 20_000,
            last: 20_001,
        },
        log: LogConfig {
            level: "info".into(),
            format: LogFormat::Text,
        },
        events: EventsConfig {
            keep: 1,
            keep_for: Duration::from_secs(1),
        },
        limits: crate::config::LimitsConfig::default(),
        rules: Vec::new(),
    }
}

/// nginx, ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // SIGTERM to the master ends its workers too; SIGKILL would leave them.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// A whole installation of the edge.
pub(super) struct Fixture {
    running: Option<Running>,
    pub(super) edge: Arc<Nginx>,
    pub(super) config: Arc<Config>,
    pub(super) address: SocketAddr,
    pub(super) wake: Seen,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    pub(super) dir: tempfile::TempDir,
}

impl Fixture {
    /// Runs nginx without any route, and a wake server.
    pub(super) async fn start() -> Self {
        Self::start_with(|_, _| {}).await
    }

    /// The same with other settings; `change` may put templates into the folder.
    pub(super) async fn start_with(change: impl FnOnce(&mut Config, &Path)) -> Self {
        let mut fixture = Self::new(change);
        fixture.edge.prepare(&[]).await.unwrap();
        let wake_socket = fixture.config.wake_socket();
        fixture.wake = fixture.listen_unix("wake", &wake_socket);
        fixture.run().await;
        fixture
    }

    /// Nothing runs yet.
    pub(super) fn new(change: impl FnOnce(&mut Config, &Path)) -> Self {
        let dir = tempfile::Builder::new().prefix("acc").tempdir().unwrap();
        // Workers of an unprivileged user must be able to pass.
        std::fs::set_permissions(
            dir.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        let address = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let mut config = config(dir.path(), address);
        change(&mut config, dir.path());
        for folder in [&config.home, &config.run] {
            std::fs::create_dir_all(folder).unwrap();
        }
        let config = Arc::new(config);
        let edge = edge(config.clone());
        Self {
            running: None,
            edge,
            config,
            address,
            wake: Seen::default(),
            tasks: Vec::new(),
            dir,
        }
    }

    /// Starts nginx as a supervisor would and waits until it serves.
    pub(super) async fn run(&mut self) {
        let service = self.edge.service().unwrap().unwrap();
        let mut command = Command::new(&service.argv[0]);
        command
            .args(&service.argv[1..])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        self.running = Some(Running(command.spawn().unwrap()));
        self.until("nginx serves", || self.edge.running().unwrap().is_some())
            .await;
        while TcpStream::connect(self.address).await.is_err() {
            tokio::task::yield_now().await;
        }
    }

    /// Keeps the folder only.
    pub(super) fn into_dir(mut self) -> tempfile::TempDir {
        std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap())
    }

    /// Ends nginx.
    pub(super) fn stop(&mut self) {
        self.running = None;
    }

    /// Polls, for at most 20 seconds.
    pub(super) async fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(
                Instant::now() < deadline,
                "not within 20 s: {what}\n{}",
                self.error_log()
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn listen_unix(&mut self, who: &str, path: &Path) -> Seen {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(path).unwrap();
        let (seen, who) = (Seen::default(), who.to_owned());
        let kept = seen.clone();
        self.tasks.push(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, who.clone(), kept.clone()));
            }
        }));
        seen
    }

    /// Carries this until the test ends.
    pub(super) fn carry(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push(tokio::spawn(task));
    }

    /// An application on its unix socket, with its log folder; the gate is closed.
    pub(super) fn app(&mut self, who: &str) -> (Gate, Seen) {
        self.make_log_folder(who);
        let path = self.config.socket(who);
        let seen = self.listen_unix(who, &path);
        (
            Gate {
                name: name(who),
                listen: Listen::Unix(path),
                run: 1,
                process: None,
                account: Account::SameAsAcc,
            },
            seen,
        )
    }

    /// The same on TCP, with the route it needs.
    pub(super) async fn tcp_app(&mut self, who: &str) -> (Gate, Route, Seen) {
        self.make_log_folder(who);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, who) = (Seen::default(), who.to_owned());
        let (kept, route) = (
            seen.clone(),
            Route {
                name: name(&who),
                hosts: vec![],
                tcp: Some(address),
            },
        );
        let gate = Gate {
            name: name(&who),
            listen: Listen::Tcp(address),
            run: 1,
            process: None,
            account: Account::SameAsAcc,
        };
        self.tasks.push(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, who.clone(), kept.clone()));
            }
        }));
        (gate, route, seen)
    }

    /// What creating an instance makes.
    pub(super) fn make_log_folder(&self, who: &str) {
        std::fs::create_dir_all(self.config.access_log(who).parent().unwrap()).unwrap();
    }

    /// Sends these bytes and reads until nginx closes.
    pub(super) async fn send(&self, bytes: &[u8]) -> Answer {
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            let (mut read, mut write) = stream.split();
            let mut answer = Vec::new();
            // Both at once: nginx may answer and close before it has read everything.
            let _ = tokio::join!(write.write_all(bytes), read.read_to_end(&mut answer));
            answer
        };
        let bytes = tokio::time::timeout(Duration::from_secs(20), exchange)
            .await
            .expect("no answer within 20 s");
        let end = bytes
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .map_or(bytes.len(), |at| at + 4);
        Answer {
            head: String::from_utf8_lossy(&bytes[..end]).into_owned(),
            body: bytes[end..].to_vec(),
        }
    }

    pub(super) async fn get(&self, host: &str, path: &str) -> Answer {
        self.send(
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes(),
        )
        .await
    }

    pub(super) async fn post(&self, host: &str, path: &str, body: &[u8]) -> Answer {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.send(&[head.as_bytes(), body].concat()).await
    }

    pub(super) fn error_log(&self) -> String {
        std::fs::read_to_string(self.config.own_log("nginx-error")).unwrap_or_default()
    }

    pub(super) fn log(&self, path: &Path) -> Vec<String> {
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// An edge with these settings.
pub(super) fn edge(config: Arc<Config>) -> Arc<Nginx> {
    let templates = Templates::new(config.edge.templates.as_deref()).unwrap();
    Arc::new(Nginx::new(NginxSettings::new(config), Arc::new(templates)).unwrap())
}

/// A rule about paths that begin with this.
pub(super) fn uncounted_path(path: &str) -> Rule {
    Rule {
        path: Some(path.into()),
        wake: true,
        counts: false,
        ..Rule::default()
    }
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn status(&self) -> u16 {
        self.head
            .split(' ')
            .nth(1)
            .unwrap_or_else(|| panic!("no answer: {:?}", self.head))
            .parse()
            .unwrap()
    }
    pub(super) fn header(&self, name: &str) -> Option<String> {
        headers(&self.head, name).into_iter().next()
    }
    /// Which server answered: the name of an application, `wake`, or empty (nginx itself).
    pub(super) fn who(&self) -> String {
        self.header("x-who").unwrap_or_default()
    }
}
