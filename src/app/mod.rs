//! Wiring: settings to drivers, drivers to services, services to tasks. The only folder that names concrete drivers.

mod boot;
mod dispatch;
mod halt;
mod image;
mod keeper;
mod lock;
mod reload;
mod serve;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use boot::boot;
pub use dispatch::dispatch;
pub use halt::halt;
pub use keeper::keep;

/// Reads the settings again.
pub type Reload = Box<dyn Fn() -> Result<Config, ServiceError> + Send + Sync>;

use crate::config::accounts::Accounts;
use crate::config::{Booted, Config, EdgeKind, SupervisorKind};
use crate::driver::activity::KernelActivity;
use crate::driver::edge::Edge;
use crate::driver::edge::builtin::BuiltinEdge;
use crate::driver::edge::nginx::{Nginx, NginxSettings};
use crate::driver::listener::Listeners;
use crate::driver::probe::SocketProbe;
use crate::driver::supervisor::builtin::Builtin;
use crate::driver::supervisor::supervisord::{Supervisord, SupervisordSettings};
use crate::driver::supervisor::{Service, Supervisor};
use crate::driver::upstream::Upstreams;
use crate::host;
use crate::host::clock::{Clock as _, SystemClock};
use crate::host::fs;
use crate::host::limits::OpenFiles;
use crate::host::rotate::LOG_MAX;
use crate::interface::cli::LeftToWorker;
use crate::render::{RenderError, Templates};
use crate::service::context::Parts;
use crate::service::error::{ServiceError, chain};
use crate::service::world::World;
use crate::store::{Store, StoreError};

/// Program sections of sleepers that supervisord keeps: a wake from one of them needs no `reloadConfig`, which costs 3 ms. More
/// of them would cost at every turn of its loop, in which it looks at all it has.
const SECTIONS_KEPT: usize = 64;

/// The hidden word that makes acc a launcher. Known to [`launch`] alone, which looks before anything is parsed.
const LAUNCH: &str = "launch";

/// When acc was called as the launcher of an instance: becomes the instance, and returns only with the exit code of one that
/// could not. Nothing else of acc may have begun: it is on the way of a wake, and must stay the only thread.
#[must_use]
pub fn launch(mut args: impl Iterator<Item = OsString>) -> Option<u8> {
    let (_, word, file, after) = (args.next()?, args.next()?, args.next()?, args.next());
    (word == LAUNCH && after.is_none()).then(|| crate::driver::supervisor::launch(file.as_ref()))
}

/// Lets signals in that whoever started acc has blocked, as many runtimes do in their threads: else neither acc nor what it starts
/// could be ended by one. A keeper that has just replaced itself does so by itself, once it obeys them.
pub fn let_signals_in(mut args: impl Iterator<Item = OsString>) {
    if !args.any(|arg| arg == "--resume") {
        // Refused by no kernel.
        let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
    }
}

/// The drivers of one installation.
struct Drivers {
    supervisor: Arc<dyn Supervisor>,
    supervisord: Option<Arc<Supervisord>>,
    edge: Arc<dyn Edge>,
    nginx: Option<Arc<Nginx>>,
    upstreams: Arc<Upstreams>,
    listeners: Listeners,
    templates: Arc<Templates>,
}

impl Drivers {
    fn new(config: &Config) -> Result<Self, ServiceError> {
        let templates = Templates::new(config.edge.templates.as_deref()).map_err(|e| wrong_templates(&e))?;
        let templates = Arc::new(templates);
        // With nginx in front, acc carries only requests that were held: a pool would only hide who is in use.
        let accounts = accounts(config)?;
        let pooling = config.edge.kind == EdgeKind::Builtin;
        let user = accounts.instances.map(|owner| owner.uid);
        let listeners = Listeners::of_user(user);
        let upstreams = Arc::new(Upstreams::to_instances_of(listeners.clone(), pooling));
        upstreams.trust(config.wake_socket());
        let mut drivers = Self {
            supervisor: Arc::new(Builtin::new(config.pid_dir(), LOG_MAX, standin()).for_user(user)),
            supervisord: None,
            edge: Arc::new(BuiltinEdge::new(upstreams.clone())),
            nginx: None,
            upstreams,
            listeners,
            templates: templates.clone(),
        };
        if config.edge.kind == EdgeKind::Nginx {
            let nginx = Nginx::new(NginxSettings::new(Arc::new(config.clone())), templates.clone())
                .map_err(|e| ServiceError::failed(chain(&e), "run `acc doctor`"))?;
            let nginx = Arc::new(nginx);
            drivers.edge = nginx.clone();
            drivers.nginx = Some(nginx);
        }
        if config.supervisor == SupervisorKind::Supervisord {
            let supervisord = Arc::new(Supervisord::new(supervisord(config, templates)).for_user(user));
            drivers.supervisor = supervisord.clone();
            drivers.supervisord = Some(supervisord);
        }
        Ok(drivers)
    }

    /// What acc needs to keep running beside the instances, its own server not counted.
    fn services(&self) -> Result<Vec<Service>, ServiceError> {
        let hint = "install nginx, or set `edge.kind = \"builtin\"` in the config";
        let service = |nginx: &Arc<Nginx>| nginx.service().map_err(|e| ServiceError::failed(chain(&e), hint));
        self.nginx.iter().map(service).collect()
    }
}

