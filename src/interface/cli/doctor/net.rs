//! The ports acc listens on, its own server, the owner lock, and whether the default domain leads
//! here.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::finding::{Finding, bad, ok, warn};
use crate::config::{Config, Scheme, regular};
use crate::control::{ControlReply, call};
use crate::host::lockfile;
use crate::host::net::{ListeningProcess, holders, listening};
use crate::render::nginx::pid_file;
use crate::service::error::{ServiceError, chain};
use crate::service::outcome::Outcome;
use crate::service::request::Request;

/// A slow name server must not hold up the rest.
const LOOKUP_LIMIT: Duration = Duration::from_secs(3);

pub(super) async fn all(config: &Config) -> Vec<Finding> {
    let (server, acc) = server(config).await;
    let holder = lock_holder(config);
    let mut findings = vec![server, lock(holder.as_ref())];
    findings.extend(
        config
            .edge
            .listen
            .iter()
            .map(|address| port(*address, config, acc)),
    );
    findings.push(domain(config).await);
    findings.extend(proxies(config));
    findings
}

/// Clients come through a proxy that terminates TLS: is it trusted?
fn proxies(config: &Config) -> Option<Finding> {
    let (scheme, trusted) = (config.edge.public_scheme, &config.edge.trusted_proxies);
    (scheme == Scheme::Https && trusted.is_empty()).then(|| {
        warn(
            "`edge.public_scheme` is `https`, but no proxy is trusted: applications see `http` and the proxy's address",
            "add the proxy that terminates TLS to `edge.trusted_proxies` (`[\"127.0.0.1\"]` on this host), then `acc reload`",
        )
    })
}

/// What is known of acc's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Acc {
    /// It answers, with this pid.
    Up(u32),
    /// It does not run.
    Down,
    /// It could not be asked: it may well be up.
    Unknown,
}

/// Is it up?
async fn server(config: &Config) -> (Finding, Acc) {
    match call(&config.control_socket(), &Request::Ping).await {
        Ok(ControlReply::NoServer) => (
            warn(
                "the server is not running",
                "start everything with `acc boot`",
            ),
            Acc::Down,
        ),
        Ok(ControlReply::Answered(Ok(Outcome::Pong {
            pid,
            version,
            outdated,
        }))) => {
            let own = env!("CARGO_PKG_VERSION");
            let what = format!("the server answers: pid {pid}, version {version}");
            let upgrade = "run `acc boot` to upgrade the server without losing a request";
            match (outdated, version == own) {
                (true, _) => (
                    warn(
                        format!("{what}; its program was replaced after it started"),
                        upgrade,
                    ),
                    Acc::Up(pid),
                ),
                (false, true) if is_orphaned(config) => (
                    warn(
                        format!(
                            "{what}; its master has died, and it continues to serve without one"
                        ),
                        "`acc boot` starts another master; no request is lost",
                    ),
                    Acc::Up(pid),
                ),
                (false, true) => (ok(what), Acc::Up(pid)),
                (false, false) => (
                    warn(
                        format!("{what}; this command is version {own}"),
                        "run the installed `acc`",
                    ),
                    Acc::Up(pid),
                ),
            }
        }
        Ok(ControlReply::Answered(Ok(other))) => (
            bad(
                format!("the server answered a ping with {other:?}"),
                "restart it: `acc halt`, then `acc boot`",
            ),
            Acc::Unknown,
        ),
        Ok(ControlReply::Answered(Err(error))) => (bad(error.message, error.hint), Acc::Unknown),
        Err(error) => {
            let error = ServiceError::from(error);
            (bad(error.message, error.hint), Acc::Unknown)
        }
    }
}

/// Does no process have the lock that a server's master holds?
fn is_orphaned(config: &Config) -> bool {
    let lock = config.home_server_lock();
    lock.exists() && lockfile::holding(&lock).is_none()
}

/// Which process holds the owner lock. Read from the kernel's list: taking the lock could make
/// another command fail.
#[derive(Debug, PartialEq, Eq)]
enum LockHolder {
    None,
    Process(Option<i32>),
}

fn lock_holder(config: &Config) -> Result<LockHolder, String> {
    let meta = match std::fs::metadata(config.owner_lock()) {
        Ok(meta) => meta,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(LockHolder::None),
        Err(e) => return Err(e.to_string()),
    };
    let locks = procfs::locks().map_err(|e| chain(&e))?;
    let ours = |l: &procfs::Lock| {
        (rustix::fs::makedev(l.devmaj, l.devmin), l.inode) == (meta.dev(), meta.ino())
    };
    Ok(locks
        .iter()
        .find(|l| ours(l))
        .map_or(LockHolder::None, |l| LockHolder::Process(l.pid)))
}

fn lock(holder: Result<&LockHolder, &String>) -> Finding {
    match holder {
        Ok(LockHolder::None) => ok("the owner lock is free"),
        Ok(LockHolder::Process(Some(pid))) => ok(format!("the owner lock is held by pid {pid}")),
        Ok(LockHolder::Process(None)) => ok("the owner lock is held"),
        Err(why) => warn(
            format!("could not find out which process holds the owner lock: {why}"),
            "check that /proc is mounted",
        ),
    }
}

