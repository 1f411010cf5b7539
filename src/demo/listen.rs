//! Where the demo application listens: a unix socket or a loopback port, both with a long backlog,
//! or a socket that is passed in.
//!
//! It removes a socket left by an earlier run and nothing else. It never removes its own at the
//! end, because its supervisor may have started the next one there already.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;

/// A connection of either kind.
pub(super) type DemoStream = Either<UnixStream, TcpStream>;

/// Connections that the kernel queues until they are accepted: hundreds of first requests may
/// arrive within one millisecond.
const BACKLOG: i32 = 4096;

/// A listening socket of either kind.
pub(super) enum DemoListener {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener),
}

impl DemoListener {
    /// Binds and listens.
    pub(super) fn bind(socket: Option<&Path>, port: Option<u16>) -> anyhow::Result<Self> {
        match (socket, port) {
            (Some(path), None) => unix(path),
            (None, None) => handed(),
            (None, Some(port)) => {
                tcp(port).with_context(|| format!("could not listen on port `{port}`"))
            }
            (Some(_), Some(_)) => bail!("`--socket` and `--port` exclude each other"),
        }
    }

    /// Accepts the next connection.
    pub(super) async fn accept(&self) -> io::Result<DemoStream> {
        match self {
            Self::Unix(listener, _) => Ok(Either::Left(listener.accept().await?.0)),
            Self::Tcp(listener) => {
                let stream = listener.accept().await?.0;
                stream.set_nodelay(true)?;
                Ok(Either::Right(stream))
            }
        }
    }

    /// The address for people, and for a test that let the kernel choose the port.
    pub(super) fn address(&self) -> String {
        match self {
            Self::Unix(_, path) => path.display().to_string(),
            Self::Tcp(listener) => listener
                .local_addr()
                .map_or_else(|_| "an unknown address".to_owned(), |a| a.to_string()),
        }
    }
}

fn unix(path: &Path) -> anyhow::Result<DemoListener> {
    remove_stale(path)?;
    let bind = || -> io::Result<UnixListener> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        // The folder decides who may connect, not the umask at the start.
        fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        UnixListener::from_std(socket.into())
    };
    let listener = bind().with_context(|| format!("could not listen on `{}`", path.display()))?;
    Ok(DemoListener::Unix(listener, path.to_owned()))
}

/// The first socket that the parent process passed in.
fn handed() -> anyhow::Result<DemoListener> {
    let mut given = listenfd::ListenFd::from_env();
    let listener = given
        .take_unix_listener(0)
        .context("cannot use the socket that was passed in")?;
    let Some(listener) = listener else {
        bail!("give `--socket` or `--port`, or pass in a socket")
    };
    let address = listener
        .local_addr()
        .ok()
        .and_then(|a| a.as_pathname().map(Path::to_owned))
        .unwrap_or_default();
    listener.set_nonblocking(true)?;
    Ok(DemoListener::Unix(
        UnixListener::from_std(listener)?,
        address,
    ))
}

fn tcp(port: u16) -> io::Result<DemoListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(DemoListener::Tcp(TcpListener::from_std(socket.into())?))
}

fn remove_stale(path: &Path) -> anyhow::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path)
            .with_context(|| format!("could not remove the old socket `{}`", path.display())),
        Ok(_) => bail!("`{}` exists and is not a socket", path.display()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e).with_context(|| format!("could not check `{}`", path.display())),
    }
}
