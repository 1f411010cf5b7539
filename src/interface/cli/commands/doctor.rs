//! `acc doctor`: checks this host and suggests fixes.

use super::super::doctor::{self, Level};
use super::super::exit::CommandExit;
use super::super::in_force::Settings;
use super::super::output::{CommandEnd, Ui};
use super::super::progress;
use crate::service::error::ServiceError;

/// A config with faults is the first finding, not the end of the examination.
pub(in super::super) async fn run(
    ui: &mut Ui,
    settings: Result<Settings, ServiceError>,
) -> CommandEnd {
    let findings = match &settings {
        Ok(Settings { config, waiting }) => {
            let examined = doctor::examine(config, waiting.as_deref().unwrap_or_default());
            progress::watch(ui.style, config, "looking at this host", None, examined).await
        }
        Err(error) => doctor::without_config(error).await,
    };
    match ui.style.json {
        true => ui.json(&findings)?,
        false => ui.data(&doctor::text(&findings, ui.style.colour))?,
    }
    let bad = findings.iter().any(|finding| finding.level == Level::Bad);
    Ok(CommandExit::unless(bad))
}
