//! The probe of real sockets: clears the address before a start, and notices within a few
//! milliseconds that the instance answers.
//!
//! It removes a socket only if no program answers on it, and never ends the program that is in the
//! way. The path of a socket belongs to acc: anything there that is not a socket is removed.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use super::backoff::{PortSteps, Steps};
use super::health::Unwell;
use super::inotify::{Watch, Watcher};
use super::notify::Statuses;
use super::{
    NotifySocket, Obstacle, Probe, ProbeTarget, Readiness, accepted, elsewhere, folder, health,
    place,
};
use crate::config::accounts::Owner;
use crate::domain::account::Account;
use crate::domain::instance::{Listen, Process};
use crate::driver::listener::{ListenerOwner, Listeners, shown};
use crate::host::fs::remove_file;
use crate::host::short_sleep::short_sleep;
use crate::host::{listening, net, removal, unix_connect};

/// Check this often even if the folder is watched: a watch may be lost.
const CHECK_ANYWAY: Duration = Duration::from_millis(100);

/// A program that listens on an instance's port for this long keeps it: the instance cannot be
/// reached there.
const STRANGER: Duration = Duration::from_secs(1);

/// inotify reports the bind of a socket; its listen usually follows a few microseconds later.
/// Connect this often without a pause, a tenth of a millisecond in all: any pause is longer.
const AT_ONCE: u32 = 20;

/// The probe of real sockets.
#[derive(Debug, Clone, Default)]
pub struct SocketProbe {
    /// nginx's workers; `None`: acc's own user.
    edge: Option<Owner>,
    /// Where to move a folder that is in the place of a socket.
    trash: PathBuf,
    listeners: Listeners,
    watcher: Watcher,
    statuses: Statuses,
    /// The last failed health check of each instance.
    unwell: Unwell,
    /// How many TCP ports are polled.
    waiting: Arc<AtomicU32>,
}

impl SocketProbe {
    /// `edge`: nginx's workers, if they are not acc's own user. `trash`: a folder of acc's on the file
    /// system of the sockets; `listeners`: remembers the listeners that were checked.
    #[must_use]
    pub fn new(edge: Option<Owner>, trash: PathBuf, listeners: Listeners) -> Self {
        Self {
            edge,
            trash,
            listeners,
            ..Self::default()
        }
    }

    /// Lets nginx's workers in before the instance counts as ready. If that fails, its requests go
    /// through acc, which can connect.
    fn open_to_edge(&self, target: &ProbeTarget) {
        if let Err(error) = self.let_edge_in(target) {
            tracing::warn!(host = %target.host, %error, "nginx's workers cannot connect to its socket");
        }
    }

    /// Resolves once a connection is accepted from a socket that was handed over. The start makes
    /// the file, so it usually exists.
    async fn accepted(&self, path: &Path, process: Option<Process>, account: &Account) {
        let mut steps = Steps::SOCKET;
        loop {
            let stream = match unix_connect::connect(path) {
                Ok(stream)
                    if self
                        .listeners
                        .is_own_unix(&stream, path, process, account, false) =>
                {
                    stream
                }
                _ => self.connect_unix(path, process, account).await.0,
            };
            if let Ok(stream) = UnixStream::from_std(stream)
                && accepted::is_taken(stream, path).await
            {
                return;
            }
            short_sleep(steps.pause()).await;
        }
    }

