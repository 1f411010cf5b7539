//! The settings of the proxy, and how a connection finds out that they were replaced.
//!
//! It never reads the configuration file, and never changes the settings of a current request.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ipnet::IpNet;

use super::trusted_proxies::TrustedProxies;
use crate::config::Config;
use crate::domain::rule::Rule;

/// The settings for requests; replaced as a whole when the configuration is reloaded.
#[derive(Debug, Clone)]
pub struct ProxySettings {
    /// `wake.timeout`: a request is held at most this long.
    pub wake_timeout: Duration,
    /// A stop takes at most about this long; a request waits for its end before it is held for a
    /// start.
    pub stop_limit: Duration,
    /// `wake.page_after`: a browser's navigation gets the waiting page after this long.
    pub page_after: Duration,
    /// `edge.max_body`: longest request body in bytes.
    pub max_body: u64,
    /// `edge.per_client`: connections that one address may have; `None`: no limit.
    pub per_client: Option<u32>,
    /// `edge.shared_addresses` and `edge.trusted_proxies`: such an address stands for many clients.
    pub shared_addresses: Vec<IpNet>,
    /// A request body may stall for this long.
    pub body_stall: Duration,
    /// `idle.silent_connections`: an upgraded connection without traffic for longer does not count
    /// as use.
    pub silent: Option<Duration>,
    /// `[[rules]]`, in order.
    pub rules: Vec<Rule>,
    /// The folder of files for what slow clients have not read.
    pub spool: PathBuf,
    /// Which proxies before acc's own edge are trusted.
    pub trusted_proxies: TrustedProxies,
}

impl ProxySettings {
    /// Reads them from the configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            wake_timeout: config.wake.timeout,
            stop_limit: config.stop.drain + config.stop.timeout * 3 + LONG_STOP,
            page_after: config.wake.page_after,
            max_body: config.edge.max_body,
            per_client: config.edge.per_client,
            shared_addresses: config.edge.of_many(),
            body_stall: BODY_STALL,
            silent: config.idle.silent_connections,
            rules: config.rules.clone(),
            spool: config.home.clone(),
            trusted_proxies: TrustedProxies::new(&config.edge),
        }
    }
}

/// Models may have longer stop timeouts than the settings.
const LONG_STOP: Duration = Duration::from_secs(300);

/// A client that sends nothing of its body for this long has gone; nginx's own limit is the same.
pub const BODY_STALL: Duration = Duration::from_secs(60);

/// The settings in force, replaced as a whole.
pub(super) struct SharedSettings {
    settings: RwLock<Arc<ProxySettings>>,
    /// How often they were replaced.
    reloads: AtomicU64,
}

impl SharedSettings {
    pub(super) fn new(settings: ProxySettings) -> Self {
        Self {
            settings: RwLock::new(Arc::new(settings)),
            reloads: AtomicU64::new(0),
        }
    }

    /// Puts new settings in force.
    pub(super) fn replace(&self, settings: ProxySettings) {
        *self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        self.reloads.fetch_add(1, Ordering::Release);
    }
}

/// The settings as a connection has read them. Their reference count is shared by all I/O threads,
/// and CPUs that write the same count slow each other down: so only connections count, not
/// requests.
#[derive(Clone)]
pub(super) struct SettingsSnapshot {
    settings: Arc<ProxySettings>,
    reloads: u64,
}

impl SettingsSnapshot {
    pub(super) fn of(shared: &SharedSettings) -> Self {
        // The number first: settings replaced meanwhile are then seen as new once more.
        let reloads = shared.reloads.load(Ordering::Acquire);
        let settings = shared
            .settings
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        Self { settings, reloads }
    }

    pub(super) fn get(&self) -> &ProxySettings {
        &self.settings
    }

    /// Whether these are in force.
    pub(super) fn is_current(&self, shared: &SharedSettings) -> bool {
        self.reloads == shared.reloads.load(Ordering::Acquire)
    }
}
