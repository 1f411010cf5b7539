//! The main loop of a master: the events it reacts to, and how.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tracing::{error, info, warn};

use super::channel::Word;
use super::orphan::{self, Turn};
use super::signals::{MasterSignals, let_signals_in};
use super::sockets::Sockets;
use super::state::Master;
use super::worker::{self, Worker};
use crate::app::installation::note_boot;
use crate::config::{Booted, Config};
use crate::driver::supervisor::SERVER;
use crate::host::{append, fs};
use crate::service::error::ServiceError;
use crate::service::places;

/// First and longest pause before a worker that dies repeatedly is replaced.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// After this many workers in a row that did not start, the master ends too. Its supervisor decides
/// what follows, and without a socket commands run verbs themselves.
const TRIES: u32 = 5;

/// The events.
enum Happened {
    End,
    Reload,
    Upgrade,
    Child,
    FromServing(Option<Word>),
    FromComing(Option<Word>),
    /// The channel to a leaving worker has ended.
    Parted(i32),
    Again,
}

/// Runs until SIGTERM or SIGINT. SIGHUP reloads the settings, SIGUSR2 upgrades. `resume`: what the
/// former program in this same process has passed on.
pub async fn run_master(config: Config, resume: Option<String>) -> Result<(), ServiceError> {
    let mut followed = MasterSignals::new()?;
    let mut master = match resume {
        Some(text) => Master::resumed(config, &text)?,
        None => match Master::fresh(config, &mut followed).await? {
            Some(master) => master,
            None => return Ok(()),
        },
    };
    let_signals_in();
    let end = master.run(followed).await;
    let _ = fs::remove_file(&master.config.control_socket());
    end
}

impl Master {
    /// `None`: acc was halted, or this server was asked to end, while it stood by.
    async fn fresh(
        config: Config,
        followed: &mut MasterSignals,
    ) -> Result<Option<Self>, ServiceError> {
        places::prepare(&config)?;
        let turn = tokio::select! {
            turn = orphan::turn(&config) => turn?,
            () = followed.end_requested(&config) => None,
        };
        let Some(turn) = turn else {
            info!("stopping: acc was halted, or this server was stopped, before it was the master");
            return Ok(None);
        };
        if config.booted() == Booted::No {
            note_boot(
                &config,
                started_by_supervisord(&config).unwrap_or(Booted::InForeground),
            )?;
        }
        Ok(Some(match turn {
            Turn::First(lock) => {
                let sockets = Sockets::open(&config)?;
                Self::with(config, lock, sockets)
            }
            Turn::After(lock, sockets, worker) => {
                info!(pid = worker.pid, "took over a worker whose master had died");
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
                let mut master = Self::with(config, lock, sockets);
                (master.serving, master.served) = (Some(worker), true);
                master
            }
        }))
    }

    async fn run(&mut self, mut followed: MasterSignals) -> Result<(), ServiceError> {
        // Children may have ended before their signal was handled.
        self.reap()?;
        match &self.serving {
            None => self.start()?,
            // A worker that was taken over, with an older program than this one.
            Some(worker) if self.binary.is_older(worker.pid) => self.upgrade(),
            Some(_) => {}
        }
        loop {
            if self.ending && self.has_no_worker() {
                return Ok(());
            }
            let happened = self.next(&mut followed).await;
            // A worker inherits the output, so this precedes the start of one.
            append::keep_log(&self.config.own_log(SERVER));
            match happened {
                Happened::End => self.end(),
                Happened::Reload => self.serving.iter().for_each(|w| w.signal(Signal::SIGHUP)),
                Happened::Upgrade | Happened::FromServing(Some(Word::Upgrade)) => self.upgrade(),
                Happened::Child => self.reap()?,
                Happened::FromComing(Some(Word::Prepared)) => self.make_way(),
                Happened::FromComing(Some(Word::Ready)) => self.came_up(),
                Happened::Again => {
                    self.again = None;
                    self.start()?;
                }
                Happened::FromServing(None) => {
                    self.parted(self.serving.as_ref().map_or(0, |w| w.pid))?
                }
                Happened::Parted(pid) => self.parted(pid)?,
                // SIGCHLD reports the end of a child.
                Happened::FromServing(_) | Happened::FromComing(_) => {}
            }
        }
    }

    async fn next(&mut self, followed: &mut MasterSignals) -> Happened {
        let again = self.again;
        tokio::select! {
            _ = followed.common.term.recv() => Happened::End,
            _ = followed.common.int.recv() => Happened::End,
            _ = followed.common.hup.recv() => Happened::Reload,
            _ = followed.usr2.recv() => Happened::Upgrade,
            _ = followed.common.child.recv() => Happened::Child,
            word = worker::hear(&mut self.serving) => Happened::FromServing(word),
            word = worker::hear(&mut self.coming) => Happened::FromComing(word),
            pid = worker::parted(&mut self.leaving) => Happened::Parted(pid),
            () = sleep_until(again) => Happened::Again,
        }
    }

    /// Asks all workers to end; each finishes its current requests.
    fn end(&mut self) {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        (self.ending, self.again) = (true, None);
        self.all().for_each(|w| w.signal(Signal::SIGTERM));
    }

    /// Starts the worker that will serve next.
    fn start(&mut self) -> Result<(), ServiceError> {
        let program = self
            .fall_back
            .clone()
            .unwrap_or_else(|| self.binary.path().to_owned());
        match Worker::start(&program, &self.sockets, self.lock.as_fd()) {
            Ok(worker) => self.coming = Some(worker),
            Err(e) => {
                error!(program = %program.display(), "could not start a worker: {e}");
                self.did_not_come_up()?;
            }
        }
        Ok(())
    }

