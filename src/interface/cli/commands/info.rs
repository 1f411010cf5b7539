//! `acc info`: everything about one instance; of one that failed also what it said last.

use super::super::args::Name;
use super::super::context::CommandContext;
use super::super::exit::CommandExit;
use super::super::output::CommandEnd;
use super::super::show;
use crate::config::Config;
use crate::domain::lifecycle::Phase;
use crate::host::fs;
use crate::service::outcome::InstanceView;
use crate::service::view::Reader;

/// How many of its last lines.
const LINES: usize = 10;

pub(in super::super) fn run(call: &mut CommandContext<'_>, args: &Name) -> CommandEnd {
    let instance = Reader::open(call.config)?.find(&args.name)?;
    let tail = tail(call.config, &instance);
    match call.ui.style.json {
        true => call.ui.json(&WithTail {
            instance: &instance,
            log_tail: tail,
        })?,
        false => call.ui.data(
            &(show::info(&instance, call.ui.now)
                + &show::log_tail(tail.as_deref().unwrap_or_default())),
        )?,
    }
    call.say_what_waits();
    Ok(CommandExit::Done)
}

/// In JSON the lines are one more key, only there when it failed.
#[derive(serde::Serialize)]
struct WithTail<'a> {
    #[serde(flatten)]
    instance: &'a InstanceView,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_tail: Option<Vec<String>>,
}

/// The last lines of one that failed. A log that cannot be read has none.
fn tail(config: &Config, instance: &InstanceView) -> Option<Vec<String>> {
    (instance.phase == Phase::Failed)
        .then(|| fs::last_lines(&config.app_log(&instance.name), LINES))
}
