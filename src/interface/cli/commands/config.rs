//! `acc config`: a config with faults does not get here, so `check` has only good news.

use super::super::Call;
use super::super::exit::Exit;
use super::super::output::End;
use crate::service::error::ServiceError;

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

/// `acc config show`.
pub(in super::super) fn show(call: &mut Call<'_>) -> End {
    let text = call.config.to_toml();
    if call.ui.style.json {
        let value: serde_json::Value = toml::from_str(&text)
            .map_err(|e| ServiceError::because("could not turn the settings into JSON", &e, "report it please; without --json it works"))?;
        call.ui.json(&value)?;
    } else {
        call.ui.data(&text)?;
    }
    Ok(Exit::Done)
}
