//! What the tests stand on: [`Fixture`] (proxy, fake service and application, each on its own
//! sockets) and small clients.

mod door;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::domain::account::Account;
use crate::domain::admission::Refusal;
use crate::domain::instance::Listen;
use crate::domain::lifecycle::Phase;
use crate::domain::name::{HostName, InstanceName};
use crate::domain::rule::Verdict;
use crate::driver::edge::Gate;
use crate::driver::upstream::Upstreams;
use crate::host::io_threads::IoThreads;
use crate::host::listen;
use crate::proxy::access_log::AccessLog;
use crate::proxy::listen::ProxyListener;
use crate::proxy::{Front, Proxy, ProxySettings, ServeReport, ShutdownSignals, serve};
use crate::render::Templates;
use crate::render::pages::Pages;
use crate::service::admission::{Admission, Admitted, Ticket, Waiting};
pub use door::FakeDoor;

/// No test waits longer than this for anything.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until `is` holds.
pub async fn until(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if is() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("waited in vain: {what}");
}

/// What the application saw.
#[derive(Default)]
pub struct Seen {
    pub requests: AtomicUsize,
    pub connections: AtomicUsize,
    pub open: AtomicUsize,
    pub produced: AtomicUsize,
    pub aborted: AtomicUsize,
}

/// A small application on a unix socket.
pub struct App {
    pub path: PathBuf,
    pub seen: Arc<Seen>,
    task: JoinHandle<()>,
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

pub fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed_unsync()
}

impl App {
    pub fn start(path: PathBuf) -> Self {
        let listener = UnixListener::bind(&path).unwrap();
        let seen = Arc::new(Seen::default());
        let mine = seen.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                mine.connections.fetch_add(1, Ordering::SeqCst);
                mine.open.fetch_add(1, Ordering::SeqCst);
                let seen = mine.clone();
                connections.spawn(async move {
                    let inner = seen.clone();
                    let service = service_fn(move |req| answer(req, inner.clone()));
                    let io = TokioIo::new(socket);
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(io, service)
                        .with_upgrades()
                        .await;
                    seen.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { path, seen, task }
    }
}

async fn answer(req: Request<Incoming>, seen: Arc<Seen>) -> Result<Response<Body>, Infallible> {
    seen.requests.fetch_add(1, Ordering::SeqCst);
    let path = req.uri().path().to_owned();
    Ok(match path.as_str() {
        "/echo" => echo(req, &seen).await,
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(150)).await;
            Response::new(full("slow"))
        }
        "/never" => {
            let guard = Aborted(seen);
            std::future::pending::<()>().await;
            drop(guard);
            Response::new(full(""))
        }
        "/stream" => Response::new(stream(20, 1, Duration::from_millis(20), seen)),
        // More than the buffers on the way, and read in less than a parked connection lives.
        "/large" => Response::new(stream(32, 64 * 1024, Duration::ZERO, seen)),
        "/four" => Response::new(stream(64, 64 * 1024, Duration::ZERO, seen)),
        "/big-stream" => {
            let builder = Response::builder().header("x-accel-buffering", "no");
            builder
                .body(stream(1024, 64 * 1024, Duration::ZERO, seen))
                .unwrap()
        }
        "/big" => Response::new(stream(1024, 64 * 1024, Duration::ZERO, seen)),
        "/empty" => Response::builder()
            .status(StatusCode::NO_CONTENT)
            .body(full(""))
            .unwrap(),
        "/switch" => Response::builder()
            .status(101)
            .header("upgrade", "x")
            .header("connection", "upgrade")
            .body(full(""))
            .unwrap(),
        "/ws" => websocket(req),
        "/ws-deaf" => websocket_that_stays(req, false),
        "/ws-mute" => websocket_that_stays(req, true),
        _ => Response::builder()
            .header("x-app", "yes")
            .header("keep-alive", "timeout=5")
            .body(full("hello"))
            .unwrap(),
    })
}

struct Aborted(Arc<Seen>);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.aborted.fetch_add(1, Ordering::SeqCst);
    }
}