/// Serves, as a child of the keeper `keeper`, by the open files of these numbers.
///
/// # Errors
/// As everything below; a worker that is not its keeper's child, or was given other files, does not begin.
pub async fn work(config: Config, left: &LeftToWorker, reload: Reload) -> Result<(), ServiceError> {
    let wrong = |e: std::io::Error| ServiceError::because("could not take over from the keeper", &e, "run `acc server`");
    let sockets = keeper::Sockets::taken(&left.sockets).map_err(wrong)?;
    let tether = host::handover::take(left.tether).and_then(keeper::tether::Tether::of).map_err(wrong)?;
    let lock = host::handover::take(left.lock).map_err(wrong)?;
    // Until it serves it does not outlive its keeper: nobody would watch it.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).map_err(|e| wrong(e.into()))?;
    if std::os::unix::process::parent_id() != left.keeper {
        return Err(wrong(std::io::Error::other("it has ended")));
    }
    let keeper = if left.renewed { serve::Keeper::Renewed(left.keeper) } else { serve::Keeper::Parent(left.keeper) };
    serve::serve(config, serve::Handed { sockets, tether, lock, keeper }, reload).await
}

/// A template of the operator's cannot be used.
fn wrong_templates(e: &RenderError) -> ServiceError {
    ServiceError::because("could not use the templates", e, "mend the file, or remove `edge.templates` from the config")
}

/// The running binary.
fn own_binary() -> PathBuf {
    let path = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("acc"));
    // Replaced while it runs: the kernel says so in the name; the new one is at the old place.
    match path.to_str().and_then(|p| p.strip_suffix(" (deleted)")) {
        Some(replaced) => PathBuf::from(replaced),
        None => path,
    }
}

/// What stands in for the launcher where that may not be executed.
fn standin() -> Vec<String> {
    vec![own_binary().display().to_string(), LAUNCH.into()]
}

/// acc's own server as a service of a supervisor. Supervisors clear the environment, so what it overrode is passed on.
fn own_service(config: &Config) -> Service {
    let file = config.file.clone().unwrap_or_else(|| PathBuf::from("/dev/null"));
    Service {
        name: "server",
        argv: vec![
            "/usr/bin/env".into(),
            format!("ACC_HOME={}", config.home.display()),
            format!("ACC_RUN={}", config.run.display()),
            own_binary().display().to_string(),
            "--config".into(),
            file.display().to_string(),
            "server".into(),
        ],
        log: config.own_log("server"),
        stop_signal: 15,
        stop_timeout: config.wake.timeout + Duration::from_secs(10),
    }
}

/// Which boot of this host it is; timestamps of another one mean nothing.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|s| s.trim().to_owned()).unwrap_or_default()
}

/// The world of the service, over the database of this installation.
fn world(config: &Config, drivers: &Drivers, store: Store) -> Result<Arc<World>, ServiceError> {
    let accounts = accounts(config)?;
    Ok(World::new(Parts {
        config: config.clone(),
        store,
        supervisor: drivers.supervisor.clone(),
        edge: drivers.edge.clone(),
        probe: Arc::new(SocketProbe::new(accounts, config.run_trash(), drivers.listeners.clone())),
        activity: Arc::new(KernelActivity::default()),
        clock: Arc::new(SystemClock),
        boot: boot_id(),
        acc: own_binary(),
        // A missing nginx is said by whoever needs it; it must not keep anybody from looking or stopping.
        services: drivers.services().unwrap_or_default().into_iter().chain([own_service(config)]).collect(),
    }))
}

/// Whom instances and nginx's workers run as, when that is not who acc runs as.
fn accounts(config: &Config) -> Result<Accounts, ServiceError> {
    Accounts::of(config).map_err(|fault| ServiceError::failed(fault.message, fault.hint))
}

/// Where supervisord has its things.
fn supervisord(config: &Config, templates: Arc<Templates>) -> SupervisordSettings {
    SupervisordSettings {
        dir: config.supervisor_dir(),
        socket: config.supervisor_socket(),
        pid_file: config.supervisord_pid(),
        log: config.own_log("supervisord"),
        pid_dir: config.pid_dir(),
        log_max: LOG_MAX,
        keep: SECTIONS_KEPT,
        launcher: standin(),
        program: None,
        templates,
    }
}

/// Notes how acc was booted: what dies is brought back only while it is. And with which limit, that instances have it too.
fn note_boot(config: &Config, booted: Booted) -> Result<(), ServiceError> {
    let failed =
        |path: PathBuf| move |e| ServiceError::because(format!("could not write `{}`", path.display()), &e, "check space, owner and mode");
    let (limits, path) = (config.open_files_file(), config.booted_file());
    OpenFiles::own().note(&limits).map_err(failed(limits))?;
    fs::write_atomic(&path, booted.as_str().as_bytes(), 0o644).map_err(failed(path))
}

fn open_store(config: &Config) -> Result<Store, ServiceError> {
    Store::open(&config.database()).map_err(crate::service::error::store)
}

/// Pause before a database is opened again that another program has locked.
const LOCKED_PAUSE: Duration = Duration::from_millis(200);

/// The same for a server, whose clients wait: one that another program has locked is waited for as long as a request may be held.
async fn open_store_patiently(config: &Config) -> Result<Store, ServiceError> {
    let give_up = SystemClock.now().after(config.wake.timeout);
    loop {
        match Store::open(&config.database()) {
            Err(e @ StoreError::Locked(_)) if SystemClock.now() < give_up => tracing::warn!("waiting: {e}"),
            opened => return opened.map_err(crate::service::error::store),
        }
        // SQLite itself waits for most locks, but not for all.
        tokio::time::sleep(LOCKED_PAUSE).await;
    }
}
