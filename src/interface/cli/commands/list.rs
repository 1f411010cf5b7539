//! `acc list`: the instances, in a table; of a page also how to get the next one.

use super::super::args::ListArgs;
use super::super::context::CommandContext;
use super::super::exit::CommandExit;
use super::super::output::CommandEnd;
use super::super::show;
use crate::config::Config;
use crate::domain::lifecycle::Phase;
use crate::models::{ModelError, find_model};
use crate::service::error::unexpected;
use crate::service::outcome::{InstanceView, Outcome};
use crate::service::request::{ListFilter, Request};

pub(in super::super) async fn run(call: &mut CommandContext<'_>, args: &ListArgs) -> CommandEnd {
    // One more than is shown tells whether there are more.
    let limit = args.limit.map(|limit| limit.saturating_add(1));
    let filter = ListFilter {
        phase: args.phase,
        model: args.model.clone(),
        after: args.after.clone(),
        limit,
    };
    let Outcome::Instances { mut instances } = call.ask(Request::List(filter)).await? else {
        return Err(unexpected().into());
    };
    let next = next_page(args, &instances);
    instances.truncate(args.limit.unwrap_or(usize::MAX));
    let ui = &mut *call.ui;
    if ui.style.json {
        ui.json(&instances)?;
    } else if instances.is_empty() {
        let filtered = args.phase.is_some()
            || args.model.is_some()
            || args.after.is_some()
            || args.limit == Some(0);
        match no_such_model(call.config, args) {
            Some(why) => ui.say(&format!("no such instance: {why}")),
            None => ui.say(if filtered {
                "no such instance"
            } else {
                "no instances yet: `acc create --model hello` makes one"
            }),
        }
    } else {
        ui.data(&show::list(&instances, ui.now, ui.style.colour))?;
    }
    if let Some(command) = next {
        ui.say(&format!("there are more: `{command}`"));
    }
    call.say_what_waits();
    Ok(CommandExit::Done)
}

/// Nothing was found because there is no such model; a slip of the hand is named. Instances may
/// outlive their model, so it is no error to ask for one that is gone.
fn no_such_model(config: &Config, args: &ListArgs) -> Option<String> {
    match find_model(&config.models(), args.model.as_deref()?) {
        Err(e @ ModelError::Missing { .. }) => Some(e.to_string()),
        _ => None,
    }
}

/// The command that shows what comes after this page; `None`: nothing does. All of these words are
/// safe in a shell.
fn next_page(args: &ListArgs, found: &[InstanceView]) -> Option<String> {
    let limit = args.limit.filter(|limit| found.len() > *limit)?;
    let last = &found.get(limit.checked_sub(1)?)?.name;
    let mut command = "acc list".to_owned();
    let phase = args.phase.map(Phase::as_str);
    for (option, value) in [("--phase", phase), ("--model", args.model.as_deref())] {
        if let Some(value) = value {
            command.push_str(&format!(" {option} {value}"));
        }
    }
    Some(format!("{command} --limit {limit} --after {last}"))
}
