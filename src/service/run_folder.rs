//! The run folder under a server that runs: what a cleaner of temporary folders has taken away is made again, and cleaners are kept
//! away where they can be told to.
//!
//! The server knows all that was there: it has the notes and who runs in memory, and its sockets and locks open. It removes nothing,
//! and brings nothing back while acc halts. What is supervisord's, nginx's and an instance's own is for their parts of a pass.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::daemons::told;
use super::error::chain;
use super::monitor::{self, line};
use super::outcome::Pass;
use super::registry::Handle;
use super::world::World;
use super::{places, report_pass};
use crate::config::{Booted, Config, EdgeKind, SupervisorKind, in_force_file};
use crate::domain::instance::Process;
use crate::domain::lifecycle::Phase;
use crate::domain::time::Timestamp;
use crate::driver::supervisor::SupervisorError;
use crate::host::cleaners::{Held, freshen};
use crate::host::fs::{exists, write_atomic};
use crate::host::listen;
use crate::host::taken_away::Folder;
use crate::host::untrusted::{To, open};

/// Pause between two looks while somebody is awake. With nobody awake the kernel tells.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What is taken away is taken away one by one.
const AT_REST: Duration = Duration::from_millis(50);
/// Pauses after a pass that could not make everything again.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Another worker has taken over by then.
const REPLACED_WITHIN: Duration = Duration::from_secs(10);
/// Files are made to look fresh when they are older than this: cleaners take them after days.
const OLD: Duration = Duration::from_secs(6 * 3600);
/// With ten thousand sleepers there are as many folders to look at.
const FRESHEN_EVERY: Duration = Duration::from_secs(3600);

/// What a server knows of its run folder.
#[derive(Debug, Default)]
pub(super) struct RunFolder {
    /// Small files that say how acc was booted, as they were when they were last there.
    notes: Mutex<BTreeMap<PathBuf, Vec<u8>>>,
    /// Sockets on which this server listens, and files that it or its keeper holds.
    held: OnceLock<(Vec<PathBuf>, Vec<PathBuf>)>,
    /// The folder itself, against cleaners that respect that.
    folder: Mutex<Option<Held>>,
    /// When its files were made to look fresh.
    freshened: AtomicU64,
    /// Until when another worker is expected to take over, with the sockets that were lost.
    replaced_until: AtomicU64,
}

