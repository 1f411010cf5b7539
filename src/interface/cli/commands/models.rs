//! `acc models`: what instances can be made from. A model that is wrong is named and does not hide
//! the others.

use super::super::args::ModelsArgs;
use super::super::context::CommandContext;
use super::super::exit::CommandExit;
use super::super::output::CommandEnd;
use super::super::show;
use crate::service::error::unexpected;
use crate::service::outcome::{ModelView, Outcome};
use crate::service::request::Request;

pub(in super::super) async fn run(call: &mut CommandContext<'_>, args: &ModelsArgs) -> CommandEnd {
    let request = match args.name.clone() {
        Some(model) => Request::Model { model },
        None => Request::Models,
    };
    match call.ask(request).await? {
        Outcome::Model(model) => one(call, &model),
        Outcome::Models { models, faults } => all(call, &models, &faults),
        _ => Err(unexpected().into()),
    }
}

fn one(call: &mut CommandContext<'_>, model: &ModelView) -> CommandEnd {
    match call.ui.style.json {
        true => call.ui.json(model)?,
        false => call.ui.data(&show::model(model, call.ui.style.colour))?,
    }
    Ok(CommandExit::Done)
}

fn all(call: &mut CommandContext<'_>, models: &[ModelView], faults: &[String]) -> CommandEnd {
    let folder = call.config.models();
    let ui = &mut *call.ui;
    faults.iter().for_each(|fault| ui.warn(fault));
    if ui.style.json {
        ui.json(models)?;
    } else if models.is_empty() {
        ui.say("no models yet: `acc boot` installs the shipped models");
    } else {
        ui.data(&show::models(models, ui.style.colour))?;
        if let Some(legend) = show::legend(models) {
            ui.say(legend);
        }
        ui.say(&format!(
            "each model is a folder in {}; docs/models.md explains how to create one",
            folder.display()
        ));
    }
    Ok(CommandExit::Done)
}
