//! Instances, events and models as everybody sees them, made from rows and files.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;

use crate::config::Config;
use crate::domain::instance::{Listen, RunId};
use crate::domain::lifecycle::Phase;
use crate::domain::model::{Model, Param};
use crate::domain::name::{InstanceId, InstanceName};
use crate::domain::operation::OperationState;
use crate::domain::time::{Timestamp, WallTime, millis};
use crate::host::clock::{Clock, SystemClock};
use crate::host::process;
use crate::models::open_params;
use crate::service::context::Context;
use crate::service::error::{self, ServiceError};
use crate::service::launch_spec;
use crate::service::lookup::find_row;
use crate::service::outcome::{
    EventView, InstanceChange, InstanceView, ListenView, ModelView, OperationView, Outcome,
    ParamView,
};
use crate::service::request::{InstanceRef, ListFilter};
use crate::store::{EventRow, Filter, OperationRow, Row, Store};

/// What stands for the value of a secret.
const MASK: &str = "****";

/// Instances by name.
pub(super) fn list(
    config: &Config,
    store: &dyn Store,
    filter: &ListFilter,
) -> Result<Outcome, ServiceError> {
    let rows = store
        .list(&Filter {
            phase: filter.phase.map(Phase::as_str),
            model: filter.model.as_deref(),
            after: filter.after.as_deref(),
            limit: filter.limit,
        })
        .map_err(error::store)?;
    let mut masks = Masks::default();
    let instances = rows.iter().map(|row| view(config, row, &mut masks));
    Ok(Outcome::Instances {
        instances: instances.collect(),
    })
}

/// The newest `lines` events, oldest first.
pub(super) fn events(
    store: &dyn Store,
    given: Option<&InstanceRef>,
    lines: usize,
) -> Result<Outcome, ServiceError> {
    let id = given
        .map(|g| find_row(store, g))
        .transpose()?
        .map(|row| row.id);
    let rows = store.events(id, lines).map_err(error::store)?;
    let phases = |text: Option<String>| text.and_then(|t| serde_json::from_str(&t).ok());
    let view = |e: EventRow| EventView {
        at: rfc3339(e.at),
        instance: e.name,
        kind: e.kind,
        detail: e.detail,
        phases: phases(e.phases),
    };
    Ok(Outcome::Events {
        events: rows.into_iter().map(view).collect(),
    })
}

impl From<&Model> for ModelView {
    fn from(model: &Model) -> Self {
        let param = |(name, param): (&String, &Param)| ParamView {
            default: param.default.clone().filter(|_| !param.secret),
            description: param.description.clone(),
            hidden_default: param.secret && param.default.is_some(),
            name: name.clone(),
            required: param.required,
            secret: param.secret,
        };
        Self {
            description: model.description.clone(),
            dir: model.dir.display().to_string(),
            health: model.health.clone(),
            listen: model.listen,
            name: model.name.clone(),
            params: model.params.iter().map(param).collect(),
            ready: model.ready,
        }
    }
}

/// Which parameters of each model may be shown; `None`: unknown.
#[derive(Default)]
struct Masks(BTreeMap<String, Option<BTreeSet<String>>>);

impl Masks {
    fn params(&mut self, config: &Config, row: &Row) -> BTreeMap<String, String> {
        if row.params.is_empty() {
            return BTreeMap::new();
        }
        let open = self
            .0
            .entry(row.model.clone())
            .or_insert_with(|| open_params(&config.models().join(&row.model)));
        let shown = |name: &String| open.as_ref().is_some_and(|open| open.contains(name));
        let masked = |(name, value): (&String, &String)| {
            (
                name.clone(),
                if shown(name) {
                    value.clone()
                } else {
                    MASK.to_owned()
                },
            )
        };
        row.params.iter().map(masked).collect()
    }
}

/// When a failed one may be started by a request again. Its time is of the boot clock and means
/// nothing after a reboot.
fn retry_at(row: &Row) -> Option<String> {
    if row.stored.phase != Phase::Failed || row.boot != process::boot_id() {
        return None;
    }
    let left = i64::try_from(row.stored.retry_at.since(SystemClock.now()).as_millis())
        .ok()
        .filter(|left| *left > 0)?;
    Some(rfc3339(WallTime(SystemClock.wall().0.saturating_add(left))))
}

