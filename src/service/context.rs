//! What everything in `service` works with: the drivers, the store, the settings and the clocks.
//!
//! It is handed in from above and names no concrete driver. It knows no instance: those are in the
//! registry above it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};

use tokio::runtime::Handle;
use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedMutexGuard, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::domain::account::Account;
use crate::domain::instance::{Instance, Process};
use crate::domain::lifecycle::Limits;
use crate::domain::time::{Timestamp, WallTime};
use crate::driver::activity::Activity;
use crate::driver::edge::Edge;
use crate::driver::probe::Probe;
use crate::driver::supervisor::{OwnServices, Runner, Runners, Service, SupervisorError};
use crate::host::clock::Clock;
use crate::host::failpoint;
use crate::host::limits::OpenFiles;
use crate::host::process;
use crate::service::admission::clients::Wakes;
use crate::service::error::ServiceError;
use crate::service::run_notes::RunFolder;
use crate::store::{Store, StoreError, StoreThreads, Written};

/// The parts a [`Context`] is made of.
pub struct Parts {
    /// Settings.
    pub config: Config,
    /// The account of their `user`.
    pub account: Account,
    /// Database.
    pub store: Arc<dyn Store>,
    /// Runs instances.
    pub runners: Runners,
    /// Runs acc's own services.
    pub own_services: Arc<dyn OwnServices>,
    /// Faces the network.
    pub edge: Arc<dyn Edge>,
    /// Tells when an instance is ready.
    pub probe: Arc<dyn Probe>,
    /// Samples the use of instances.
    pub activity: Arc<dyn Activity>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// This boot of the host.
    pub boot: String,
    /// The running acc binary.
    pub acc: PathBuf,
    /// What acc itself needs beside the instances and has to keep running: nginx, its own server.
    pub services: Vec<Service>,
}

/// The drivers, the store, the settings and the clocks of one acc.
pub struct Context {
    config: RwLock<Arc<Config>>,
    /// The account of the setting `user`, which no reload changes. An instance has its own: see
    /// `launch_spec::account`.
    pub(super) account: Account,
    /// For reading.
    pub(super) store: Arc<dyn Store>,
    threads: StoreThreads,
    pub(super) runners: Runners,
    pub(super) own_services: Arc<dyn OwnServices>,
    pub(super) edge: Arc<dyn Edge>,
    pub(super) probe: Arc<dyn Probe>,
    pub(super) activity: Arc<dyn Activity>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) boot: String,
    pub(super) acc: PathBuf,
    pub(super) services: Vec<Service>,
    /// Starts that may be under way at once.
    pub(super) starts: Arc<Semaphore>,
    pub(super) wakes: Wakes,
    pub(super) monitor: AsyncMutex<()>,
    /// Another acc manages the instances, see `handover`.
    pub(super) retired: CancellationToken,
    /// The same: to ask a token takes a lock that all I/O threads share.
    has_retired: AtomicBool,
    /// The tasks that act on instances.
    pub(super) hands: TaskTracker,
    /// Where tasks of instances live: a start may block for a moment, and must
    /// not hold up clients that share a thread.
    home: Option<Handle>,
    reconfigured: Notify,
    pub(super) run_folder: RunFolder,
    sockets_wanted: Notify,
    halting: AtomicBool,
    serving: AtomicBool,
    revived: AtomicU64,
    /// The instance whose logs were checked last, see `housekeeping`.
    pub(super) swept: AtomicI64,
    building: Mutex<HashMap<String, Weak<AsyncMutex<()>>>>,
    /// What keeps this server.
    master: Mutex<Option<Process>>,
    /// How many files acc was allowed to have open when it was booted.
    open_files: OnceLock<OpenFiles>,
}

