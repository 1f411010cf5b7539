//! `--chaos`: kills acc's processes at random moments, and boots those again that do not restart by
//! themselves.
//!
//! acc's server consists of two processes, and each is killed alone. Chaos uses SIGKILL, one
//! process at a time, and only on processes of this installation. An instance is killed once per
//! run: if it died repeatedly, acc would rightly delay its next start, which is not what is to be
//! proven.
//!
//! A process that clients are connected to is stopped first (SIGSTOP) to list the connections that
//! it holds: its death cuts these and no others. Times could not distinguish them, because on a
//! busy host a client notices everything later.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::context::ProveContext;
use super::operator::{BACK, Operator, boot_again, find, server};
use super::rng::Rng;
use super::strike::{Strike, Struck};
use crate::config::{Config, EdgeKind, SupervisorKind};
use crate::domain::instance::Process;
use crate::domain::lifecycle::Phase;
use crate::host::clock::monotonic_ns;
use crate::host::process;
use crate::host::stopped::Stopped;
use crate::render::nginx::pid_file;
use crate::service::error::ServiceError;

/// Pause between two kills in milliseconds: least, and how much more at most.
const PAUSE: (u64, u64) = (300, 900);
/// supervisord restarts a dead server by itself within this time.
const BY_ITSELF: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// Kills processes.
pub(super) struct Chaos<'a> {
    pub(super) config: &'a Config,
    pub(super) operator: &'a dyn Operator,
    pub(super) context: &'a ProveContext,
    pub(super) rng: Rng,
}