    /// Resolves with a connection to the instance's own listener: tries after an event reports the
    /// file. Returns the watch, if one was needed.
    async fn connect_unix(
        &self,
        path: &Path,
        process: Option<Process>,
        account: &Account,
    ) -> (StdUnixStream, Option<Watch>) {
        let own = |stream: &StdUnixStream, thorough| {
            self.listeners
                .is_own_unix(stream, path, process, account, thorough)
        };
        // The file often exists already, and a watch costs more than a try.
        if let Some(stream) = unix_connect::connect(path)
            .ok()
            .filter(|stream| own(stream, false))
        {
            return (stream, None);
        }
        // The watch begins before the next try: a socket made between the two would be missed.
        let mut watch = path.parent().map(|dir| self.watcher.watch(dir));
        let (mut steps, mut at_once) = (Steps::SOCKET, AT_ONCE);
        loop {
            match unix_connect::connect(path) {
                Ok(stream) if own(&stream, true) => return (stream, watch),
                Ok(_) => short_sleep(CHECK_ANYWAY).await,
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    (steps, at_once) = (Steps::SOCKET, AT_ONCE);
                    match &mut watch {
                        Some(watch) => watch.change(CHECK_ANYWAY).await,
                        None => short_sleep(CHECK_ANYWAY).await,
                    }
                }
                Err(e) if e.kind() == ErrorKind::ConnectionRefused && at_once > 0 => {
                    at_once -= 1;
                    tokio::task::yield_now().await;
                }
                Err(_) => short_sleep(steps.pause()).await,
            }
        }
    }

    /// Resolves with a connection to the instance's own listener, by polling. Nothing is sent
    /// before the listener's owner is known. The error names a program that has listened there
    /// instead for [`STRANGER`].
    async fn connect_tcp(
        &self,
        address: SocketAddr,
        process: Option<Process>,
        account: &Account,
    ) -> Result<TcpStream, String> {
        let waiting = WaitingCount::begin(&self.waiting);
        let (mut steps, mut strangers) = (PortSteps::default(), None);
        let (mut stranger, mut examined) = (None, false);
        loop {
            // Check for a listener without connecting.
            if matches!(listening::is_heard(address), Ok(false)) {
                stranger = None;
                short_sleep(steps.pause(waiting.count())).await;
                continue;
            }
            match TcpStream::connect(address).await {
                // Without a listener, the kernel may give the connection the very port it connects
                // to, and it reaches itself.
                Ok(stream) if stream.local_addr().is_ok_and(|own| own != address) => {
                    let Some(process) = process else {
                        return Ok(stream);
                    };
                    if self.listeners.is_known(address, process) {
                        return Ok(stream);
                    }
                    drop(stream);
                    match self.listeners.examine(address, process, account).await {
                        // The listener is known from now on, but this connection was made before.
                        Ok(ListenerOwner::Own) if !examined => {
                            examined = true;
                            continue;
                        }
                        Ok(ListenerOwner::Own) => {}
                        Ok(ListenerOwner::Stranger(who)) => {
                            if stranger.get_or_insert_with(Instant::now).elapsed() >= STRANGER {
                                return Err(who);
                            }
                            strangers.get_or_insert(Steps::STRANGER);
                        }
                        Ok(ListenerOwner::None) => stranger = None,
                        Err(error) => {
                            tracing::debug!(%address, %error, "could not find out which process listens")
                        }
                    }
                }
                _ => stranger = None,
            }
            let by = strangers
                .as_mut()
                .filter(|_| stranger.is_some())
                .map(Steps::pause);
            short_sleep(by.unwrap_or_else(|| steps.pause(waiting.count()))).await;
        }
    }

    /// Resolves once the instance answers and other clients can connect.
    async fn answered(
        &self,
        target: &ProbeTarget,
        process: Option<Process>,
        notify_socket: Option<NotifySocket>,
    ) -> Result<Readiness, String> {
        if let (Some(process), Some(notify_socket)) = (process, &notify_socket) {
            notify_socket.ready(process).await;
        }
        if let (true, None, Listen::Unix(path)) = (target.handed, &target.health, &target.listen) {
            // The report alone is not enough: some send it before their workers run (gunicorn's
            // master).
            self.accepted(path, process, &target.account).await;
            return Ok(Readiness::default());
        }
        let mut unwell = Steps::HEALTH;
        let mut accepted = None;
        loop {
            let (connected, watch) = match &target.listen {
                Listen::Unix(path) => {
                    let (stream, watch) = self.connect_unix(path, process, &target.account).await;
                    (Connected::Unix(stream), watch)
                }
                Listen::Tcp(address) => (
                    Connected::Tcp(self.connect_tcp(*address, process, &target.account).await?),
                    None,
                ),
            };
            let accepted = *accepted.get_or_insert_with(Instant::now);
            if connected.well(target, &self.unwell).await {
                self.unwell.forget(target);
                // A handed socket accepts connections from the start.
                let ago = if target.handed {
                    Duration::ZERO
                } else {
                    accepted.elapsed()
                };
                return Ok(Readiness { ago, watch });
            }
            short_sleep(unwell.pause()).await;
        }
    }
}