async fn echo(req: Request<Incoming>, seen: &Arc<Seen>) -> Response<Body> {
    let mut text = format!("{} {}\n", req.method(), req.uri());
    let headers: BTreeMap<String, Vec<String>> = req
        .headers()
        .keys()
        .map(|name| {
            let all = req
                .headers()
                .get_all(name)
                .iter()
                .map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
            (name.to_string(), all.collect())
        })
        .collect();
    for (name, values) in headers {
        text.push_str(&format!("{name}: {}\n", values.join(" | ")));
    }
    let mut body = req.into_body();
    let (mut hash, mut size) = (Sha256::new(), 0);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                if let Some(data) = frame.data_ref() {
                    hash.update(data);
                    size += data.len();
                }
            }
            Err(_) => {
                seen.aborted.fetch_add(1, Ordering::SeqCst);
                return Response::builder()
                    .status(400)
                    .body(full("broken"))
                    .unwrap();
            }
        }
    }
    text.push_str(&format!("body: {size} {}\n", hex(&hash.finalize())));
    Response::new(full(text))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn stream(count: usize, size: usize, pause: Duration, seen: Arc<Seen>) -> Body {
    let pieces = futures_util::stream::unfold((0, Aborted(seen)), move |(at, guard)| async move {
        if at == count {
            std::mem::forget(guard);
            return None;
        }
        tokio::time::sleep(pause).await;
        guard.0.produced.fetch_add(size, Ordering::SeqCst);
        Some((
            Ok(Frame::data(Bytes::from(vec![b'a' + (at % 26) as u8; size]))),
            (at + 1, guard),
        ))
    });
    StreamBody::new(pieces).boxed_unsync()
}

/// Upgrades and sends everything back, beginning with a greeting right behind the head.
fn websocket(req: Request<Incoming>) -> Response<Body> {
    if req
        .headers()
        .get("upgrade")
        .is_none_or(|to| to != "websocket")
    {
        return Response::builder()
            .status(400)
            .body(full("not an upgrade"))
            .unwrap();
    }
    tokio::spawn(async move {
        let mut io = TokioIo::new(hyper::upgrade::on(req).await.unwrap());
        io.write_all(b"hello ").await.unwrap();
        let (mut from, mut to) = tokio::io::split(io);
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    });
    Response::builder()
        .status(101)
        .header("upgrade", "websocket")
        .header("connection", "upgrade")
        .body(full(""))
        .unwrap()
}

/// Upgrades and never closes; `mute`: ends its own direction.
fn websocket_that_stays(req: Request<Incoming>, mute: bool) -> Response<Body> {
    tokio::spawn(async move {
        let mut io = TokioIo::new(hyper::upgrade::on(req).await.unwrap());
        io.write_all(b"hello ").await.unwrap();
        if mute {
            io.shutdown().await.unwrap();
        }
        std::future::pending::<()>().await;
        drop(io);
    });
    Response::builder()
        .status(101)
        .header("upgrade", "websocket")
        .header("connection", "upgrade")
        .body(full(""))
        .unwrap()
}

/// Everything together.
pub struct Fixture {
    pub dir: tempfile::TempDir,
    pub app: App,
    pub admission: Arc<FakeDoor>,
    pub upstreams: Arc<Upstreams>,
    pub proxy: Arc<Proxy>,
    pub address: SocketAddr,
    pub wake_socket: PathBuf,
    pub stop: CancellationToken,
    pub hand_over: CancellationToken,
    pub served: Option<JoinHandle<ServeReport>>,
}

pub fn settings() -> ProxySettings {
    ProxySettings {
        wake_timeout: Duration::from_secs(10),
        stop_limit: Duration::ZERO,
        spool: std::env::temp_dir(),
        page_after: Duration::from_millis(100),
        max_body: 64 * 1024 * 1024,
        per_client: None,
        shared_addresses: Vec::new(),
        body_stall: Duration::from_secs(10),
        silent: None,
        rules: Vec::new(),
        trusted_proxies: crate::proxy::TrustedProxies::default(),
    }
}

impl Fixture {
    pub async fn new() -> Self {
        Self::with(settings(), true, DEADLINE).await
    }

    pub async fn with(settings: ProxySettings, pooling: bool, grace: Duration) -> Self {
        Self::logging(settings, pooling, grace, None).await
    }

