//! What every command is given: where to print, whom to ask, and the settings to go by.

use super::engine::Engine;
use super::in_force;
use super::output::Ui;
use crate::config::Config;
use crate::config::reload::Difference;
use crate::service::error::ServiceError;
use crate::service::outcome::Outcome;
use crate::service::request::Request;

/// What every command is given.
pub(super) struct CommandContext<'a> {
    pub(super) ui: &'a mut Ui,
    pub(super) engine: &'a dyn Engine,
    /// The settings.
    pub(super) config: &'a Config,
    /// What the config file says otherwise by now; `None`: the settings are those of the file.
    pub(super) waiting: Option<&'a [Difference]>,
}

impl CommandContext<'_> {
    /// Has a request answered.
    pub(super) async fn ask(&self, request: Request) -> Result<Outcome, ServiceError> {
        self.engine.dispatch(self.config, request).await
    }

    /// Says beside what was shown that it goes by what is in force, when the file says otherwise.
    pub(super) fn say_what_waits(&mut self) {
        if let Some(line) =
            in_force::about_what_is_shown(self.config, self.waiting.unwrap_or_default())
        {
            self.ui.warn(&line);
        }
    }
}
