//! The command line: [`run`] turns arguments into a command, and its end into an exit code.
//!
//! The way of a command: `args` parses it, `in_force` finds the settings, `logging` is set up, the file in `commands/` makes a request
//! and hands it to the [`Engine`], `show` makes text of the outcome, `output` prints it, `exit` gives the code. No file here
//! decides anything about instances.

mod acting;
pub mod args;
mod commands;
pub mod doctor;
mod engine;
mod escape;
pub mod exit;
pub mod human;
pub mod in_force;
pub mod logging;
mod merged;
pub mod output;
pub mod progress;
mod served;
pub mod show;
pub mod tail;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Parser;

use crate::config::env::Env;
use crate::config::reload::Difference;
use crate::config::{self, Config, ConfigErrors};
use crate::service::error::{ErrorKind, ServiceError, chain};
use args::{Cli, Command, ConfigCommand};
pub use engine::{Engine, LeftToWorker, Reload};
use exit::Exit;
use in_force::Settings;
use output::{End, Style, Ui};

/// Runs the command that `args` (program name first) asks for and says how to exit. Nothing else is printed afterwards.
pub fn run(engine: &dyn Engine, args: impl IntoIterator<Item = OsString>, env: &Env) -> Exit {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return output::usage(&error),
    };
    let global = &cli.global;
    let style = Style::of_process(global.json, global.quiet, global.verbose, env.get("NO_COLOR").is_some());
    let mut ui = Ui::of_process(style);
    let end = command(engine, cli, env, &mut ui);
    ui.end(end)
}

/// First the commands that need no config, then those that need it.
fn command(engine: &dyn Engine, cli: Cli, env: &Env, ui: &mut Ui) -> End {
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
        let settings = load(file.clone(), env).and_then(|_| in_force::settings(&cli.command, file, env, ui));
        return block_on(false, commands::doctor::run(ui, settings));
    }
    let (file, env) = acting::settle(&cli.command, file, env)?;
    let env = &env;
    match cli.command {
        Command::Server(args) => {
            let config = for_server(file.as_deref(), env, ui)?;
            // One thread: it is to be small, and its children are to die with it and not with one of its threads.
            block_on(false, commands::server::keep(engine, config, args))
        }
        Command::Worker(args) => {
            let config = for_server(file.as_deref(), env, ui)?;
            // Read anew each time: what the environment says does not change, what the file says may.
            let env = env.clone();
            let reload: Reload = Box::new(move || load(file.clone(), &env));
            block_on(true, commands::server::work(engine, config, args, reload))
        }
        command => {
            let Settings { config, waiting } = in_force::settings(&command, file, env, ui)?;
            let call = Call { ui, engine, config: &config, waiting: waiting.as_deref() };
            block_on(false, dispatch(call, command))
        }
    }
}

/// What every command is given.
struct Call<'a> {
    ui: &'a mut Ui,
    engine: &'a dyn Engine,
    /// The settings to go by.
    config: &'a Config,
    /// What the config file says otherwise by now; `None`: the settings are those of the file.
    waiting: Option<&'a [Difference]>,
}

impl Call<'_> {
    /// Says beside what was shown that it goes by what is in force, when the file says otherwise.
    fn say_what_waits(&mut self) {
        if let Some(line) = in_force::about_what_is_shown(self.config, self.waiting.unwrap_or_default()) {
            self.ui.warn(&line);
        }
    }
}

/// The settings for a part of the server; its log is set up by them.
fn for_server(file: Option<&Path>, env: &Env, ui: &Ui) -> Result<Config, ServiceError> {
    let (config, fault) = in_force::for_server(file, env)?;
    logging::server(&config.log, ui.style.verbose, ui.style.quiet);
    if let Some(fault) = fault {
        tracing::error!("it goes on by the settings of before: {fault}");
    }
    Ok(config)
}

async fn dispatch(mut call: Call<'_>, command: Command) -> End {
    let call = &mut call;
    if served::matters(&command) && !served::is_served(call.config).await {
        call.ui.warn(served::line(call.config.edge.kind));
    }
    match command {
        Command::Boot(args) => commands::boot::run(call, args).await,
        Command::Halt => commands::halt::run(call).await,
        Command::Reload => commands::reload::run(call).await,
        Command::Create(args) => commands::create::run(call, args).await,
        Command::Start(args) => commands::start::run(call, args).await,
        Command::Stop(args) => commands::stop::run(call, args).await,
        Command::Restart(args) => commands::restart::run(call, args).await,
        Command::Enable(args) => commands::want::run(call, args, "auto").await,
        Command::Disable(args) => commands::want::run(call, args, "down").await,
        Command::Pin(args) => commands::want::run(call, args, "up").await,
        Command::Reset(args) => commands::reset::run(call, args).await,
        Command::Destroy(args) => commands::destroy::run(call, args).await,
        Command::Purge(args) => commands::purge::run(call, args).await,
        Command::List(args) => commands::list::run(call, &args),
        Command::Info(args) => commands::info::run(call, &args),
        Command::Models(args) => commands::models::run(call, &args),
        Command::Names(args) => commands::names::run(call, &args),
        Command::Logs(args) => commands::logs::run(call, &args).await,
        Command::Events(args) => commands::events::run(call, &args),
        Command::Monitor(args) => commands::monitor::run(call, &args).await,
        Command::Prove(args) => commands::prove::run(call, args).await,
        Command::Config(ConfigCommand::Check) => commands::config::check(call),
        Command::Config(ConfigCommand::Show) => commands::config::show(call).await,
        // Answered before there was a config.
        Command::Server(_) | Command::Worker(_) | Command::Doctor | Command::Completions(_) | Command::Man(_) | Command::DemoApp(_) => {
            Ok(Exit::Done)
        }
    }
}

fn load(file: Option<PathBuf>, env: &Env) -> Result<Config, ServiceError> {
    config::load(file.as_deref(), env).map_err(|errors| wrong_config(&errors))
}

/// All faults in one error, a line each below its title.
fn wrong_config(errors: &ConfigErrors) -> ServiceError {
    let mut message = errors.title();
    for line in errors.to_string().lines() {
        message.push_str("\n  ");
        message.push_str(line);
    }
    ServiceError::new(
        ErrorKind::Invalid,
        message,
        "every key, its default and its unit are in config.example.toml; `acc config check` looks again",
    )
}

/// One thread is enough for a command and starts sooner; the server takes them all.
fn block_on(server: bool, work: impl Future<Output = End>) -> End {
    let mut builder = match server {
        true => tokio::runtime::Builder::new_multi_thread(),
        false => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = builder.enable_all().build().map_err(|e| {
        ServiceError::failed(format!("could not start the runtime: {}", chain(&e)), "is the limit of processes or open files reached?")
    })?;
    let end = runtime.block_on(work);
    // A name lookup or a read of a slow disk may still be under way on a thread of its own; nobody waits for it any more.
    runtime.shutdown_background();
    end
}