/// Free, ours, or taken; or free although acc is up, which is wrong.
fn port(address: SocketAddr, config: &Config, acc: Acc) -> Finding {
    let error = match TcpListener::bind(address) {
        Ok(_) if matches!(acc, Acc::Up(_)) => {
            return bad(
                format!("acc is running, but nothing listens on `{address}`"),
                "run `acc boot`: it starts what is missing",
            );
        }
        Ok(_) => return ok(format!("`{address}` is free")),
        Err(error) => error,
    };
    match error.kind() {
        std::io::ErrorKind::AddrInUse => taken(address, &holders(&listening(address)), config, acc),
        // This user may not listen there, which says nothing about who does.
        std::io::ErrorKind::PermissionDenied if !listening(address).is_empty() => {
            taken(address, &holders(&listening(address)), config, acc)
        }
        std::io::ErrorKind::PermissionDenied => bad(
            format!("`{address}` needs root"),
            format!(
                "run acc as root, choose a port above 1023 in `edge.listen`, or `sysctl net.ipv4.ip_unprivileged_port_start={}`",
                address.port()
            ),
        ),
        std::io::ErrorKind::AddrNotAvailable => bad(
            format!("`{address}` is not an address of this host"),
            "set `edge.listen`: `ip addr` shows the addresses",
        ),
        _ => bad(
            format!("could not listen on `{address}`: {error}"),
            "set `edge.listen`",
        ),
    }
}

fn taken(address: SocketAddr, holders: &[ListeningProcess], config: &Config, acc: Acc) -> Finding {
    let hint = format!(
        "find the program with `ss -ltnp` and stop it, or set `edge.listen` in the config, for instance to port {}",
        other_port(address.port())
    );
    let own = own_pids(config, acc);
    // Only root may see whose a socket is: while our server is up it is most likely ours.
    let Some(first) = holders.first() else {
        return match acc {
            Acc::Up(_) => ok(format!("`{address}` is in use, and acc is running")),
            Acc::Unknown => ok(format!(
                "`{address}` is in use, most likely by acc; only root can see by which process"
            )),
            Acc::Down => bad(format!("`{address}` is taken by another program"), hint),
        };
    };
    match holders.iter().find(|l| is_ours(l, config, &own)) {
        Some(l) => ok(format!("`{address}` is used by acc (pid {})", l.pid)),
        None => bad(
            format!(
                "`{address}` is taken by another program: pid {}, `{}`",
                first.pid, first.command
            ),
            hint,
        ),
    }
}

/// The processes that may hold acc's ports: its server and the master of its nginx.
fn own_pids(config: &Config, acc: Acc) -> Vec<i32> {
    let server = match acc {
        Acc::Up(pid) => i32::try_from(pid).ok(),
        Acc::Down | Acc::Unknown => None,
    };
    let master = regular::read_to_string(&pid_file(config))
        .ok()
        .and_then(|text| text.trim().parse().ok());
    server.into_iter().chain(master).collect()
}

/// One of these, a child of one (nginx's workers hold the socket too), or an nginx that was given
/// our configuration.
fn is_ours(l: &ListeningProcess, config: &Config, own: &[i32]) -> bool {
    own.contains(&l.pid)
        || own.contains(&l.parent)
        || l.command.contains(&*config.home.to_string_lossy())
}

fn other_port(port: u16) -> u16 {
    if port == 8080 { 8081 } else { 8080 }
}

/// Does any name below the default domain lead to this host? For `*.localhost` the resolver answers
/// by itself.
async fn domain(config: &Config) -> Finding {
    let name = format!("acc-doctor.{}", config.domain);
    let local =
        config.domain.as_str() == "localhost" || config.domain.as_str().ends_with(".localhost");
    let lookup =
        tokio::time::timeout(LOOKUP_LIMIT, tokio::net::lookup_host((name.as_str(), 80))).await;
    let addresses = lookup
        .ok()
        .and_then(Result::ok)
        .map(|found| found.map(|a| a.ip()).collect());
    resolved(&name, local, addresses, config)
}

