//! The probe of real sockets: clears the place before a start, and notices within a few milliseconds that somebody answers.
//!
//! It removes only what nobody answers on, and never ends a program that is in the way.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use nix::unistd::{Gid, Uid, User, chown, geteuid};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use super::notify::Said;
use super::wait::{Steps, pause};
use super::watch::Watcher;
use super::{Ear, Obstacle, Probe, Question, handed, health};
use crate::domain::instance::{Listen, Process};
use crate::driver::host::fs::{make_dir, remove_file};
use crate::driver::host::{net, peer};

/// Even when the folder is watched the socket is looked for this often: a watch may be lost.
const LOOK_ANYWAY: Duration = Duration::from_millis(100);

/// So much is shown of the command line of a program that is in the way.
const COMMAND_SHOWN: usize = 100;

/// What is told is the bind of a socket, and its listen follows a few microseconds later as a rule. So often it is tried again
/// at once, a tenth of a millisecond in all: any pause takes longer.
const AT_ONCE: u32 = 20;

/// To whom the folder of a socket belongs, so that the application can bind there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
}

impl Owner {
    /// The user that instances run as (`user` of the settings); `None` when they run as acc itself does.
    pub fn of(user: Option<&str>) -> Result<Option<Self>, String> {
        let Some(name) = user.filter(|_| geteuid().is_root()) else { return Ok(None) };
        match User::from_name(name) {
            Ok(Some(user)) => Ok(Some(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw() })),
            Ok(None) => Err(format!("there is no user `{name}` on this host")),
            Err(e) => Err(format!("could not look up user `{name}`: {e}")),
        }
    }
}

/// The probe of real sockets.
#[derive(Debug, Clone, Default)]
pub struct SocketProbe {
    owner: Option<Owner>,
    watcher: Watcher,
    said: Said,
}

impl SocketProbe {
    /// `owner`: who instances run as, when that is not who acc runs as.
    #[must_use]
    pub fn new(owner: Option<Owner>) -> Self {
        Self { owner, watcher: Watcher::default(), said: Said::default() }
    }

    /// Resolves once a connection is accepted from a socket that was handed over. The file is made on the way to the start, and is
    /// there as a rule.
    async fn accepted(&self, path: &Path, owner: Option<u32>) {
        let mut steps = Steps::SOCKET;
        loop {
            let stream = match connect(path) {
                Ok(stream) if peer::check(&stream, owner).is_ok() => stream,
                _ => connect_unix(&self.watcher, path, owner).await,
            };
            if let Ok(stream) = UnixStream::from_std(stream)
                && handed::is_taken(stream, path).await
            {
                return;
            }
            pause(steps.pause()).await;
        }
    }

    /// Makes the folder of a socket: for the application and for nginx's workers, who are the same user, and nobody else.
    fn make_folder(&self, dir: &Path) -> Result<(), String> {
        let failed = |e: &dyn std::fmt::Display| format!("the folder `{}` cannot be made: {e}", dir.display());
        if let Some(parent) = dir.parent() {
            // To be passed through on the way, not to be read.
            make_dir(parent, 0o711).map_err(|e| failed(&e))?;
        }
        make_dir(dir, 0o750).map_err(|e| failed(&e))?;
        match self.owner {
            Some(owner) => chown(dir, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid))).map_err(|e| failed(&e)),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Probe for SocketProbe {
    async fn clear(&self, question: &Question) -> Result<Option<Ear>, Obstacle> {
        match &question.listen {
            Listen::Unix(path) => {
                if let Some(dir) = path.parent() {
                    self.make_folder(dir).map_err(Obstacle::Other)?;
                }
                remove_stale(path).map_err(Obstacle::Other)?;
            }
            Listen::Tcp(address) => check_free(*address).await?,
        }
        let heard = question.notify.as_deref().map(|path| Ear::open(path, self.owner, self.said.clone()));
        heard.transpose().map_err(Obstacle::Other)
    }

    async fn ready(&self, question: &Question, who: Option<(Process, Ear)>) -> Duration {
        let owner = self.owner.map(|o| o.uid);
        if let Some((process, ear)) = &who {
            ear.hear(*process).await;
        }
        if let (true, None, Listen::Unix(path)) = (question.handed, &question.health, &question.listen) {
            // Its word alone is not enough: some say it before those are there who do the work (gunicorn's master).
            self.accepted(path, owner).await;
            return Duration::ZERO;
        }
        let mut unwell = Steps::HEALTH;
        let mut accepted = None;
        loop {
            let well = match &question.listen {
                Listen::Unix(path) => {
                    let stream = connect_unix(&self.watcher, path, owner).await;
                    is_well(|| UnixStream::from_std(stream), &mut accepted, question).await
                }
                Listen::Tcp(address) => {
                    let stream = connect_tcp(*address).await;
                    is_well(|| Ok(stream), &mut accepted, question).await
                }
            };
            if well && question.handed {
                // Connected to it was from the start.
                return Duration::ZERO;
            }
            if well {
                return accepted.map_or(Duration::ZERO, |a: Instant| a.elapsed());
            }
            pause(unwell.pause()).await;
        }
    }

    fn describe(&self, question: &Question) -> String {
        match question.notify.as_deref().and_then(|path| self.said.get(path)) {
            Some(status) if status.is_empty() => return "it to say `READY=1` on NOTIFY_SOCKET".to_owned(),
            Some(status) => return format!("it to say `READY=1` on NOTIFY_SOCKET (it last said `{status}`)"),
            None => {}
        }
        let place = match &question.listen {
            Listen::Unix(path) if fs::symlink_metadata(path).is_err() => return format!("the socket `{}` to appear", path.display()),
            Listen::Unix(path) => format!("`{}`", path.display()),
            Listen::Tcp(address) => format!("`{address}`"),
        };
        match &question.health {
            Some(path) => format!("a good answer to `{path}` on {place}"),
            None if question.handed => format!("it to accept a connection on {place}"),
            None => format!("a connection on {place}"),
        }
    }
}

/// Is it well, on this connection? The first one is remembered.
async fn is_well<S>(stream: impl FnOnce() -> io::Result<S>, accepted: &mut Option<Instant>, question: &Question) -> bool
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    accepted.get_or_insert_with(Instant::now);
    match &question.health {
        Some(path) => match stream() {
            Ok(stream) => health::is_well(stream, path, &question.host).await,
            Err(_) => false,
        },
        None => true,
    }
}

