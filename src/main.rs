//! Parses, runs, prints, exits: nothing else.

use std::process::ExitCode;

use acc::app;
use acc::config::Config;
use acc::config::env::Env;
use acc::interface::cli::exit::CommandExit;
use acc::interface::cli::{self, Engine, Reload, WorkerArgs, output};
use acc::service::error::ServiceError;
use acc::service::outcome::{BootReport, HaltReport, Outcome};
use acc::service::request::Request;

/// The whole program behind the command line.
struct AppEngine;

#[async_trait::async_trait(?Send)]
impl Engine for AppEngine {
    async fn dispatch(&self, config: &Config, request: Request) -> Result<Outcome, ServiceError> {
        app::dispatch(config, request).await
    }
    async fn boot(&self, config: &Config, foreground: bool) -> Result<BootReport, ServiceError> {
        app::boot(config, foreground).await
    }
    async fn halt(&self, config: &Config) -> Result<HaltReport, ServiceError> {
        app::halt(config).await
    }
    async fn run_master(&self, config: Config, resume: Option<String>) -> Result<(), ServiceError> {
        app::run_master(config, resume).await
    }
    async fn run_worker(
        &self,
        config: Config,
        left: WorkerArgs,
        reload: Reload,
    ) -> Result<(), ServiceError> {
        app::run_worker(config, &left, reload).await
    }
}

fn main() -> ExitCode {
    if let Some(code) = app::launch(std::env::args_os()) {
        return ExitCode::from(code);
    }
    // Files get the mode that acc asks for, whatever the caller's umask. The demo application is an
    // instance: its launcher set its umask.
    if std::env::args_os()
        .nth(1)
        .is_none_or(|command| command != "demo-app")
    {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    }
    app::let_signals_in(std::env::args_os());
    output::short_panics();
    // A panic has been reported by then; only the exit code is missing.
    let exit = std::panic::catch_unwind(|| {
        cli::run(&AppEngine, std::env::args_os(), &Env::from_process())
    });
    exit.unwrap_or(CommandExit::Failed).into()
}
