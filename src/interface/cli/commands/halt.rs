//! `acc halt`: everything to sleep, then nothing of acc runs any more.

use super::super::context::CommandContext;
use super::super::exit::CommandExit;
use super::super::output::CommandEnd;
use super::super::progress;

pub(in super::super) async fn run(call: &mut CommandContext<'_>) -> CommandEnd {
    let halt = call.engine.halt(call.config);
    let report = progress::watch(
        call.ui.style,
        call.config,
        "waiting for all instances to finish their requests and stop",
        None,
        halt,
    )
    .await?;
    match (report.already, report.stopped) {
        (true, _) => call.ui.say("already halted"),
        (false, 0) => call.ui.say("halted: no instance was awake"),
        (false, 1) => call.ui.say("halted: 1 instance put to sleep"),
        (false, stopped) => call
            .ui
            .say(&format!("halted: {stopped} instances put to sleep")),
    }
    if call.ui.style.json {
        call.ui.json(&report)?;
    }
    Ok(CommandExit::Done)
}