impl Context {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let store = parts.store;
        Arc::new(Self {
            threads: StoreThreads::new(store.clone()),
            starts: Arc::new(Semaphore::new(parts.config.wake.max_at_once)),
            config: RwLock::new(Arc::new(parts.config)),
            account: parts.account,
            store,
            runners: parts.runners,
            own_services: parts.own_services,
            edge: parts.edge,
            probe: parts.probe,
            activity: parts.activity,
            clock: parts.clock,
            boot: parts.boot,
            acc: parts.acc,
            services: parts.services,
            wakes: Wakes::default(),
            monitor: AsyncMutex::new(()),
            retired: CancellationToken::new(),
            has_retired: AtomicBool::new(false),
            hands: TaskTracker::new(),
            home: Handle::try_current().ok(),
            reconfigured: Notify::new(),
            run_folder: RunFolder::default(),
            sockets_wanted: Notify::new(),
            halting: AtomicBool::new(false),
            serving: AtomicBool::new(false),
            revived: AtomicU64::new(0),
            swept: AtomicI64::new(0),
            building: Mutex::default(),
            master: Mutex::default(),
            open_files: OnceLock::new(),
        })
    }

    /// Starts the task of an instance.
    pub(super) fn settle_in(&self, task: impl Future<Output = ()> + Send + 'static) {
        match &self.home {
            Some(home) => drop(self.hands.spawn_on(task, home)),
            None => drop(self.hands.spawn(task)),
        }
    }

    /// The settings in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.config
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Puts other settings in force (SIGHUP). Folders and kinds must be the same.
    pub fn reconfigure(&self, config: Config) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        self.reconfigured.notify_one();
    }

    /// Resolves when other settings were put in force. For one task.
    pub async fn reconfigured(&self) {
        self.reconfigured.notified().await;
    }

    /// Takes note of what is in the run folder, and that this server listens on these unix sockets
    /// there, and it or its master holds these files.
    pub fn mind_run_folder(&self, sockets: Vec<PathBuf>, files: Vec<PathBuf>) {
        self.run_folder.set_held(sockets, files);
        self.run_folder.learn(&self.config());
        self.run_folder
            .keep_cleaners_away(&self.config(), self.now(), &[]);
    }

    /// This file of the run folder was removed by acc itself, and stays away.
    pub fn forget_note(&self, path: &Path) {
        self.run_folder.forget(path);
    }

    /// The sockets that were lost shall be made anew.
    pub(super) fn want_sockets(&self) {
        self.sockets_wanted.notify_one();
    }

    /// Resolves when that is wanted. For one task.
    pub async fn sockets_wanted(&self) {
        self.sockets_wanted.notified().await;
    }

    /// Another acc manages the instances from now on.
    pub(super) fn set_retired(&self) {
        self.has_retired.store(true, Ordering::SeqCst);
        self.retired.cancel();
    }

    /// Does another acc manage the instances?
    pub(super) fn has_retired(&self) -> bool {
        self.has_retired.load(Ordering::SeqCst)
    }

    /// No wake from now on.
    pub(super) fn set_halting(&self, halting: bool) {
        self.halting.store(halting, Ordering::SeqCst);
    }

    /// Is everything being put to sleep?
    pub(super) fn halting(&self) -> bool {
        self.halting.load(Ordering::SeqCst)
    }

    /// This is acc's server, not a command that runs a verb by itself.
    pub fn set_serving(&self) {
        self.serving.store(true, Ordering::SeqCst);
    }

    /// Has threads of their own read and write the database from now on: clients must not wait for
    /// that.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn start_store_threads(&self) -> std::io::Result<()> {
        self.threads.start()
    }

    /// Does work that blocks: a server lets no other request wait for it.
    pub(super) async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ServiceError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        if !self.serving() {
            return work();
        }
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|e| Err(ServiceError::because("internal error", &e, "see acc's log")))
    }

    /// Asks for a write to the database. It need not be waited for: later ones come after it.
    pub(super) fn write<T: Send + Sync + 'static>(
        &self,
        work: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Written<T> {
        self.threads.write(work)
    }

    /// Reads from the database, while the calling thread serves others.
    pub(super) fn read<T: Send + Sync + 'static>(
        &self,
        work: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Written<T> {
        self.threads.read(work)
    }

    /// Resolves when all is written that was asked for.
    pub async fn written(&self) {
        self.threads.flush().await;
    }

    /// Drops the writes that are still queued: another acc manages the instances.
    pub(super) fn write_no_more(&self) {
        self.threads.close();
    }

    /// This process keeps this server, and the supervisor never ends it by itself.
    pub fn set_master(&self, master: Process) {
        *self.master.lock().unwrap_or_else(PoisonError::into_inner) = Some(master);
        self.own_services.exclude(master);
    }

    /// What keeps this server.
    pub(super) fn master(&self) -> Option<Process> {
        *self.master.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has it died?
    pub(super) fn is_orphaned(&self) -> bool {
        self.master()
            .is_some_and(|master| !process::is_same(master).unwrap_or(true))
    }

    /// The supervisor had died and was brought back just now.
    pub(super) fn note_revival(&self) {
        self.revived.store(self.now().0, Ordering::SeqCst);
    }

    /// Was it brought back since then?
    pub(super) fn revived_since(&self, then: Timestamp) -> bool {
        self.revived.load(Ordering::SeqCst) > then.0
    }

    /// How many files acc was allowed to have open when it was booted, whatever this process was
    /// raised to since.
    pub(super) fn open_files(&self) -> OpenFiles {
        *self.open_files.get_or_init(|| {
            let config = self.config();
            OpenFiles::noted(&config.open_files_file())
                .or_else(|| OpenFiles::noted(&config.home_open_files_file()))
                .unwrap_or_else(OpenFiles::own)
        })
    }

    pub(super) fn serving(&self) -> bool {
        self.serving.load(Ordering::SeqCst)
    }

    /// A step of work of several steps was just done: a test may stop acc here (see
    /// `host::failpoint`).
    pub(super) fn reached(&self, step: &'static str) -> Result<(), ServiceError> {
        let failed = |e| {
            ServiceError::because(
                format!("could not continue after `{step}`"),
                &e,
                "try again",
            )
        };
        failpoint::point(&self.config().run, step).map_err(failed)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The wall time of a point on the boot clock, as far as the wall clock can be trusted now.
    pub(super) fn wall_at(&self, at: Timestamp) -> WallTime {
        let ago = i64::try_from(self.now().since(at).as_millis()).unwrap_or(0);
        WallTime(self.clock.wall().0 - ago)
    }

    /// What runs this instance.
    pub(super) fn runner(&self, instance: &Instance) -> Result<&Arc<dyn Runner>, SupervisorError> {
        self.runners.of(&instance.launch.runner)
    }

    /// The times this instance's machine keeps to.
    pub(super) fn limits(&self, instance: &Instance) -> Limits {
        let config = self.config();
        Limits {
            idle: instance.idle_timeout.unwrap_or(config.idle.timeout),
            min_awake: config.idle.min_awake,
            start: instance.launch.start_timeout.unwrap_or(config.wake.timeout),
            drain: config.stop.drain,
            drain_streams: config.stop.drain_streams,
            stop: instance.launch.stop_timeout.unwrap_or(config.stop.timeout),
        }
    }

    /// One at a time for work of several steps on the same name (create, destroy, purge).
    pub(super) async fn building(&self, name: &str) -> OwnedMutexGuard<()> {
        self.building_lock(name).lock_owned().await
    }

    /// The same if no such work is in progress; `None`: some is.
    pub(super) fn building_unless_busy(&self, name: &str) -> Option<OwnedMutexGuard<()>> {
        self.building_lock(name).try_lock_owned().ok()
    }

    fn building_lock(&self, name: &str) -> Arc<AsyncMutex<()>> {
        let mut all = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, lock| lock.strong_count() > 0);
        match all.get(name).and_then(Weak::upgrade) {
            Some(lock) => lock,
            None => {
                let lock = Arc::new(AsyncMutex::new(()));
                all.insert(name.to_owned(), Arc::downgrade(&lock));
                lock
            }
        }
    }
}
