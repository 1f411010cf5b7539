//! `--chaos`: kills what acc is made of, at moments drawn by chance, and has brought back what does not come back by itself.
//!
//! acc's server is two processes, and each is killed alone. It kills with SIGKILL, one process at a time, and only processes of this installation. An instance is killed once per run
//! of it: one that dies again and again is rightly backed off from, and that is not what is to be proven.

use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use super::client::Field;
use super::dice::Dice;
use super::report::Strikes;
use super::{BACK, Operator, boot_again};
use crate::config::{Config, EdgeKind, SupervisorKind};
use crate::driver::host::clock::monotonic_ns;
use crate::driver::host::process;
use crate::render::nginx::pid_file;
use crate::service::error::ServiceError;
use crate::service::outcome::Outcome;
use crate::service::request::Request;
use crate::service::view::Reader;

/// What was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Struck {
    /// The instance.
    Instance,
    /// The part of acc's server that serves.
    Server,
    /// The part of it that keeps the other running.
    Keeper,
    /// supervisord.
    Supervisor,
    /// A worker of nginx.
    Worker,
}

/// One kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Strike {
    /// What.
    pub(super) what: Struck,
    /// Its process id.
    pub(super) pid: i32,
    /// When, in nanoseconds of the monotonic clock: a moment before.
    pub(super) at: u64,
    /// When it was gone with all its sockets; until then even a new connection may be one to the dying process.
    pub(super) over: u64,
}

impl Strike {
    /// Can it have cut a connection that was opened and has ended at these times?
    pub(super) fn reaches(&self, opened: u64, ended: u64) -> bool {
        self.at <= ended && opened <= self.over
    }
}

/// Between two kills, in milliseconds: least, and how much more at most.
const PAUSE: (u64, u64) = (300, 900);
/// supervisord starts a dead server again by itself within this.
const BY_ITSELF: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

/// Kills.
pub(super) struct Chaos<'a> {
    pub(super) config: &'a Config,
    pub(super) operator: &'a dyn Operator,
    pub(super) field: &'a Field,
    pub(super) dice: Dice,
}

impl Chaos<'_> {
    /// Goes on until something could not be brought back; dropped, it ends between two kills or while it waits.
    pub(super) async fn run(mut self) -> ServiceError {
        let mut last_instance = 0;
        loop {
            let pause = PAUSE.0 + self.dice.below(PAUSE.1);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let Some((what, pid)) = self.choose(&mut last_instance).await else { continue };
            if !self.strike(what, pid).await {
                continue;
            }
            if let Err(e) = self.mend(what, pid).await {
                return e;
            }
        }
    }

    /// Draws what to kill; `None`: it is not there, or must not be killed now.
    async fn choose(&mut self, last_instance: &mut u64) -> Option<(Struck, i32)> {
        let mut all = vec![Struck::Instance, Struck::Server, Struck::Keeper];
        if self.config.supervisor == SupervisorKind::Supervisord {
            all.push(Struck::Supervisor);
        }
        if self.config.edge.kind == EdgeKind::Nginx {
            all.push(Struck::Worker);
        }
        let n = usize::try_from(self.dice.below(all.len() as u64)).unwrap_or(0);
        let what = *all.get(n)?;
        let pid = match what {
            Struck::Instance => self.instance(last_instance)?,
            Struck::Server => server(self.operator).await?,
            Struck::Keeper => number_in(&self.config.server_lock())?,
            Struck::Supervisor => number_in(&self.config.supervisord_pid())?,
            Struck::Worker => {
                let workers = process::children(number_in(&pid_file(self.config))?);
                let n = usize::try_from(self.dice.below(workers.len() as u64)).unwrap_or(0);
                *workers.get(n)?
            }
        };
        Some((what, pid))
    }

    fn instance(&self, last: &mut u64) -> Option<i32> {
        let cycle = self.field.meter.cycles.load(std::sync::atomic::Ordering::Relaxed) + 1;
        let view = Reader::open(self.config).and_then(|reader| reader.find(&self.field.name)).ok()?;
        let pid = view.pid.filter(|_| view.phase == "awake" && *last != cycle)?;
        *last = cycle;
        Some(pid)
    }

    /// Kills it and waits until it is gone.
    async fn strike(&self, what: Struck, pid: i32) -> bool {
        let Ok(Some(victim)) = process::by_pid(pid) else { return false };
        // Written down first: what it cuts must not end before it is known.
        let strike = Strike { what, pid, at: monotonic_ns(), over: u64::MAX };
        let number = {
            let mut strikes = self.field.strikes.lock().unwrap_or_else(PoisonError::into_inner);
            strikes.push(strike);
            strikes.len() - 1
        };
        tracing::debug!(?what, pid, "killed");
        let killed = process::signal_one(victim, libc::SIGKILL).is_ok();
        while process::is_same(victim).unwrap_or(false) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut strikes = self.field.strikes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(strike) = strikes.get_mut(number) {
            strike.over = monotonic_ns();
        }
        killed
    }

    /// Waits until everything is back, with the help of `acc boot` where nothing else does it.
    async fn mend(&self, what: Struck, pid: i32) -> Result<(), ServiceError> {
        match what {
            Struck::Instance | Struck::Worker => return Ok(()),
            Struck::Keeper => {
                let back = async {
                    while number_in(&self.config.server_lock()).is_none_or(|new| new == pid) {
                        tokio::time::sleep(LOOK).await;
                    }
                };
                if tokio::time::timeout(BY_ITSELF, back).await.is_ok() {
                    return Ok(());
                }
            }
            Struck::Server if self.config.supervisor == SupervisorKind::Supervisord => {
                let back = async {
                    while server(self.operator).await.is_none_or(|new| new == pid) {
                        tokio::time::sleep(LOOK).await;
                    }
                };
                if tokio::time::timeout(BY_ITSELF, back).await.is_ok() {
                    return Ok(());
                }
            }
            Struck::Server | Struck::Supervisor => {}
        }
        boot_again(self.operator, BACK).await
    }
}

/// The pid of the server. Without one this process answers itself, and that is `None`.
pub(super) async fn server(operator: &dyn Operator) -> Option<i32> {
    match operator.ask(Request::Ping).await {
        Ok(Outcome::Pong { pid, .. }) if pid != std::process::id() => i32::try_from(pid).ok(),
        _ => None,
    }
}

fn number_in(file: &Path) -> Option<i32> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok().filter(|pid| *pid > 1)
}

/// How often each was killed.
pub(super) fn count(strikes: &[Strike]) -> Strikes {
    let of = |what| u32::try_from(strikes.iter().filter(|s| s.what == what).count()).unwrap_or(u32::MAX);
    Strikes {
        instance: of(Struck::Instance),
        server: of(Struck::Server),
        keeper: of(Struck::Keeper),
        supervisor: of(Struck::Supervisor),
        worker: of(Struck::Worker),
    }
}
