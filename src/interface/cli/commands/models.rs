//! `acc models`: what instances can be made from. A model that is wrong is named and does not hide
//! the others.

use serde_json::{Value, json};

use super::super::args::ModelsArgs;
use super::super::context::CommandContext;
use super::super::exit::CommandExit;
use super::super::output::CommandEnd;
use super::super::show;
use crate::domain::model::{Model, Param};
use crate::models::{find_model, list_models};
use crate::service::error::{ServiceError, chain};
use crate::service::launch_spec::bad_model;

pub(in super::super) fn run(call: &mut CommandContext<'_>, args: &ModelsArgs) -> CommandEnd {
    match &args.name {
        Some(name) => one(call, name),
        None => all(call),
    }
}

fn one(call: &mut CommandContext<'_>, name: &str) -> CommandEnd {
    let model = find_model(&call.config.models(), name).map_err(|e| bad_model(name, &e))?;
    match call.ui.style.json {
        true => call.ui.json(&as_json(&model))?,
        false => call.ui.data(&show::model(&model, call.ui.style.colour))?,
    }
    Ok(CommandExit::Done)
}

fn all(call: &mut CommandContext<'_>) -> CommandEnd {
    let folder = call.config.models();
    let all = list_models(&folder).map_err(|e| {
        ServiceError::because(
            format!("could not read the models in `{}`", folder.display()),
            &e,
            "`acc boot` installs the shipped ones",
        )
    })?;
    let ui = &mut *call.ui;
    let mut models = Vec::new();
    for model in all {
        match model {
            Ok(model) => models.push(model),
            Err(error) => ui.warn(&chain(&error)),
        }
    }
    if ui.style.json {
        ui.json(&models.iter().map(as_json).collect::<Vec<_>>())?;
    } else if models.is_empty() {
        ui.say("no models yet: `acc boot` installs the shipped models");
    } else {
        ui.data(&show::models(&models, ui.style.colour))?;
        if let Some(legend) = show::legend(&models) {
            ui.say(legend);
        }
        ui.say(&format!(
            "each model is a folder in {}; docs/models.md explains how to create one",
            folder.display()
        ));
    }
    Ok(CommandExit::Done)
}

fn as_json(model: &Model) -> Value {
    json!({
        "name": model.name,
        "description": model.description,
        "listen": show::listen_kind(model.listen),
        "ready": show::ready_kind(model.ready),
        "health": model.health,
        "dir": model.dir,
        "params": model.params.iter().map(param).collect::<Vec<_>>(),
    })
}

/// The default of a secret is a secret too.
fn param((name, param): (&String, &Param)) -> Value {
    let default = if param.secret {
        None
    } else {
        param.default.as_ref()
    };
    json!({ "name": name, "description": param.description, "required": param.required, "secret": param.secret, "default": default })
}