fn resolved(name: &str, local: bool, addresses: Option<Vec<IpAddr>>, config: &Config) -> Finding {
    let port = config.edge.listen.first().map_or(80, SocketAddr::port);
    match addresses.as_deref() {
        Some([first, ..]) if !local || first.is_loopback() => {
            ok(format!("`*.{}` resolves to {first}", config.domain))
        }
        Some([first, ..]) => warn(
            format!("`{name}` resolves to {first}, not to this host"),
            "check /etc/hosts and the DNS server",
        ),
        _ if local => warn(
            format!("this host cannot resolve `{name}` (browsers and curl can)"),
            format!(
                "`apt install libnss-myhostname`, or `curl -H 'Host: {name}' http://127.0.0.1:{port}/`"
            ),
        ),
        _ => warn(
            format!("`*.{}` does not resolve", config.domain),
            format!(
                "add a DNS entry `*.{} A <address of this host>`",
                config.domain
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;
    use crate::config::env::Env;

    fn config(dir: &std::path::Path) -> Config {
        let env = Env::bare(0, dir)
            .with("ACC_HOME", dir.join("home"))
            .with("ACC_RUN", dir.join("run"));
        std::fs::create_dir_all(dir.join("run")).unwrap();
        crate::config::load(None, &env).unwrap()
    }

    #[test]
    fn a_lock_is_seen_without_taking_it() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        assert_eq!(lock_holder(&config), Ok(LockHolder::None));
        let file = std::fs::File::create(config.owner_lock()).unwrap();
        assert_eq!(lock_holder(&config), Ok(LockHolder::None));
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(matches!(lock_holder(&config), Ok(LockHolder::Process(_))));
        assert!(
            lock(Ok(&LockHolder::Process(Some(7))))
                .what
                .contains("pid 7")
        );
        assert_eq!(lock(Err(&"no".to_owned())).level, Level::Warn);
    }

    #[test]
    fn a_taken_port_names_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let own = std::process::id();
        let found = port(address, &config, Acc::Down);
        assert_eq!(found.level, Level::Bad);
        assert!(
            found.what.contains("taken by another program")
                && found.what.contains(&format!("pid {own}")),
            "{}",
            found.what
        );
        assert_eq!(port(address, &config, Acc::Up(own)).level, Level::Ok);
        assert_eq!(listening(address).len(), 1);
        drop(listener);
        assert_eq!(port(address, &config, Acc::Down).level, Level::Ok);
        let foreign: SocketAddr = "192.0.2.1:8080".parse().unwrap();
        assert!(
            port(foreign, &config, Acc::Down)
                .what
                .contains("not an address of this host")
        );
    }

    #[test]
    fn nobody_listening_while_acc_is_up_is_bad() {
        let dir = tempfile::tempdir().unwrap();
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let found = port(free, &config(dir.path()), Acc::Up(1));
        assert_eq!(found.level, Level::Bad);
        assert!(
            found.what.contains("nothing listens on") && found.hint.contains("`acc boot`"),
            "{found:?}"
        );
    }

    /// After the pids of a host have wrapped around, a worker may have a lower one than its master.
    #[test]
    fn any_holder_that_is_ours_or_a_child_of_ours_will_do() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let address: SocketAddr = "127.0.0.1:80".parse().unwrap();
        let holder = |pid, parent, command: &str| ListeningProcess {
            pid,
            parent,
            command: command.to_owned(),
        };
        let worker = || holder(7, 900, "nginx: worker process");
        let judged =
            |holders: &[ListeningProcess], acc| taken(address, holders, &config, acc).level;
        assert_eq!(judged(&[worker()], Acc::Down), Level::Bad);
        let title = format!(
            "nginx: master process nginx -c {}/nginx/nginx.conf",
            config.home.display()
        );
        assert_eq!(
            judged(&[worker(), holder(900, 1, &title)], Acc::Down),
            Level::Ok
        );
        std::fs::create_dir_all(pid_file(&config).parent().unwrap()).unwrap();
        std::fs::write(pid_file(&config), "900\n").unwrap();
        assert_eq!(judged(&[worker()], Acc::Down), Level::Ok);
        assert_eq!(judged(&[holder(8, 901, "other")], Acc::Up(901)), Level::Ok);
        assert_eq!(judged(&[holder(8, 1, "other")], Acc::Up(901)), Level::Bad);
        assert_eq!(judged(&[], Acc::Down), Level::Bad);
        assert_eq!(
            (judged(&[], Acc::Unknown), judged(&[], Acc::Up(1))),
            (Level::Ok, Level::Ok)
        );
    }

    #[test]
    fn names_are_judged() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let at = |ip: &str| Some(vec![ip.parse().unwrap()]);
        assert_eq!(
            resolved("a", true, at("127.0.0.1"), &config).level,
            Level::Ok
        );
        assert_eq!(
            resolved("a", true, at("192.0.2.1"), &config).level,
            Level::Warn
        );
        assert_eq!(
            resolved("a", false, at("192.0.2.1"), &config).level,
            Level::Ok
        );
        assert!(
            resolved("a", true, None, &config)
                .hint
                .contains("curl -H 'Host: a'")
        );
        assert!(
            resolved("a", false, Some(vec![]), &config)
                .hint
                .contains("DNS")
        );
    }

    #[test]
    fn an_untrusted_proxy_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        assert_eq!(proxies(&config), None);
        config.edge.public_scheme = Scheme::Https;
        assert_eq!(proxies(&config).map(|found| found.level), Some(Level::Warn));
        config.edge.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        assert_eq!(proxies(&config), None);
    }

    #[tokio::test]
    async fn a_missing_server_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let (finding, acc) = server(&config(dir.path())).await;
        assert_eq!((finding.level, acc), (Level::Warn, Acc::Down));
    }
}