/// Removes a socket file that nobody answers on.
fn remove_stale(path: &Path) -> Result<(), String> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(format!("`{shown}` cannot be looked at: {e}")),
        Ok(meta) if !meta.file_type().is_socket() => return Err(format!("`{shown}` is in the way: it is not a socket")),
        Ok(_) => {}
    }
    match connect(path) {
        Ok(_) => Err(format!("another program answers on `{shown}`")),
        // Nobody listens there: left behind.
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => remove_file(path).map_err(|e| format!("`{shown}` cannot be removed: {e}")),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        // A full backlog is somebody, too.
        Err(e) if e.kind() == ErrorKind::WouldBlock => Err(format!("another program listens on `{shown}`")),
        Err(e) => Err(format!("`{shown}` cannot be tried: {e}")),
    }
}

/// Tries the port as a server would, without listening: nobody can connect meanwhile.
async fn check_free(address: SocketAddr) -> Result<(), Obstacle> {
    let bind = || -> io::Result<()> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())
    };
    match bind() {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::AddrInUse => Err(Obstacle::Port(taken(address).await)),
        Err(e) => Err(Obstacle::Other(format!("port {address} cannot be used: {e}"))),
    }
}

/// By whom, as far as acc may see it. All processes are looked at: beside what serves requests.
async fn taken(address: SocketAddr) -> String {
    let holders = tokio::task::spawn_blocking(move || net::holders(&net::listening(address))).await.unwrap_or_default();
    let shown = |command: &str| command.chars().take(COMMAND_SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    let by = holders.first().map(|l| format!(": pid {}, `{}`", l.pid, shown(&l.command))).unwrap_or_default();
    format!("port {address} is taken by another program{by}")
}

/// Connects, or says at once why not: the kernel makes a connection to a unix socket, or a full queue refuses it, while this
/// waits. The runtime would ask its reactor once more whether it is there, which costs a wake a thread's turn.
fn connect(path: &Path) -> io::Result<StdUnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket.into())
}

/// Resolves with a connection: told by the folder that the file has appeared, then by trying.
async fn connect_unix(watcher: &Watcher, path: &Path, owner: Option<u32>) -> StdUnixStream {
    // The watch comes first: a socket made between a look and the watch would be missed.
    let mut watch = path.parent().map(|dir| watcher.watch(dir));
    let (mut steps, mut at_once) = (Steps::SOCKET, AT_ONCE);
    loop {
        match connect(path) {
            Ok(stream) if peer::check(&stream, owner).is_ok() => return stream,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                (steps, at_once) = (Steps::SOCKET, AT_ONCE);
                match &mut watch {
                    Some(watch) => watch.change(LOOK_ANYWAY).await,
                    None => pause(LOOK_ANYWAY).await,
                }
            }
            Err(e) if e.kind() == ErrorKind::ConnectionRefused && at_once > 0 => {
                at_once -= 1;
                tokio::task::yield_now().await;
            }
            Ok(_) | Err(_) => pause(steps.pause()).await,
        }
    }
}

/// Resolves with a connection: by trying.
async fn connect_tcp(address: SocketAddr) -> TcpStream {
    let mut steps = Steps::PORT;
    loop {
        match TcpStream::connect(address).await {
            // With nobody there, the kernel may give the connection the very port that is asked for, and it reaches itself.
            Ok(stream) if stream.local_addr().is_ok_and(|own| own != address) => return stream,
            _ => pause(steps.pause()).await,
        }
    }
}