    pub async fn logging(
        settings: ProxySettings,
        pooling: bool,
        grace: Duration,
        log: Option<AccessLog>,
    ) -> Self {
        Self::over(settings, pooling, grace, log, IoThreads::none()).await
    }

    /// With threads of their own for the connections, as acc has them.
    pub async fn on_io_threads() -> Self {
        Self::over(
            settings(),
            true,
            DEADLINE,
            None,
            IoThreads::start().unwrap(),
        )
        .await
    }

    async fn over(
        settings: ProxySettings,
        pooling: bool,
        grace: Duration,
        log: Option<AccessLog>,
        io_threads: IoThreads,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let app = App::start(dir.path().join("app"));
        let gate = Gate {
            name: InstanceName::parse("app").unwrap(),
            listen: Listen::Unix(app.path.clone()),
            run: 1,
            process: None,
            account: Account::SameAsAcc,
        };
        let door = Arc::new(FakeDoor::new(gate));
        let upstreams = Arc::new(Upstreams::new(pooling));
        let pages = Pages::new(Arc::new(Templates::new(None).unwrap())).unwrap();
        let proxy = Arc::new(Proxy::new(
            door.clone(),
            upstreams.clone(),
            settings,
            pages,
            log,
        ));
        let tcp = listen::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = tcp.local_addr().unwrap();
        let wake_socket = dir.path().join("wake");
        let unix = listen::unix(&wake_socket, 0o600, None).unwrap();
        let listeners = vec![
            ProxyListener::from_tcp(tcp, Front::Public).unwrap(),
            ProxyListener::from_unix(unix, Front::Wake).unwrap(),
        ];
        let ends = ShutdownSignals::default();
        let (stop, hand_over) = (ends.shutdown.clone(), ends.hand_over.clone());
        let served = Some(tokio::spawn(serve(
            listeners,
            proxy.clone(),
            io_threads,
            ends,
            grace,
        )));
        Self {
            dir,
            app,
            admission: door,
            upstreams,
            proxy,
            address,
            wake_socket,
            stop,
            hand_over,
            served,
        }
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Says `text` (with `\n` for line ends) on a new connection and reads until it is closed.
    pub async fn say(&self, text: &str) -> String {
        let mut socket = self.connect().await;
        socket
            .write_all(text.replace('\n', "\r\n").as_bytes())
            .await
            .unwrap();
        read_all(&mut socket).await
    }

    /// The same, as nginx would over the wake socket.
    pub async fn say_as_nginx(&self, text: &str) -> String {
        let mut socket = UnixStream::connect(&self.wake_socket).await.unwrap();
        socket
            .write_all(text.replace('\n', "\r\n").as_bytes())
            .await
            .unwrap();
        read_all(&mut socket).await
    }

    pub async fn get(&self, path: &str) -> String {
        self.say(&format!(
            "GET {path} HTTP/1.1\nHost: app.test\nConnection: close\n\n"
        ))
        .await
    }

    pub fn pooled(&self) -> u32 {
        self.upstreams.pooled(&self.admission.gate())
    }

    pub async fn finish(&mut self) -> ServeReport {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.served.take().unwrap())
            .await
            .unwrap()
            .unwrap()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if let Some(served) = &self.served {
            served.abort();
        }
        self.proxy.cut.cancel();
    }
}

pub async fn read_all(socket: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut text = Vec::new();
    let read = tokio::time::timeout(DEADLINE, socket.read_to_end(&mut text)).await;
    let Ok(read) = read else {
        panic!(
            "no end of the answer, but: {:?}",
            String::from_utf8_lossy(&text)
        )
    };
    if let Err(e) = read {
        text.extend(format!("\n[{e}]").bytes());
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Reads until `end` has come.
pub async fn read_to(socket: &mut (impl AsyncReadExt + Unpin), end: &str) -> String {
    let mut text = Vec::new();
    let mut byte = [0u8; 1];
    while !text.ends_with(end.as_bytes()) {
        let got = tokio::time::timeout(DEADLINE, socket.read(&mut byte))
            .await
            .expect("nothing comes")
            .unwrap();
        assert!(got > 0, "closed after {:?}", String::from_utf8_lossy(&text));
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

#[track_caller]
pub fn status(answer: &str) -> u16 {
    answer
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or_else(|| panic!("no answer: {answer:?}"))
}