#[async_trait]
impl Probe for SocketProbe {
    async fn clear(&self, target: &ProbeTarget) -> Result<Option<NotifySocket>, Obstacle> {
        self.unwell.forget(target);
        match &target.listen {
            Listen::Unix(path) => {
                if let Some(dir) = path.parent() {
                    let made = folder::make(dir, &target.account, self.edge);
                    made.map_err(|e| {
                        Obstacle::Other(format!(
                            "could not create the folder `{}`: {e}",
                            dir.display()
                        ))
                    })?;
                }
                remove_stale(path, &self.trash)?;
            }
            Listen::Tcp(address) => check_free(*address).await?,
        }
        let heard = target
            .notify
            .as_deref()
            .map(|path| NotifySocket::open(path, &target.account, self.statuses.clone()));
        heard.transpose().map_err(Obstacle::Other)
    }

    fn evict(&self, target: &ProbeTarget) {
        if let Listen::Unix(path) = &target.listen
            && let Err(error) = remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "could not remove a socket of another program");
        }
    }

    fn at_once(&self, target: &ProbeTarget, process: Option<Process>) -> Option<Readiness> {
        let Listen::Unix(path) = &target.listen else {
            return None;
        };
        if target.handed || target.notify.is_some() || target.health.is_some() {
            return None;
        }
        // The child usually starts on this CPU: yield once, so that it can bind before the check.
        std::thread::yield_now();
        unix_connect::connect(path).ok().filter(|stream| {
            self.listeners
                .is_own_unix(stream, path, process, &target.account, false)
        })?;
        self.open_to_edge(target);
        Some(Readiness::default())
    }

    fn tidy(&self, target: &ProbeTarget) {
        if let Listen::Unix(path) = &target.listen {
            // The next start reports what cannot be removed now.
            let _ = remove_stale(path, &self.trash);
        }
    }

    async fn ready(
        &self,
        target: &ProbeTarget,
        process: Option<Process>,
        notify_socket: Option<NotifySocket>,
    ) -> Result<Readiness, String> {
        let answered = self.answered(target, process, notify_socket).await?;
        self.open_to_edge(target);
        Ok(answered)
    }

    fn let_edge_in(&self, target: &ProbeTarget) -> io::Result<bool> {
        match &target.listen {
            Listen::Unix(path) => folder::let_workers_in(path, &target.account, self.edge),
            Listen::Tcp(_) => Ok(false),
        }
    }

    async fn misplaced(&self, awake: &[(ProbeTarget, Process)]) -> Vec<Option<String>> {
        place::misplaced(&self.listeners, awake).await
    }

    async fn elsewhere(&self, target: &ProbeTarget, process: Process) -> Option<String> {
        let listen = target.listen.clone();
        tokio::task::spawn_blocking(move || elsewhere::of(&listen, process))
            .await
            .ok()
            .flatten()
    }

    fn describe(&self, target: &ProbeTarget) -> String {
        match target
            .notify
            .as_deref()
            .and_then(|path| self.statuses.get(path))
        {
            Some(status) if status.is_empty() => {
                return "`READY=1` on NOTIFY_SOCKET".to_owned();
            }
            Some(status) => {
                return format!("`READY=1` on NOTIFY_SOCKET (last status: `{status}`)");
            }
            None => {}
        }
        let place = match &target.listen {
            Listen::Unix(path) if fs::symlink_metadata(path).is_err() => {
                return format!("the socket `{}`", path.display());
            }
            Listen::Unix(path) => format!("`{}`", path.display()),
            Listen::Tcp(address) => format!("`{address}`"),
        };
        match &target.health {
            Some(path) => match self.unwell.get(target) {
                Some(said) => {
                    format!("a successful answer to `{path}` on {place} (last result: {said})")
                }
                None => format!("a successful answer to `{path}` on {place}"),
            },
            None if target.handed => format!("an accepted connection on {place}"),
            None => format!("a connection on {place}"),
        }
    }
}

