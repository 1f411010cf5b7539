//! `acc config`: a config with faults does not get here, so `check` has only good news.

use super::super::Call;
use super::super::exit::Exit;
use super::super::output::End;
use crate::config::reload::{NEED_RESTART, differences};
use crate::interface::control::{self, Reply};
use crate::service::error::{ServiceError, chain};
use crate::service::outcome::Outcome;
use crate::service::request::Request;

/// `acc config check`.
pub(in super::super) fn check(call: &mut Call<'_>) -> End {
    let file = call.config.file.as_ref().map(|file| file.display().to_string());
    match &file {
        Some(file) => call.ui.say(&format!("`{file}` is good")),
        None => call.ui.say("there is no config file: the defaults are in force, and they are good"),
    }
    if call.ui.style.json {
        call.ui.json(&serde_json::json!({ "good": true, "file": file }))?;
    }
    Ok(Exit::Done)
}

/// `acc config show`: what the server works with; where the file says something else by now, that is named.
pub(in super::super) async fn show(call: &mut Call<'_>) -> End {
    let read = call.config.to_toml();
    let text = in_force(call).await.unwrap_or_else(|| read.clone());
    if call.ui.style.json {
        let value: serde_json::Value = toml::from_str(&text)
            .map_err(|e| ServiceError::because("could not turn the settings into JSON", &e, "report it please; without --json it works"))?;
        call.ui.json(&value)?;
    } else {
        call.ui.data(&text)?;
    }
    for line in waiting(&text, &read) {
        call.ui.warn(&line);
    }
    Ok(Exit::Done)
}

/// What the server works with; `None`: there is no server, and the next one will work with what the file says.
async fn in_force(call: &mut Call<'_>) -> Option<String> {
    let why = match control::call(&call.config.control_socket(), &Request::Settings).await {
        Ok(Reply::NoServer) => return None,
        Ok(Reply::Answered(Ok(Outcome::Settings { toml }))) => return Some(toml),
        Ok(Reply::Answered(Ok(other))) => format!("it answered {other:?}"),
        Ok(Reply::Answered(Err(e))) => e.message,
        Err(e) => chain(&e),
    };
    call.ui.warn(&format!("this is what the file says; the server could not be asked what is in force: {why}"));
    None
}

/// A line for each setting that is not in force as the file has it.
fn waiting(in_force: &str, read: &str) -> Vec<String> {
    // What cannot be compared is of an acc of another version, which `acc doctor` tells.
    let all = differences(in_force, read).unwrap_or_default();
    let way = |key: &str| match NEED_RESTART.contains(&key) {
        true => "`acc halt` and `acc boot` put that in force",
        false => "the server takes that over when it gets a SIGHUP",
    };
    all.iter().map(|d| format!("`{}` is {} in force, and {} in the file: {}", d.key, d.one, d.other, way(&d.key))).collect()
}
