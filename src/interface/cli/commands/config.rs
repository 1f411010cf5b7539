//! `acc config`: a config with faults does not get here, so `check` has only good news.

use super::super::context::CommandContext;
use super::super::exit::CommandExit;
use super::super::output::CommandEnd;
use crate::config::reload::{NEED_RESTART, differences};
use crate::control::{self, ControlReply};
use crate::service::error::{ServiceError, chain};
use crate::service::outcome::Outcome;
use crate::service::request::Request;

/// `acc config check`.
pub(in super::super) fn check(call: &mut CommandContext<'_>) -> CommandEnd {
    let file = call
        .config
        .file
        .as_ref()
        .map(|file| file.display().to_string());
    match &file {
        Some(file) => call.ui.say(&format!("`{file}` is valid")),
        None => call.ui.say("no config file: the defaults are in force"),
    }
    if call.ui.style.json {
        call.ui
            .json(&serde_json::json!({ "good": true, "file": file }))?;
    }
    Ok(CommandExit::Done)
}

/// `acc config show`: what the server works with; where the file says something else by now, that
/// is named.
pub(in super::super) async fn show(call: &mut CommandContext<'_>) -> CommandEnd {
    let known = call.config.to_toml();
    let (text, waiting) = match call.waiting {
        Some(waiting) => (known, waiting.to_vec()),
        // Without its note only the server itself can tell.
        None => match in_force(call).await {
            Some(text) => (text.clone(), differences(&text, &known).unwrap_or_default()),
            None => (known, Vec::new()),
        },
    };
    if call.ui.style.json {
        let value: serde_json::Value = toml::from_str(&text).map_err(|e| {
            ServiceError::because(
                "could not turn the settings into JSON",
                &e,
                "please report this; without --json the command works",
            )
        })?;
        call.ui.json(&value)?;
    } else {
        call.ui.data(&text)?;
    }
    for d in waiting {
        call.ui.warn(&waits(&d.key, &d.one, &d.other));
    }
    Ok(CommandExit::Done)
}

/// What the server works with; `None`: there is no server, and the next one will work with what the
/// file says.
async fn in_force(call: &mut CommandContext<'_>) -> Option<String> {
    let why = match control::call(&call.config.control_socket(), &Request::Settings).await {
        Ok(ControlReply::NoServer) => return None,
        Ok(ControlReply::Answered(Ok(Outcome::Settings { toml }))) => return Some(toml),
        Ok(ControlReply::Answered(Ok(other))) => format!("it answered {other:?}"),
        Ok(ControlReply::Answered(Err(e))) => e.message,
        Err(e) => chain(&e),
    };
    call.ui.warn(&format!(
        "these are the settings of the config file; could not query the server for the settings in force: {why}"
    ));
    None
}

/// A setting that is not in force as the file has it, and what puts it in force.
pub(super) fn waits(key: &str, in_force: &str, in_file: &str) -> String {
    let way = if NEED_RESTART.contains(&key) {
        "`acc halt` and `acc boot`"
    } else {
        "`acc reload`"
    };
    format!(
        "`{key}` is {in_force} in the running server, but {in_file} in the config: apply it with {way}"
    )
}
