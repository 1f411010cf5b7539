//! What the command line needs from the rest of acc, handed in by `main`: so that this layer names
//! no concrete driver, and a test can put a fake in its place.

use async_trait::async_trait;

use super::args::WorkerArgs;
use crate::config::Config;
use crate::service::error::ServiceError;
use crate::service::outcome::{BootReport, HaltReport, Outcome};
use crate::service::request::Request;

/// Reads the config again; called on SIGHUP.
pub type Reload = Box<dyn Fn() -> Result<Config, ServiceError> + Send + Sync>;

/// Runs what the commands ask for.
#[async_trait(?Send)]
pub trait Engine {
    /// Runs one request: in the server when it is up, else here.
    async fn dispatch(&self, config: &Config, request: Request) -> Result<Outcome, ServiceError>;

    /// Brings everything up.
    async fn boot(&self, config: &Config, foreground: bool) -> Result<BootReport, ServiceError>;

    /// Puts everything to sleep and ends it.
    async fn halt(&self, config: &Config) -> Result<HaltReport, ServiceError>;

    /// Runs the server's master until a signal ends it; `resume`: what the program before this one
    /// has left.
    async fn run_master(&self, config: Config, resume: Option<String>) -> Result<(), ServiceError>;

    /// Serves behind a master.
    async fn run_worker(
        &self,
        config: Config,
        left: WorkerArgs,
        reload: Reload,
    ) -> Result<(), ServiceError>;
}