/// The running operation of an instance, else its last one.
pub(super) fn operation(
    store: &dyn Store,
    id: InstanceId,
) -> Result<Option<OperationView>, ServiceError> {
    let row = store.last_operation(id).map_err(error::store)?;
    let runs = |o: &OperationRow| o.state == OperationState::Running;
    Ok(row.map(|o| OperationView {
        last_try_at: o.last_try_at.filter(|_| runs(&o)).map(rfc3339),
        last_error: o.last_error.clone().filter(|_| runs(&o)),
        kind: o.kind,
        state: o.state,
        step: o.step,
        started_at: rfc3339(o.started_at),
        ended_at: o.ended_at.map(rfc3339),
        error: o.result.filter(|_| o.state != OperationState::Done),
        asked_by: o.asked_by,
    }))
}

/// A row as a view.
pub(super) fn of_row(config: &Config, row: &Row) -> InstanceView {
    view(config, row, &mut Masks::default())
}

fn view(config: &Config, row: &Row, masks: &mut Masks) -> InstanceView {
    let hosts = launch_spec::hosts(config, &row.name, &row.hosts);
    let name = row.name.as_str();
    InstanceView {
        id: row.id.0,
        name: row.name.to_string(),
        model: row.model.clone(),
        phase: row.stored.phase,
        desired: row.stored.desired,
        url: hosts
            .first()
            .map(|h| launch_spec::url(config, h))
            .unwrap_or_default(),
        hosts: hosts.iter().map(ToString::to_string).collect(),
        listen: match launch_spec::listen(config, &row.name, row.port) {
            Listen::Unix(path) => ListenView::Unix(path.display().to_string()),
            Listen::Tcp(address) => ListenView::Tcp(address.to_string()),
        },
        handed: row.launch.as_ref().is_some_and(|l| l.handed),
        notifies: row.launch.as_ref().is_some_and(|l| l.notifies),
        pid: row
            .stored
            .phase
            .is_live()
            .then_some(row.stored.run_id.as_ref())
            .flatten()
            .and_then(RunId::process)
            .map(|p| p.pid),
        owner: row.owner.clone(),
        idle_timeout_s: row.idle.unwrap_or(config.idle.timeout).as_secs_f64(),
        created_at: rfc3339(row.created_at),
        last_wake_at: row.last_wake_at.map(rfc3339),
        last_active_at: last_used(config, row).map(rfc3339),
        wakes: row.wakes,
        failure: row.stored.failure.as_ref().map(ToString::to_string),
        retry_at: retry_at(row),
        params: masks.params(config, row),
        dir: config.instance_dir(name).display().to_string(),
    }
}

/// When it was last in use. What nginx let through since the last monitor run is only in the access
/// log yet; of one that sleeps and was used after its last wake all has been written down, so that
/// ten thousand sleepers need no check of as many files.
fn last_used(config: &Config, row: &Row) -> Option<WallTime> {
    let known = row.last_active_at;
    if !row.stored.phase.is_live() && known.is_some() && known >= row.last_wake_at {
        return known;
    }
    let log = std::fs::symlink_metadata(config.access_log(row.name.as_str()))
        .ok()
        .filter(|data| data.len() > 0);
    let written = log.map(|data| {
        WallTime(data.mtime() * 1000 + data.mtime_nsec() / 1_000_000).min(SystemClock.wall())
    });
    known.max(written)
}

/// RFC 3339 in UTC, to the millisecond.
fn rfc3339(at: WallTime) -> String {
    jiff::Timestamp::from_millisecond(at.0)
        .map(|t| format!("{t:.3}"))
        .unwrap_or_default()
}

