//! `acc reload`: the server reads its config again. What is in force now is the data, what waits is
//! a warning.

use super::super::context::CommandContext;
use super::super::exit::CommandExit;
use super::super::output::CommandEnd;
use super::config::waits;
use super::for_each;
use crate::service::outcome::{Outcome, Reloaded};
use crate::service::request::Request;

pub(in super::super) async fn run(call: &mut CommandContext<'_>) -> CommandEnd {
    let outcome = for_each::one(
        call,
        "waiting for the server to read its config",
        None,
        Request::Reload,
    )
    .await?;
    if call.ui.style.json {
        call.ui.json(&outcome)?;
    }
    let Outcome::Reloaded(reloaded) = outcome else {
        return Ok(CommandExit::Done);
    };
    say(call, &reloaded);
    for trouble in &reloaded.troubles {
        call.ui.warn(trouble);
    }
    Ok(CommandExit::unless(!reloaded.troubles.is_empty()))
}

fn say(call: &mut CommandContext<'_>, reloaded: &Reloaded) {
    let file = reloaded.file.as_ref().map_or_else(
        || "the config file no longer exists".to_owned(),
        |file| format!("read `{file}`"),
    );
    match reloaded.changed.as_slice() {
        [] => call
            .ui
            .say(&format!("{file}: no setting in force has changed")),
        changed => {
            call.ui.say(&format!("{file}: now in force"));
            for c in changed {
                call.ui
                    .say(&format!("- `{}` is {}, it was {}", c.key, c.new, c.old));
            }
        }
    }
    for c in &reloaded.waiting {
        call.ui.warn(&waits(&c.key, &c.old, &c.new));
    }
}