/// Counts one polled port until it is dropped.
struct WaitingCount<'a>(&'a AtomicU32);

impl<'a> WaitingCount<'a> {
    fn begin(all: &'a AtomicU32) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Self(all)
    }

    fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for WaitingCount<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that was accepted.
enum Connected {
    Unix(StdUnixStream),
    Tcp(TcpStream),
}

impl Connected {
    /// Runs the health check, if there is one.
    async fn well(self, target: &ProbeTarget, unwell: &Unwell) -> bool {
        let Some(path) = &target.health else {
            return true;
        };
        let said = match self {
            Self::Unix(stream) => match UnixStream::from_std(stream) {
                Ok(stream) => health::ask(stream, path, &target.host).await,
                Err(e) => Err(e.to_string()),
            },
            Self::Tcp(stream) => health::ask(stream, path, &target.host).await,
        };
        said.map_err(|said| unwell.note(target, said)).is_ok()
    }
}

/// Removes a socket file on which no program answers, and anything that is not a socket.
fn remove_stale(path: &Path, trash: &Path) -> Result<(), Obstacle> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => {
            return Err(Obstacle::Other(format!(
                "`{shown}` cannot be examined: {e}"
            )));
        }
        Ok(meta) if !meta.file_type().is_socket() => {
            let removed = if meta.is_dir() {
                removal::discard(path, trash).map(drop)
            } else {
                remove_file(path)
            };
            return removed.map_err(|e| {
                Obstacle::Other(format!(
                    "`{shown}` is in the way and cannot be removed: {e}"
                ))
            });
        }
        Ok(_) => {}
    }
    match unix_connect::connect(path) {
        Ok(_) => Err(Obstacle::Socket(format!(
            "another program answers on `{shown}`"
        ))),
        // No program listens there: left by an earlier run.
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => remove_file(path)
            .map_err(|e| Obstacle::Other(format!("`{shown}` cannot be removed: {e}"))),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        // A full backlog has a listener, too.
        Err(e) if e.kind() == ErrorKind::WouldBlock => Err(Obstacle::Socket(format!(
            "another program listens on `{shown}`"
        ))),
        Err(e) => Err(Obstacle::Other(format!("`{shown}` cannot be tried: {e}"))),
    }
}

/// Binds the port as a server would, without listening: no client can connect meanwhile.
async fn check_free(address: SocketAddr) -> Result<(), Obstacle> {
    let bind = || -> io::Result<()> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())
    };
    match bind() {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::AddrInUse => Err(Obstacle::Port(taken(address).await)),
        Err(e) => Err(Obstacle::Other(format!(
            "port {address} cannot be used: {e}"
        ))),
    }
}

/// Which program has the port, as far as acc may see. It reads all processes, on a thread that
/// serves no requests.
async fn taken(address: SocketAddr) -> String {
    let holders = tokio::task::spawn_blocking(move || net::holders(&net::listening(address)))
        .await
        .unwrap_or_default();
    let by = holders
        .first()
        .map(|l| format!(": pid {}, `{}`", l.pid, shown(&l.command)))
        .unwrap_or_default();
    format!("port {address} is taken by another program{by}")
}
