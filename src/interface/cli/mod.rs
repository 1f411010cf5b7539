//! The command line: [`run`] turns arguments into a command, and its end into an exit code.
//!
//! The way of a command: `args` parses it, `in_force` finds the settings, `logging` is set up, the
//! file in `commands/` makes a request and hands it to the [`Engine`], `show` makes text of the
//! outcome, `output` prints it, `exit` gives the code. No file here decides anything about
//! instances.

mod acting;
pub mod args;
mod commands;
mod config_file;
mod context;
pub mod doctor;
mod engine;
mod escape;
pub mod exit;
pub mod human;
pub mod in_force;
pub mod logging;
pub mod output;
pub mod progress;
mod server_check;
pub mod show;
pub mod show_proof;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::Path;

use clap::Parser;

use crate::config::Config;
use crate::config::env::Env;
use crate::domain::instance::DesiredState;
use crate::service::error::{ServiceError, chain};
pub use args::WorkerArgs;
use args::{Cli, Command, ConfigCommand};
use config_file::load;
use context::CommandContext;
pub use engine::{Engine, Reload};
use exit::CommandExit;
use in_force::Settings;
use output::{CommandEnd, Style, Ui};

/// Runs the command that `args` (program name first) asks for and says how to exit. Nothing else is
/// printed afterwards.
pub fn run(
    engine: &dyn Engine,
    args: impl IntoIterator<Item = OsString>,
    env: &Env,
) -> CommandExit {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return output::usage(&error),
    };
    let global = &cli.global;
    let style = Style::of_process(
        global.json,
        global.quiet,
        global.verbose,
        env.get("NO_COLOR").is_some(),
    );
    let mut ui = Ui::of_process(style);
    let end = command(engine, cli, env, &mut ui);
    ui.end(end)
}

/// First the commands that need no config, then those that need it.
fn command(engine: &dyn Engine, cli: Cli, env: &Env, ui: &mut Ui) -> CommandEnd {
    let file = cli.global.config;
    match cli.command {
        Command::Completions(args) => return commands::completions::run(ui, args.shell),
        Command::Man(args) => return commands::man::run(ui, args.dir.as_deref()),
        Command::DemoApp(options) => return commands::demo_app::run(options),
        Command::Server(_) | Command::Worker(_) => {}
        _ => logging::short(ui.style.verbose, ui.style.quiet),
    }
    if matches!(cli.command, Command::Doctor) {
        // A config with faults is a finding of its own.
        let settings =
            load(file.clone(), env).and_then(|_| in_force::settings(&cli.command, file, env, ui));
        return block_on(false, commands::doctor::run(ui, settings));
    }
    let (file, env) = acting::settle(&cli.command, file, env)?;
    let env = &env;
    match cli.command {
        Command::Server(args) => {
            let config = for_server(file.as_deref(), env, ui)?;
            // One thread: it is to be small, and its children are to die with it and not with one
            // of its threads.
            block_on(false, commands::server::run_master(engine, config, args))
        }
        Command::Worker(args) => {
            let config = for_server(file.as_deref(), env, ui)?;
            // Read anew each time: what the environment says does not change, what the file says
            // may.
            let env = env.clone();
            let reload: Reload = Box::new(move || load(file.clone(), &env));
            block_on(
                true,
                commands::server::run_worker(engine, config, args, reload),
            )
        }
        command => {
            let Settings { config, waiting } = in_force::settings(&command, file, env, ui)?;
            let call = CommandContext {
                ui,
                engine,
                config: &config,
                waiting: waiting.as_deref(),
            };
            block_on(false, dispatch(call, command))
        }
    }
}

/// The settings for a part of the server; its log is set up by them.
fn for_server(file: Option<&Path>, env: &Env, ui: &Ui) -> Result<Config, ServiceError> {
    let (config, fault) = in_force::for_server(file, env)?;
    logging::server(&config.log, ui.style.verbose, ui.style.quiet);
    if let Some(fault) = fault {
        tracing::error!("the server keeps the previous settings: {fault}");
    }
    Ok(config)
}

async fn dispatch(mut call: CommandContext<'_>, command: Command) -> CommandEnd {
    let call = &mut call;
    if server_check::matters(&command) && !server_check::is_served(call.config).await {
        call.ui.warn(server_check::line(&call.config.edge));
    }
    match command {
        Command::Boot(args) => commands::boot::run(call, args).await,
        Command::Halt => commands::halt::run(call).await,
        Command::Reload => commands::reload::run(call).await,
        Command::Create(args) => commands::create::run(call, args).await,
        Command::Start(args) => commands::start::run(call, args).await,
        Command::Stop(args) => commands::stop::run(call, args).await,
        Command::Restart(args) => commands::restart::run(call, args).await,
        Command::Enable(args) => commands::desired::run(call, args, DesiredState::Auto).await,
        Command::Disable(args) => commands::desired::run(call, args, DesiredState::Down).await,
        Command::Pin(args) => commands::desired::run(call, args, DesiredState::Up).await,
        Command::Reset(args) => commands::reset::run(call, args).await,
        Command::Destroy(args) => commands::destroy::run(call, args).await,
        Command::Purge(args) => commands::purge::run(call, args).await,
        Command::List(args) => commands::list::run(call, &args).await,
        Command::Info(args) => commands::info::run(call, &args).await,
        Command::Models(args) => commands::models::run(call, &args).await,
        Command::Names(args) => commands::names::run(call, &args).await,
        Command::Logs(args) => commands::logs::run(call, &args).await,
        Command::Events(args) => commands::events::run(call, &args).await,
        Command::Monitor(args) => commands::monitor::run(call, &args).await,
        Command::Prove(args) => commands::prove::run(call, args).await,
        Command::Config(ConfigCommand::Check) => commands::config::check(call),
        Command::Config(ConfigCommand::Show) => commands::config::show(call).await,
        // Answered before there was a config.
        Command::Server(_)
        | Command::Worker(_)
        | Command::Doctor
        | Command::Completions(_)
        | Command::Man(_)
        | Command::DemoApp(_) => Ok(CommandExit::Done),
    }
}

/// One thread is enough for a command and starts sooner; the server takes them all.
fn block_on(server: bool, work: impl Future<Output = CommandEnd>) -> CommandEnd {
    let mut builder = match server {
        true => tokio::runtime::Builder::new_multi_thread(),
        false => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = builder.enable_all().build().map_err(|e| {
        ServiceError::failed(
            format!("could not start the runtime: {}", chain(&e)),
            "check the limits of processes and open files",
        )
    })?;
    let end = runtime.block_on(work);
    // A name lookup or a read of a slow disk may still run on a thread of its own; no code
    // waits for it any more.
    runtime.shutdown_background();
    end
}