/// The outcome of a verb on one instance.
pub(super) fn done(
    ctx: &Context,
    name: &InstanceName,
    did: InstanceChange,
    already: bool,
    since: Timestamp,
) -> Result<Outcome, ServiceError> {
    let took = ctx.now().since(since);
    let instance = of_row(&ctx.config(), &find_row(&*ctx.store, &name.into())?);
    Ok(Outcome::Instance {
        did,
        already,
        took_ms: millis(took),
        instance: Box::new(instance),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::env::Env;
    use crate::domain::instance::DesiredState;
    use crate::domain::lifecycle::Machine;

    fn row(params: &[(&str, &str)]) -> Row {
        Row {
            id: InstanceId(1),
            name: InstanceName::parse("shop").unwrap(),
            model: "m".to_owned(),
            port: None,
            params: params
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            launch: None,
            launch_key: String::new(),
            owner: None,
            idle: None,
            hosts: Vec::new(),
            created_at: WallTime(0),
            last_wake_at: None,
            last_active_at: None,
            wakes: 0,
            stored: Machine::creating(DesiredState::Auto, SystemClock.now()).stored(),
            boot: process::boot_id(),
            log_mark: (0, 0, 0),
            checked_at: SystemClock.now(),
            clock: None,
        }
    }

    #[test]
    fn secrets_are_masked_and_everything_without_a_model() {
        let dir = tempfile::tempdir().unwrap();
        let config = crate::config::load(
            None,
            &Env::bare(0, dir.path()).with("ACC_HOME", dir.path().join("h")),
        )
        .unwrap();
        let row = row(&[("greeting", "hello"), ("key", "s3cret"), ("former", "x")]);
        let shown = || {
            of_row(&config, &row)
                .params
                .into_values()
                .collect::<Vec<_>>()
        };
        assert_eq!(shown(), ["****", "****", "****"]);
        let model = config.models().join("m");
        std::fs::create_dir_all(&model).unwrap();
        std::fs::write(
            model.join("model.toml"),
            "command = [\"a\"]\n[params.greeting]\n[params.key]\nsecret = true\n",
        )
        .unwrap();
        assert_eq!(
            shown(),
            ["****", "hello", "****"],
            "of former, greeting, key"
        );
        std::fs::write(
            model.join("model.toml"),
            "[params.greeting]\n[params.key]\nsecret = \"yes\"\n",
        )
        .unwrap();
        assert_eq!(
            shown(),
            ["****", "****", "****"],
            "a model that is wrong says nothing of secrets"
        );
    }

    #[test]
    fn used_is_what_somebody_has_used_and_the_log_is_asked_where_nobody_has_looked_yet() {
        let dir = tempfile::tempdir().unwrap();
        let config = crate::config::load(
            None,
            &Env::bare(0, dir.path()).with("ACC_HOME", dir.path().join("h")),
        )
        .unwrap();
        let mut row = row(&[]);
        row.stored.phase = Phase::Asleep;
        assert_eq!(last_used(&config, &row), None);
        let log = config.access_log("shop");
        std::fs::create_dir_all(log.parent().unwrap()).unwrap();
        std::fs::write(&log, "").unwrap();
        assert_eq!(last_used(&config, &row), None, "an empty log");
        std::fs::write(&log, "GET /\n").unwrap();
        let at = last_used(&config, &row).unwrap();
        assert!(at <= SystemClock.wall() && at.0 > SystemClock.wall().0 - 60_000);
        (row.last_wake_at, row.last_active_at) = (Some(WallTime(5)), Some(WallTime(7)));
        assert_eq!(
            last_used(&config, &row),
            Some(WallTime(7)),
            "all has been written down"
        );
        row.last_wake_at = Some(WallTime(8));
        assert_eq!(last_used(&config, &row), Some(at));
    }

    #[test]
    fn a_failed_one_says_when_it_may_be_tried() {
        let mut row = row(&[]);
        row.stored.retry_at = SystemClock.now().after(std::time::Duration::from_secs(60));
        assert_eq!(retry_at(&row), None, "it has not failed");
        row.stored.phase = Phase::Failed;
        let at: jiff::Timestamp = retry_at(&row).unwrap().parse().unwrap();
        let left = at.as_millisecond() - SystemClock.wall().0;
        assert!((50_000..=60_000).contains(&left), "{left}");
        row.boot = "another".to_owned();
        assert_eq!(retry_at(&row), None);
    }
}
