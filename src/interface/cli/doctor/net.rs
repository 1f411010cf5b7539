//! The ports acc listens on, its own server, the owner lock, and whether the default domain leads here.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::{Finding, bad, ok, warn};
use crate::config::Config;
use crate::interface::control::{Reply, call};
use crate::service::error::{ServiceError, chain};
use crate::service::outcome::Outcome;
use crate::service::request::Request;

/// A slow name server must not hold up the rest.
const LOOKUP_LIMIT: Duration = Duration::from_secs(3);

pub(super) async fn all(config: &Config) -> Vec<Finding> {
    let (server, pid) = server(config).await;
    let holder = lock_holder(config);
    let mut findings = vec![server, lock(holder.as_ref())];
    findings.extend(config.edge.listen.iter().map(|address| port(*address, config, pid)));
    findings.push(domain(config).await);
    findings
}

/// Is it up? With its pid when it is.
async fn server(config: &Config) -> (Finding, Option<u32>) {
    match call(&config.control_socket(), &Request::Ping).await {
        Ok(Reply::NoServer) => (warn("the server is not running", "`acc boot` starts everything"), None),
        Ok(Reply::Answered(Ok(Outcome::Pong { pid, version, outdated }))) => {
            let own = env!("CARGO_PKG_VERSION");
            let what = format!("the server answers: pid {pid}, version {version}");
            let upgrade = "`acc boot` upgrades it; no request is lost";
            match (outdated, version == own) {
                (true, _) => (warn(format!("{what}; its program has been replaced since it was started"), upgrade), Some(pid)),
                (false, true) => (ok(what), Some(pid)),
                (false, false) => (warn(format!("{what}; this command is {own}"), "run the `acc` that is installed"), Some(pid)),
            }
        }
        Ok(Reply::Answered(Ok(other))) => {
            (bad(format!("the server answers a ping with {other:?}"), "restart it: `acc halt`, then `acc boot`"), None)
        }
        Ok(Reply::Answered(Err(error))) => (bad(error.message, error.hint), None),
        Err(error) => {
            let error = ServiceError::from(error);
            (bad(error.message, error.hint), None)
        }
    }
}

/// Who holds the owner lock. Read from the kernel's list: taking the lock to find out could make somebody else fail.
#[derive(Debug, PartialEq, Eq)]
enum Holder {
    Nobody,
    Process(Option<i32>),
}

fn lock_holder(config: &Config) -> Result<Holder, String> {
    let meta = match std::fs::metadata(config.owner_lock()) {
        Ok(meta) => meta,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Holder::Nobody),
        Err(e) => return Err(e.to_string()),
    };
    let locks = procfs::locks().map_err(|e| chain(&e))?;
    let ours = |l: &procfs::Lock| (rustix::fs::makedev(l.devmaj, l.devmin), l.inode) == (meta.dev(), meta.ino());
    Ok(locks.iter().find(|l| ours(l)).map_or(Holder::Nobody, |l| Holder::Process(l.pid)))
}

fn lock(holder: Result<&Holder, &String>) -> Finding {
    match holder {
        Ok(Holder::Nobody) => ok("the owner lock is free"),
        Ok(Holder::Process(Some(pid))) => ok(format!("the owner lock is held by pid {pid}")),
        Ok(Holder::Process(None)) => ok("the owner lock is held"),
        Err(why) => warn(format!("could not ask who holds the owner lock: {why}"), "is /proc mounted?"),
    }
}

/// Free, ours, or taken.
fn port(address: SocketAddr, config: &Config, server: Option<u32>) -> Finding {
    let error = match TcpListener::bind(address) {
        Ok(_) => return ok(format!("`{address}` is free")),
        Err(error) => error,
    };
    match error.kind() {
        std::io::ErrorKind::AddrInUse => taken(address, holder(address.port()), config, server),
        std::io::ErrorKind::PermissionDenied => bad(
            format!("`{address}` needs root"),
            format!(
                "run acc as root, choose a port above 1023 in `edge.listen`, or `sysctl net.ipv4.ip_unprivileged_port_start={}`",
                address.port()
            ),
        ),
        std::io::ErrorKind::AddrNotAvailable => {
            bad(format!("`{address}` is not an address of this host"), "set `edge.listen`: `ip addr` shows the addresses")
        }
        _ => bad(format!("could not listen on `{address}`: {error}"), "set `edge.listen`"),
    }
}

/// A process that listens.
struct Listener {
    pid: i32,
    command: String,
}

fn taken(address: SocketAddr, holder: Option<Listener>, config: &Config, server: Option<u32>) -> Finding {
    let hint =
        format!("`ss -ltnp` shows who; stop it, or set `edge.listen` in the config, for instance to port {}", other_port(address.port()));
    match holder {
        Some(l) if is_ours(&l, config, server) => ok(format!("`{address}` is ours (pid {})", l.pid)),
        Some(l) => bad(format!("`{address}` is taken by another program: pid {}, `{}`", l.pid, l.command), hint),
        // Only root may see whose a socket is: while our server is up it is most likely ours.
        None if server.is_some() => ok(format!("`{address}` is in use, and acc is up")),
        None => bad(format!("`{address}` is taken by another program"), hint),
    }
}

/// Our server, or an nginx that was given our configuration.
fn is_ours(l: &Listener, config: &Config, server: Option<u32>) -> bool {
    let by_server = server.is_some_and(|pid| i64::from(pid) == i64::from(l.pid));
    by_server || l.command.contains(&*config.home.to_string_lossy())
}

