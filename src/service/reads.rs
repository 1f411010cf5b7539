//! Answers what only reads: instances, events, models and logs, from the files of an installation.
//!
//! It needs no lock and no server, changes nothing, and never shows a secret.

use std::sync::Arc;

use async_trait::async_trait;

use crate::config::Config;
use crate::domain::lifecycle::Phase;
use crate::host::fs;
use crate::models::{find_model, list_models};
use crate::service::error::{self, ServiceError, chain};
use crate::service::handler::{Handler, RequestCaller};
use crate::service::launch_spec::bad_model;
use crate::service::lookup::find_row;
use crate::service::outcome::{InstanceInfo, Outcome};
use crate::service::request::{InstanceRef, Request};
use crate::service::{logs, view};
use crate::store::Store;
use crate::store::sqlite::SqliteStore;

/// Lines of the log that are shown of an instance that failed.
const TAIL: usize = 10;

/// Answers reads without a server, from the files.
pub struct Reader {
    config: Config,
}

impl Reader {
    /// Of this installation.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            config: config.clone(),
        }
    }
}

#[async_trait]
impl Handler for Reader {
    async fn answer(&self, _: &RequestCaller, request: Request) -> Result<Outcome, ServiceError> {
        let config = self.config.clone();
        let read = move || {
            let open = || -> Result<Arc<dyn Store>, ServiceError> {
                let store = SqliteStore::open_readonly(&config.database());
                Ok(Arc::new(store.map_err(error::store)?))
            };
            answer(&config, open, &request)
        };
        // Beside it a verb may be waited for.
        let read = tokio::task::spawn_blocking(read).await;
        read.unwrap_or_else(|e| Err(ServiceError::because("internal error", &e, "try again")))
    }
}

/// Answers one. The database is opened only for what needs it: models are there without one.
pub(super) fn answer(
    config: &Config,
    open: impl FnOnce() -> Result<Arc<dyn Store>, ServiceError>,
    request: &Request,
) -> Result<Outcome, ServiceError> {
    match request {
        Request::List(filter) => view::list(config, &*open()?, filter),
        Request::Info { instance } => info(config, &*open()?, instance),
        Request::Names => {
            let names = open()?.names().map_err(error::store)?;
            Ok(Outcome::Names { names })
        }
        Request::Events { instance, lines } => view::events(&*open()?, instance.as_ref(), *lines),
        Request::Models => models(config),
        Request::Model { model } => find_model(&config.models(), model)
            .map(|found| Outcome::Model(Box::new((&found).into())))
            .map_err(|e| bad_model(model, &e)),
        Request::Logs {
            instance,
            access,
            lines,
        } => {
            let row = find_row(&*open()?, instance)?;
            let lines = logs::last(logs::paths(config, row.name.as_str(), *access), *lines)?;
            Ok(Outcome::Logs { lines })
        }
        Request::Ping
        | Request::Settings
        | Request::Upgrade
        | Request::Reload
        | Request::Create(_)
        | Request::Start { .. }
        | Request::Stop { .. }
        | Request::Restart { .. }
        | Request::SetDesired { .. }
        | Request::Reset { .. }
        | Request::Destroy { .. }
        | Request::Purge { .. }
        | Request::Monitor { .. }
        | Request::Quiesce => Err(ServiceError::failed(
            format!("`{}` cannot be answered from the files", request.verb()),
            "start the server with `acc boot`",
        )),
    }
}

fn info(config: &Config, store: &dyn Store, given: &InstanceRef) -> Result<Outcome, ServiceError> {
    let row = find_row(store, given)?;
    let operation = view::operation(store, row.id)?;
    let instance = view::of_row(config, &row);
    let log_tail = (instance.phase == Phase::Failed)
        .then(|| fs::last_lines(&config.app_log(&instance.name), TAIL));
    Ok(Outcome::Info(Box::new(InstanceInfo {
        instance,
        operation,
        log_tail,
    })))
}

fn models(config: &Config) -> Result<Outcome, ServiceError> {
    let folder = config.models();
    let all = list_models(&folder).map_err(|e| {
        ServiceError::because(
            format!("could not read the models in `{}`", folder.display()),
            &e,
            "`acc boot` installs the shipped ones",
        )
    })?;
    let (mut models, mut faults) = (Vec::new(), Vec::new());
    for model in all {
        match model {
            Ok(model) => models.push((&model).into()),
            Err(error) => faults.push(chain(&error)),
        }
    }
    Ok(Outcome::Models { models, faults })
}
