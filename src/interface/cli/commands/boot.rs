//! `acc boot`: brings everything up; with `--foreground` this process becomes the supervisor.

use std::os::unix::process::CommandExt;

use super::super::args::BootArgs;
use super::super::context::CommandContext;
use super::super::exit::CommandExit;
use super::super::output::CommandEnd;
use super::super::progress;
use crate::service::error::ServiceError;
use crate::service::outcome::BootReport;

pub(in super::super) async fn run(call: &mut CommandContext<'_>, args: BootArgs) -> CommandEnd {
    let boot = call.engine.boot(call.config, args.foreground);
    let report = progress::watch(call.ui.style, call.config, "starting", None, boot).await?;
    print(call, &report)?;
    match report.exec {
        Some(argv) => Err(become_program(&argv).into()),
        None => Ok(CommandExit::Done),
    }
}

fn print(call: &mut CommandContext<'_>, report: &BootReport) -> std::io::Result<()> {
    if report.already {
        call.ui.say("already running");
    }
    for line in &report.did {
        call.ui.say(&format!("- {line}"));
    }
    if !report.listen.is_empty() {
        call.ui
            .say(&format!("listening on {}", report.listen.join(", ")));
    }
    if !report.waiting.is_empty() {
        let keys: Vec<String> = report
            .waiting
            .iter()
            .map(|key| format!("`{key}`"))
            .collect();
        call.ui.warn(&format!(
            "the new value of {} needs a restart (`acc halt`, then `acc boot`)",
            keys.join(", ")
        ));
    }
    match call.ui.style.json {
        true => call.ui.json(report),
        false => Ok(()),
    }
}

/// Returns only when it did not work: systemd must see the pid it started.
fn become_program(argv: &[String]) -> ServiceError {
    let Some((program, args)) = argv.split_first() else {
        return ServiceError::failed("no program to run in the foreground", "run `acc doctor`");
    };
    let error = std::process::Command::new(program).args(args).exec();
    ServiceError::because(
        format!("could not run `{program}`"),
        &error,
        "run `acc doctor`",
    )
}