impl Chaos<'_> {
    /// Continues until something could not be restored. If it is dropped, it ends between two kills
    /// or during a wait.
    pub(super) async fn run(mut self) -> ServiceError {
        let mut last_instance = 0;
        loop {
            let pause = PAUSE.0 + self.rng.below(PAUSE.1);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let Some((what, pid)) = self.choose(&mut last_instance).await else {
                continue;
            };
            match self.strike(what, pid).await {
                Ok(true) => {}
                Ok(false) => continue,
                Err(e) => return e,
            }
            if let Err(e) = self.restore(what, pid).await {
                return e;
            }
        }
    }

    /// Chooses what to kill; `None`: it does not exist, or must not be killed now.
    async fn choose(&mut self, last_instance: &mut u64) -> Option<(Struck, i32)> {
        let mut all = vec![Struck::Instance, Struck::Server, Struck::Master];
        if self.config.supervisor == SupervisorKind::Supervisord {
            all.push(Struck::Supervisor);
        }
        if self.config.edge.kind == EdgeKind::Nginx {
            all.push(Struck::Worker);
        }
        let n = usize::try_from(self.rng.below(all.len() as u64)).unwrap_or(0);
        let what = *all.get(n)?;
        let pid = match what {
            Struck::Instance => self.instance(last_instance).await?,
            Struck::Server => server(self.operator).await?,
            Struck::Master => number_in(&self.config.server_lock())?,
            Struck::Supervisor => number_in(&self.config.supervisord_pid())?,
            Struck::Worker => {
                let workers =
                    process::children(number_in(&pid_file(self.config))?).unwrap_or_default();
                let n = usize::try_from(self.rng.below(workers.len() as u64)).unwrap_or(0);
                *workers.get(n)?
            }
        };
        Some((what, pid))
    }

    async fn instance(&self, last: &mut u64) -> Option<i32> {
        let cycle = self.context.meter.cycles.load(Ordering::Relaxed) + 1;
        let view = find(self.operator, &self.context.name).await.ok()?;
        let pid = view
            .pid
            .filter(|_| view.phase == Phase::Awake && *last != cycle)?;
        *last = cycle;
        Some(pid)
    }

    /// Kills it and waits until it is gone; `false`: it was gone already, or could not be stopped in
    /// time to list its connections.
    async fn strike(&self, what: Struck, pid: i32) -> Result<bool, ServiceError> {
        let Ok(Some(victim)) = process::by_pid(pid) else {
            return Ok(false);
        };
        let (_stopped, held) = match self.faces_clients(what) {
            false => (None, None),
            true => match connections_of(victim).await {
                Ok(Some((stopped, held))) => (Some(stopped), Some(held)),
                Ok(None) => return Ok(false),
                // One of its threads waits for the disk. It continues, and another is chosen.
                Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                    tracing::info!(?what, pid, "not killed: it could not be stopped in time");
                    return Ok(false);
                }
                Err(e) => {
                    let message = format!("could not list the connections of process {pid}");
                    return Err(ServiceError::because(
                        message,
                        &e,
                        "run `acc prove` as root or as the user who booted acc",
                    ));
                }
            },
        };
        // Recorded first: no connection may break before the kill is known.
        let number = self.note(Strike {
            what,
            pid,
            at: monotonic_ns(),
            over: u64::MAX,
            held,
        });
        tracing::debug!(?what, pid, "killed");
        let killed = process::signal_one(victim, libc::SIGKILL).is_ok();
        while process::is_same(victim).unwrap_or(false) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut strikes = self.context.strikes();
        if let Some(strike) = strikes.get_mut(number) {
            strike.over = monotonic_ns();
        }
        Ok(killed)
    }

    fn faces_clients(&self, what: Struck) -> bool {
        match self.config.edge.kind {
            EdgeKind::Builtin => what == Struck::Server,
            EdgeKind::Nginx => what == Struck::Worker,
        }
    }

    /// Records the kill; returns its index.
    fn note(&self, strike: Strike) -> usize {
        let mut strikes = self.context.strikes();
        strikes.push(strike);
        strikes.len() - 1
    }

    /// Waits until everything is back, with the help of `acc boot` where nothing else restores it.
    async fn restore(&self, what: Struck, pid: i32) -> Result<(), ServiceError> {
        match what {
            Struck::Instance | Struck::Worker => return Ok(()),
            Struck::Master => {
                let back = async {
                    while number_in(&self.config.server_lock()).is_none_or(|new| new == pid) {
                        tokio::time::sleep(POLL).await;
                    }
                };
                if tokio::time::timeout(BY_ITSELF, back).await.is_ok() {
                    return Ok(());
                }
            }
            Struck::Server if self.config.supervisor == SupervisorKind::Supervisord => {
                let back = async {
                    while server(self.operator).await.is_none_or(|new| new == pid) {
                        tokio::time::sleep(POLL).await;
                    }
                };
                if tokio::time::timeout(BY_ITSELF, back).await.is_ok() {
                    return Ok(());
                }
            }
            Struck::Server | Struck::Supervisor => {}
        }
        boot_again(self.operator, BACK).await?;
        if what == Struck::Supervisor {
            self.until_answered().await;
        }
        Ok(())
    }

    /// Waits until a request has been answered from now on. A supervisor may take seconds to start
    /// on a busy host. If it were killed again before that, it would never start the instance, and
    /// requests would fail.
    async fn until_answered(&self) {
        let right = || self.context.meter.right.load(Ordering::Relaxed);
        let before = right();
        let answered = async {
            while right() == before {
                tokio::time::sleep(POLL).await;
            }
        };
        let _ = tokio::time::timeout(self.context.limit, answered).await;
    }
}

/// Stops the process for as long as the first value exists, and lists its connections; `None`: it
/// has ended.
async fn connections_of(victim: Process) -> io::Result<Option<(Stopped, HashSet<SocketAddr>)>> {
    let Some(stopped) = Stopped::stop(victim).await? else {
        return Ok(None);
    };
    match stopped.peers() {
        Err(_) if !process::is_same(victim)? => Ok(None),
        held => Ok(Some((stopped, held?))),
    }
}

fn number_in(file: &Path) -> Option<i32> {
    std::fs::read_to_string(file)
        .ok()?
        .trim()
        .parse()
        .ok()
        .filter(|pid| *pid > 1)
}