fn other_port(port: u16) -> u16 {
    if port == 8080 { 8081 } else { 8080 }
}

/// Who listens on this port, as far as this user may see it. Of several (nginx's master and workers share a socket) the one
/// with the lowest pid.
fn holder(port: u16) -> Option<Listener> {
    let tcp = procfs::net::tcp().unwrap_or_default().into_iter().chain(procfs::net::tcp6().unwrap_or_default());
    let inodes: Vec<u64> =
        tcp.filter(|e| e.state == procfs::net::TcpState::Listen && e.local_address.port() == port).map(|e| e.inode).collect();
    let holds = |process: &procfs::process::Process| {
        let fds = process.fd().ok()?;
        fds.flatten().any(|fd| matches!(fd.target, procfs::process::FDTarget::Socket(inode) if inodes.contains(&inode))).then_some(())
    };
    let mut listeners: Vec<Listener> = procfs::process::all_processes()
        .ok()?
        .flatten()
        .filter(|process| holds(process).is_some())
        .map(|process| Listener { pid: process.pid, command: process.cmdline().unwrap_or_default().join(" ") })
        .collect();
    listeners.sort_by_key(|l| l.pid);
    listeners.into_iter().next()
}

/// Does any name below the default domain lead to this host? For `*.localhost` the resolver answers by itself.
async fn domain(config: &Config) -> Finding {
    let name = format!("acc-doctor.{}", config.domain);
    let local = config.domain.as_str() == "localhost" || config.domain.as_str().ends_with(".localhost");
    let looked = tokio::time::timeout(LOOKUP_LIMIT, tokio::net::lookup_host((name.as_str(), 80))).await;
    let addresses = looked.ok().and_then(Result::ok).map(|found| found.map(|a| a.ip()).collect());
    resolved(&name, local, addresses, config)
}

fn resolved(name: &str, local: bool, addresses: Option<Vec<IpAddr>>, config: &Config) -> Finding {
    let port = config.edge.listen.first().map_or(80, SocketAddr::port);
    match addresses.as_deref() {
        Some([first, ..]) if !local || first.is_loopback() => ok(format!("`*.{}` leads to {first}", config.domain)),
        Some([first, ..]) => warn(format!("`{name}` leads to {first} instead of this host"), "check /etc/hosts and the name server"),
        _ if local => warn(
            format!("`{name}` is not known to this host's resolver (browsers and curl know it by themselves)"),
            format!("`apt install libnss-myhostname`, or `curl -H 'Host: {name}' http://127.0.0.1:{port}/`"),
        ),
        _ => {
            warn(format!("`*.{}` leads nowhere", config.domain), format!("add a DNS entry `*.{} A <address of this host>`", config.domain))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;
    use crate::config::env::Env;

    fn config(dir: &std::path::Path) -> Config {
        let env = Env::bare(0, dir).with("ACC_HOME", dir.join("home")).with("ACC_RUN", dir.join("run"));
        std::fs::create_dir_all(dir.join("run")).unwrap();
        crate::config::load(None, &env).unwrap()
    }

    #[test]
    fn a_lock_is_seen_without_taking_it() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        assert_eq!(lock_holder(&config), Ok(Holder::Nobody));
        let file = std::fs::File::create(config.owner_lock()).unwrap();
        assert_eq!(lock_holder(&config), Ok(Holder::Nobody));
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(matches!(lock_holder(&config), Ok(Holder::Process(_))));
        assert!(lock(Ok(&Holder::Process(Some(7)))).what.contains("pid 7"));
        assert_eq!(lock(Err(&"no".to_owned())).level, Level::Warn);
    }

    #[test]
    fn a_taken_port_names_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let own = std::process::id();
        let found = port(address, &config, None);
        assert_eq!(found.level, Level::Bad);
        assert!(found.what.contains("taken by another program") && found.what.contains(&format!("pid {own}")), "{}", found.what);
        assert_eq!(port(address, &config, Some(own)).level, Level::Ok);
        let nginx = Listener { pid: 1, command: format!("nginx: master process nginx -c {}/nginx/nginx.conf", config.home.display()) };
        assert_eq!(taken(address, Some(nginx), &config, None).level, Level::Ok);
        assert_eq!(taken(address, None, &config, None).level, Level::Bad);
        drop(listener);
        assert_eq!(port(address, &config, None).level, Level::Ok);
        let foreign: SocketAddr = "192.0.2.1:8080".parse().unwrap();
        assert!(port(foreign, &config, None).what.contains("not an address of this host"));
    }

    #[test]
    fn names_are_judged() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let at = |ip: &str| Some(vec![ip.parse().unwrap()]);
        assert_eq!(resolved("a", true, at("127.0.0.1"), &config).level, Level::Ok);
        assert_eq!(resolved("a", true, at("192.0.2.1"), &config).level, Level::Warn);
        assert_eq!(resolved("a", false, at("192.0.2.1"), &config).level, Level::Ok);
        assert!(resolved("a", true, None, &config).hint.contains("curl -H 'Host: a'"));
        assert!(resolved("a", false, Some(vec![]), &config).hint.contains("DNS"));
    }

    #[tokio::test]
    async fn no_server_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (finding, pid) = server(&config(dir.path())).await;
        assert_eq!((finding.level, pid), (Level::Warn, None));
    }
}