    fn upgrade(&mut self) {
        if self.ending || self.coming.is_some() || self.serving.is_none() {
            return;
        }
        match self.lock.renew_lost(&self.config) {
            Ok(true) => warn!("created the missing lock file again"),
            Ok(false) => {}
            Err(e) => error!("could not create the lock file again: {e}"),
        }
        match self.sockets.renew_lost(&self.config) {
            Ok(renewed) => renewed
                .iter()
                .for_each(|path| warn!(path = %path.display(), "created the missing socket again")),
            Err(e) => error!("could not create a socket again: {e}"),
        }
        self.fall_back = None;
        info!(program = %self.binary.path().display(), "upgrading: starting a worker from the program in place");
        match Worker::start(self.binary.path(), &self.sockets, self.lock.as_fd()) {
            Ok(worker) => self.coming = Some(worker),
            Err(e) => error!(
                "not upgraded, everything stays as it is: could not start the new program: {e}"
            ),
        }
    }

    /// The new worker is prepared: asks the old one to release the owner's lock.
    fn make_way(&mut self) {
        if let Some(old) = self.serving.take() {
            old.channel.say(Word::Retire);
            self.leaving.push(old);
        }
    }

    fn came_up(&mut self) {
        let Some(worker) = self.coming.take() else {
            return;
        };
        info!(pid = worker.pid, "serving");
        (self.serving, self.failed, self.served) = (Some(worker), 0, true);
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        if self.fall_back.is_none() && self.binary.is_outdated() && !self.ending {
            // The new program has just proven that it starts.
            let why = self.become_new();
            error!("the master continues with the old program: {why}");
        }
    }

    /// Reaps every child that has ended, including children of former workers: as the first process
    /// of a container, this one inherits them.
    fn reap(&mut self) -> Result<(), ServiceError> {
        while let Ok(status) = waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            let (pid, how) = match status {
                WaitStatus::Exited(pid, code) => (pid, format!("exit code {code}")),
                WaitStatus::Signaled(pid, signal, _) => (pid, format!("signal {signal}")),
                WaitStatus::StillAlive => break,
                _ => continue,
            };
            self.ended(pid.as_raw(), &how)?;
        }
        Ok(())
    }

    /// Handles the end of a worker's channel. For a child that is not news; for a worker that was
    /// taken over, it is the only sign of its death.
    fn parted(&mut self, pid: i32) -> Result<(), ServiceError> {
        match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::ECHILD) => self.ended(pid, "a cause that is not known"),
            Ok(WaitStatus::Exited(_, code)) => self.ended(pid, &format!("exit code {code}")),
            Ok(WaitStatus::Signaled(_, signal, _)) => self.ended(pid, &format!("signal {signal}")),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn ended(&mut self, pid: i32, how: &str) -> Result<(), ServiceError> {
        let is = |w: &Option<Worker>| w.as_ref().is_some_and(|w| w.pid == pid);
        if is(&self.serving) {
            self.serving = None;
            if self.ending {
                return Ok(());
            }
            warn!(
                pid,
                "the worker ended by {how}; the next one takes its place"
            );
            return if self.coming.is_none() {
                self.start()
            } else {
                Ok(())
            };
        }
        if is(&self.coming) {
            self.coming = None;
            if self.ending {
                return Ok(());
            }
            if self.serving.is_some() {
                error!(
                    pid,
                    "not upgraded, everything stays as it is: the new program ended by {how}"
                );
                return Ok(());
            }
            error!(pid, "a worker ended by {how} before it served");
            return self.did_not_come_up();
        }
        if let Some(place) = self.leaving.iter().position(|w| w.pid == pid) {
            self.leaving.remove(place);
            info!(pid, "an earlier worker has finished its requests ({how})");
        }
        Ok(())
    }

    fn did_not_come_up(&mut self) -> Result<(), ServiceError> {
        self.failed += 1;
        // Workers that still serve requests die with the master, so it keeps trying as long as
        // there are any.
        if !self.served || (self.failed >= TRIES && self.leaving.is_empty()) {
            self.all().for_each(|w| w.signal(Signal::SIGTERM));
            return Err(ServiceError::failed(
                "the server does not start",
                "see the lines above; run `acc doctor`",
            ));
        }
        if self.binary.is_outdated() {
            warn!("the new program does not start: continuing with the old one");
            self.fall_back = Some(Path::new("/proc/self/exe").to_owned());
        }
        let pause = (AGAIN.0 * 4_u32.saturating_pow(self.failed - 1)).min(AGAIN.1);
        self.again = Some(tokio::time::Instant::now() + pause);
        Ok(())
    }
}

/// How acc was booted, if its supervisord starts this server and a cleaner has removed the record
/// of that. `None`: another process has started it.
fn started_by_supervisord(config: &Config) -> Option<Booted> {
    let line = std::fs::read(format!(
        "/proc/{}/cmdline",
        std::os::unix::process::parent_id()
    ))
    .ok()?;
    let file = config.supervisor_dir().join("supervisord.conf");
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let ours = words.contains(&file.as_os_str().as_encoded_bytes());
    ours.then_some(if words.contains(&&b"-n"[..]) {
        Booted::InForeground
    } else {
        Booted::InBackground
    })
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