impl RunFolder {
    fn notes(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Vec<u8>>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This server listens on these unix sockets, and it or its keeper holds these files open.
    pub(super) fn set_held(&self, sockets: Vec<PathBuf>, files: Vec<PathBuf>) {
        let _ = self.held.set((sockets, files));
    }

    /// One of them that is gone. It takes a new worker to have it again.
    pub(super) fn lost(&self) -> Option<PathBuf> {
        let (sockets, files) = self.held.get()?;
        sockets.iter().find(|path| listen::is_lost(path)).or_else(|| files.iter().find(|path| !exists(path))).cloned()
    }

    /// Is another worker to take over, with sockets that this one does not have?
    pub(super) fn is_replaced(&self, now: Timestamp) -> bool {
        self.lost().is_some() || now.0 < self.replaced_until.load(Ordering::Relaxed)
    }

    fn expect_replacement(&self, now: Timestamp) {
        self.replaced_until.store(now.after(REPLACED_WITHIN).0, Ordering::Relaxed);
    }

    /// This note is not there because acc has removed it.
    pub(super) fn forget(&self, note: &Path) {
        self.notes().remove(note);
    }

    /// Reads the notes that are there.
    pub(super) fn learn(&self, config: &Config) {
        for path in [config.booted_file(), config.open_files_file(), in_force_file(&config.run), config.run.join("cgroup")] {
            let mut text = Vec::new();
            if open(&path, To::Read).and_then(|(mut note, _)| note.read_to_end(&mut text)).is_ok() {
                self.notes().insert(path, text);
            }
        }
    }

    /// Writes those that are gone; their names.
    fn write_lost(&self) -> std::io::Result<Vec<String>> {
        let mut written = Vec::new();
        for (path, text) in self.notes().iter().filter(|(path, _)| !exists(path)) {
            // Only acc reads where its control groups are.
            let mode = if path.ends_with("cgroup") { 0o600 } else { 0o644 };
            write_atomic(path, text, mode)?;
            written.extend(path.file_name().map(|name| format!("`{}`", name.to_string_lossy())));
        }
        Ok(written)
    }

    /// Holds the folder, and now and then makes what is in it look fresh.
    pub(super) fn keep_cleaners_away(&self, config: &Config, now: Timestamp, awake: &[Arc<Handle>]) {
        let mut folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        if !folder.as_ref().is_some_and(|held| held.is_at(&config.run)) {
            *folder = Held::take(&config.run).inspect_err(|error| tracing::debug!(%error, "could not hold the run folder")).ok();
        }
        drop(folder);
        let last = Timestamp(self.freshened.load(Ordering::Relaxed));
        if last != Timestamp(0) && now.since(last) < FRESHEN_EVERY {
            return;
        }
        self.freshened.store(now.0, Ordering::Relaxed);
        let sockets = awake.iter().map(|handle| config.socket_dir(handle.instance.name.as_str()));
        for dir in [config.run.clone(), config.gate_dir(), config.pid_dir(), config.run.join("sock")].into_iter().chain(sockets) {
            freshen(&dir, OLD);
        }
    }
}

/// Those of whose process the server knows.
fn running(world: &World) -> Vec<(Arc<Handle>, Process)> {
    let known = world.registry.all().into_iter().filter(|handle| handle.known());
    known.filter_map(|handle| Some((handle.clone(), handle.machine().process()?))).collect()
}

/// Makes again what is gone; what was done is a line of the pass.
pub(super) async fn keep(world: &Arc<World>, pass: &mut Pass) {
    if !world.serving() {
        return;
    }
    let config = world.config();
    let mut again = Vec::new();
    if places::one_is_gone(&config) {
        match places::prepare(&config) {
            Ok(()) => again.push("folders".to_owned()),
            Err(e) => return pass.lines.push(line("acc", "error", e.message)),
        }
    }
    world.run_folder.learn(&config);
    match world.run_folder.write_lost() {
        Ok(notes) => again.extend(notes),
        Err(e) => pass.lines.push(line("acc", "error", format!("could not write a note in `{}`: {e}", config.run.display()))),
    }
    match records(world, &config).await {
        Ok(0) => {}
        Ok(count) => again.push(format!("the records of {count} processes")),
        Err(e) => pass.lines.push(line("acc", "error", chain(&e))),
    }
    if let Some(path) = world.run_folder.lost() {
        world.run_folder.expect_replacement(world.now());
        world.want_sockets();
        again.extend(path.file_name().map(|name| format!("`{}`", name.to_string_lossy())));
    }
    if !again.is_empty() {
        told(world, "acc", format!("something was taken out of `{}`, and is made again: {}", config.run.display(), again.join(", ")), pass);
    }
    let awake: Vec<Arc<Handle>> = running(world).into_iter().map(|(handle, _)| handle).collect();
    world.run_folder.keep_cleaners_away(&config, world.now(), &awake);
}

/// Which process each instance and service is: how many were written down again.
async fn records(world: &World, config: &Config) -> Result<usize, SupervisorError> {
    let mut count = 0;
    for (handle, process) in running(world) {
        let name = &handle.instance.name;
        count += usize::from(world.supervisor.keep(name, process, &config.app_log(name.as_str())).await?);
    }
    if let Some(keeper) = world.keeper() {
        count += usize::from(world.supervisor.keep_record("server", keeper).await?);
    }
    if let Ok(Some(edge)) = world.edge.process().await {
        count += usize::from(world.supervisor.keep_record("nginx", edge).await?);
    }
    Ok(count)
}

/// The database says which process an instance has, and this acc has just begun: its pid file may have been taken away.
pub(super) async fn restore_record(world: &World, handle: &Handle) {
    let (name, process) = (&handle.instance.name, handle.machine().process());
    let Some(process) = process else { return };
    match world.supervisor.keep(name, process, &world.config().app_log(name.as_str())).await {
        Ok(true) => tracing::warn!(instance = %name, pid = process.pid, "its pid file was gone and is written again"),
        Ok(false) => {}
        Err(e) => tracing::warn!(instance = %name, "could not write its pid file again: {}", chain(&e)),
    }
}

/// Is everything there? It blocks, for a moment.
fn is_whole(world: &World) -> bool {
    let config = world.config();
    world.run_folder.learn(&config);
    let booted = config.booted();
    let daemon = booted == Booted::InBackground && config.supervisor == SupervisorKind::Supervisord;
    let nginx = booted != Booted::No && config.edge.kind == EdgeKind::Nginx;
    let mut wanted: Vec<PathBuf> = world.run_folder.notes().keys().cloned().collect();
    wanted.extend(world.run_folder.held.get().into_iter().flat_map(|(sockets, files)| sockets.iter().chain(files).cloned()));
    wanted.extend([config.supervisor_socket(), config.supervisord_pid()].into_iter().filter(|_| daemon));
    wanted.extend(nginx.then(|| config.run.join("nginx.pid")));
    let awake = running(world).into_iter().filter(|(handle, _)| handle.snapshot().phase == Phase::Awake);
    wanted.extend(awake.map(|(handle, _)| config.pid_dir().join(format!("{}.pid", handle.instance.name))));
    !places::one_is_gone(&config) && wanted.iter().all(|path| exists(path))
}

/// Sees to it that everything is there, until `end`: a pass mends what is not.
pub async fn watch(world: Arc<World>, end: CancellationToken) {
    let mut folder = Folder::watch(&world.config().run);
    // Once at the beginning: what was taken away before the folder was watched is told by nobody.
    let mut again = Some(AGAIN.0);
    loop {
        let next = async {
            let awake = async {
                world.registry.until_any().await;
                tokio::time::sleep(LOOK_EVERY).await;
            };
            if let Some(again) = again {
                return tokio::time::sleep(again).await;
            }
            tokio::select! {
                () = folder.change() => {}
                () = awake => {}
            }
            tokio::time::sleep(AT_REST).await;
        };
        tokio::select! {
            () = end.cancelled() => return,
            () = next => {}
        }
        folder.renew();
        if world.halting() || looks_whole(&world).await {
            again = None;
            continue;
        }
        tokio::select! {
            () = end.cancelled() => return,
            outcome = monitor::run(&world, false, false) => report_pass(outcome),
        }
        folder.renew();
        let longer = (again.unwrap_or_default() * 2).clamp(AGAIN.0, AGAIN.1);
        again = if looks_whole(&world).await { None } else { Some(longer) };
    }
}

async fn looks_whole(world: &Arc<World>) -> bool {
    let world = world.clone();
    tokio::task::spawn_blocking(move || is_whole(&world)).await.unwrap_or(true)
}
