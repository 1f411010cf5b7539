//! `acc man`: manual pages, from the command line's own definition.

use std::path::Path;

use clap::CommandFactory;

use super::super::args::Cli;
use super::super::exit::CommandExit;
use super::super::output::{CommandEnd, Ui};
use crate::host::fs;
use crate::service::error::ServiceError;

pub(in super::super) fn run(ui: &mut Ui, dir: Option<&Path>) -> CommandEnd {
    let Some(dir) = dir else {
        let mut text = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut text)?;
        ui.bytes(&text)?;
        return Ok(CommandExit::Done);
    };
    fs::make_dir(dir, 0o755)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
        .map_err(|e| {
            ServiceError::because(
                format!("could not write the pages into `{}`", dir.display()),
                &e,
                "check that this user may write there",
            )
        })?;
    ui.say(&format!(
        "wrote one page per command into `{}`",
        dir.display()
    ));
    Ok(CommandExit::Done)
}
