//! Puts a changed config in force while the server runs, for SIGHUP and `acc reload`, and records
//! the settings in force for commands.

use std::sync::Arc;

use tokio::sync::Mutex;
use tracing::{error, info, warn};

use super::drivers::Drivers;
use crate::config::reload::{Difference, differences};
use crate::config::{Config, in_force};
use crate::driver::edge::Edge;
use crate::host::fs;
use crate::interface::cli::Reload;
use crate::proxy::{Proxy, ProxySettings};
use crate::service::error::{ServiceError, chain};
use crate::service::outcome::{Change, Reloaded};
use crate::service::recover;
use crate::service::world::World;

/// Reloads the config, one reload at a time.
pub(super) struct Reloader {
    world: Arc<World>,
    proxy: Arc<Proxy>,
    edge: Arc<dyn Edge>,
    read: Reload,
    turn: Mutex<()>,
}

impl Reloader {
    pub(super) fn new(
        world: &Arc<World>,
        proxy: &Arc<Proxy>,
        drivers: &Drivers,
        read: Reload,
    ) -> Self {
        let (world, proxy) = (world.clone(), proxy.clone());
        Self {
            world,
            proxy,
            edge: drivers.edge.clone(),
            read,
            turn: Mutex::default(),
        }
    }

    /// Puts in force what can change while the server runs; names the rest, which does not block
    /// it.
    ///
    /// # Errors
    /// The file has faults: nothing was changed.
    pub(super) async fn run(&self) -> Result<Reloaded, ServiceError> {
        let _turn = self.turn.lock().await;
        let read = (self.read)()?;
        let old = self.world.config();
        let new = old.taking_over(&read);
        self.proxy.reload(ProxySettings::new(&new));
        let troubles: Vec<String> = self.tell_edge(&new).await.err().into_iter().collect();
        let changed = differences(&old.to_toml(), &new.to_toml()).unwrap_or_default();
        let waiting = differences(&new.to_toml(), &read.to_toml()).unwrap_or_default();
        self.world.reconfigure(new.clone());
        for d in &waiting {
            warn!(
                key = d.key,
                in_force = d.one,
                in_the_file = d.other,
                "this setting needs `acc halt` and `acc boot`"
            );
        }
        info!(
            changed = changed.len(),
            waiting = waiting.len(),
            "reloaded the settings"
        );
        note_in_force(&self.world, &new);
        Ok(Reloaded {
            file: read.file.map(|file| file.display().to_string()),
            changed: changes(changed),
            waiting: changes(waiting),
            troubles,
        })
    }

    async fn tell_edge(&self, new: &Config) -> Result<(), String> {
        if !self.edge.has_program() {
            return Ok(());
        }
        self.edge.reconfigure(Arc::new(new.clone()));
        let applied = match recover::all_routes(&self.world).await {
            Ok(routes) => self.edge.apply(&routes).await.map_err(|e| chain(&e)),
            Err(e) => Err(e.message),
        };
        applied.map_err(|why| {
            let trouble = format!(
                "{} keeps its previous configuration: {why}",
                self.edge.kind()
            );
            error!("{trouble}");
            trouble
        })
    }
}

fn changes(differences: Vec<Difference>) -> Vec<Change> {
    differences
        .into_iter()
        .map(|d| Change {
            key: d.key,
            old: d.one,
            new: d.other,
        })
        .collect()
}

/// Records the settings in force. If that fails, removes the old record, because it would be wrong;
/// commands then use the config file.
pub(super) fn note_in_force(world: &World, config: &Config) {
    let path = in_force::file(&config.run);
    if let Err(error) = fs::write_atomic(&path, in_force::written(config).as_bytes(), 0o644) {
        world.forget_note(&path);
        let _ = fs::remove_file(&path);
        warn!(path = %path.display(), %error, "could not record the settings in force; commands use the config file");
    }
}
