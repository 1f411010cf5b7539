//! `create`: row, folder, files, port or socket, edge entry, first start. An operation: what fails
//! or is cut off is undone.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::event_kind::EventKind;
use crate::domain::instance::DesiredState;
use crate::domain::lifecycle::{Cause, Event, Machine, Phase};
use crate::domain::model::{ListenKind, Model};
use crate::domain::name::{HostName, InstanceId, InstanceName, free_name};
use crate::domain::operation::OperationStep;
use crate::host::{fs, users};
use crate::models::resolve_params;
use crate::render;
use crate::service::error::{ErrorKind, ServiceError, chain};
use crate::service::handler::EntryPoint;
use crate::service::instance::free_port;
use crate::service::instance::handle::Handle;
use crate::service::instance::transition::{self, Settled};
use crate::service::outcome::{InstanceChange, Outcome};
use crate::service::request::NewInstance;
use crate::service::verbs::{destroy, failed_logs, finish, purge, reached_step, tried};
use crate::service::view::done;
use crate::service::world::World;
use crate::service::{access_logs, launch_spec, lookup, routes};
use crate::store::{Conflict, NewRow, StoreError};

/// How long one that has answered is watched: long enough to see the end of one that goes into the
/// background.
const STAYS: Duration = Duration::from_millis(30);

/// A request that makes sense.
struct Plan {
    name: InstanceName,
    model: Model,
    hosts: Vec<HostName>,
    params: std::collections::BTreeMap<String, String>,
    owner: Option<String>,
    idle: Option<Duration>,
    desired: DesiredState,
    asleep: bool,
}

pub(in crate::service) async fn run(
    world: &Arc<World>,
    entry: EntryPoint,
    new: &NewInstance,
) -> Result<Outcome, ServiceError> {
    let since = world.now();
    let (plan, _alone) = loop {
        let plan = plan(world, new).await?;
        if world.halting() {
            return Err(transition::halting("create", &plan.name));
        }
        let alone = world.building(plan.name.as_str()).await;
        // A name that acc chose may have been taken meanwhile: then it chooses the next.
        if new.name.is_some()
            || !world
                .store
                .has_name(plan.name.as_str())
                .map_err(crate::service::error::store)?
        {
            break (plan, alone);
        }
    };
    let plan = Arc::new(plan);
    let (made, new) = (world.clone(), plan.clone());
    let id = world.aside(move || insert(&made, entry, &new)).await?;
    match build(world, &plan, id).await {
        Ok(()) => {
            let _ = world.reached("create.done");
            done(world, &plan.name, InstanceChange::Created, false, since)
        }
        Err(e) => Err(undo(world, id, e).await),
    }
}

/// Checks everything that can be checked before anything is made.
async fn plan(world: &World, new: &NewInstance) -> Result<Plan, ServiceError> {
    let config = world.config();
    let model = launch_spec::model(&config, &new.model)?;
    launch_spec::check_runner(world, &model)?;
    let params = resolve_params(&model, &new.set).map_err(|e| {
        invalid(
            format!(
                "could not create from model `{}`: {}",
                model.name,
                chain(&e)
            ),
            &format!(
                "`acc models {}` shows its parameters; set one with --set NAME=VALUE",
                model.name
            ),
        )
    })?;
    let name = match &new.name {
        Some(name) => InstanceName::parse(name).map_err(|e| {
            invalid(
                format!("`{name}` cannot be an instance's name: {e}"),
                "use a DNS label: a-z, 0-9 and inner dashes, 63 at most",
            )
        })?,
        None => {
            let model = model.name.clone();
            world
                .read(move |store| free_name(&model, |n| store.has_name(n)))
                .await
                .map_err(crate::service::error::store)?
        }
    };
    let hosts = parse_hosts(&new.hosts)?;
    let desired = new.desired.unwrap_or(DesiredState::Auto);
    let owner = new.owner.as_deref().map(parse_owner).transpose()?;
    let idle = new.idle_ms.map(Duration::from_millis);
    if idle.is_some_and(|idle| idle.is_zero()) {
        return Err(invalid(
            "an idle timeout of zero would stop the instance at once".to_owned(),
            "give one such as 15m",
        ));
    }
    hosts_are_free(world, &name, &hosts).await?;
    Ok(Plan {
        name,
        model,
        hosts,
        params,
        owner,
        idle,
        desired,
        asleep: new.asleep || desired == DesiredState::Down,
    })
}

fn invalid(message: String, hint: &str) -> ServiceError {
    ServiceError::new(ErrorKind::Invalid, message, hint)
}

/// The hosts given for an instance, each once.
fn parse_hosts(texts: &[String]) -> Result<Vec<HostName>, ServiceError> {
    let mut hosts = Vec::new();
    for text in texts {
        // A Host header's port is ignored; given here, it would look as if it counted.
        if text.contains(':') {
            let hint = "leave the port out: an instance answers on all of `edge.listen`";
            return Err(invalid(
                format!("`{text}` is not a host name: it has a port"),
                hint,
            ));
        }
        let host = HostName::parse(text).map_err(|e| {
            invalid(
                format!("`{text}` is not a host name: {e}"),
                "give a host such as shop.example.org",
            )
        })?;
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    Ok(hosts)
}

/// The owner's e-mail address.
fn parse_owner(owner: &str) -> Result<String, ServiceError> {
    let odd = |c: char| c.is_whitespace() || c.is_control();
    if !owner.contains('@') || owner.contains(odd) {
        return Err(invalid(
            format!("`{owner}` is not an e-mail address"),
            "give one such as jane@example.org",
        ));
    }
    Ok(owner.to_owned())
}

/// No host may lead to two instances, also not by way of the default domain.
async fn hosts_are_free(
    world: &World,
    name: &InstanceName,
    hosts: &[HostName],
) -> Result<(), ServiceError> {
    let config = world.config();
    for host in launch_spec::hosts(&config, name, hosts) {
        if let Some(row) = lookup::row_of_host(world, &host).await?
            && row.name != *name
        {
            let message = format!("the host `{host}` belongs to instance `{}`", row.name);
            return Err(ServiceError::failed(
                message,
                format!(
                    "choose another host, or run `acc destroy {0}` and `acc purge {0}` first",
                    row.name
                ),
            ));
        }
    }
    Ok(())
}

/// Writes the row, with a free port for a TCP model. Nothing else exists yet.
fn insert(world: &World, entry: EntryPoint, plan: &Plan) -> Result<InstanceId, ServiceError> {
    let config = world.config();
    let machine = Machine::creating(plan.desired, world.now()).stored();
    // A port may be taken by another program between the check and the insert of another acc
    // process: try the next one.
    for _ in 0..10 {
        let port = match plan.model.listen {
            ListenKind::Unix | ListenKind::Fd => None,
            ListenKind::Tcp => Some(free_port::find(world)?),
        };
        let row = NewRow {
            name: &plan.name,
            model: &plan.model.name,
            port,
            params: &plan.params,
            owner: plan.owner.as_deref(),
            idle: plan.idle,
            hosts: &plan.hosts,
            created_at: world.clock.wall(),
            stored: &machine,
            boot: &world.boot,
            asked_by: entry.as_str(),
        };
        let id = match world.store.insert(&row) {
            Ok(id) => id,
            Err(StoreError::Taken(Conflict::Port(_))) => continue,
            Err(e @ StoreError::Taken(_)) => {
                return Err(ServiceError::failed(
                    format!("could not create `{}`: {}", plan.name, chain(&e)),
                    taken_hint(world, &plan.name),
                ));
            }
            Err(e) => return Err(crate::service::error::store(e)),
        };
        return match save_launch(world, plan, id, port) {
            Ok(()) => Ok(id),
            Err(e) => {
                // Nothing else exists yet. If this fails too, recovery undoes it.
                let at = world.clock.wall();
                let failed = world.store.fail(id, at, &e.message);
                let _ = failed.and_then(|()| world.store.delete(id, at));
                Err(e)
            }
        };
    }
    Err(free_port::none_left(&config))
}

/// The way out when something of a new instance is taken: often by a destroyed one that is not
/// purged yet.
fn taken_hint(world: &World, name: &InstanceName) -> String {
    match world.store.by_name(name.as_str()) {
        Ok(Some(row)) if row.stored.phase == Phase::Destroyed => {
            format!("free the name with `acc purge {name}`, or choose another")
        }
        _ => "choose another; `acc list` shows the instances".to_owned(),
    }
}

/// Renders how the instance is run, which needs its number, and saves that.
fn save_launch(
    world: &World,
    plan: &Plan,
    id: InstanceId,
    port: Option<u16>,
) -> Result<(), ServiceError> {
    world
        .reached("create.insert")
        .map_err(|e| step(plan, "writing its database row", e))?;
    let dir = world.config().instance_dir(plan.name.as_str());
    if fs::exists(&dir) {
        let message = format!(
            "could not create `{}`: its folder `{}` already exists",
            plan.name,
            dir.display()
        );
        return Err(ServiceError::failed(
            message,
            "move the folder away, or choose another name",
        ));
    }
    let context = launch_spec::context(world, &plan.name, id, &plan.hosts, port, &plan.params);
    let launch = launch_spec::make(&plan.model, &context)?;
    world
        .store
        .relaunch(id, &launch, &launch_spec::key(world))
        .map_err(crate::service::error::store)
}

/// Makes everything else; every step names itself in its error.
async fn build(world: &Arc<World>, plan: &Plan, id: InstanceId) -> Result<(), ServiceError> {
    let row = world
        .store
        .by_id(id)
        .map_err(crate::service::error::store)?
        .ok_or_else(|| crate::service::error::no_instance(plan.name.as_str()))?;
    world
        .reached("create.row")
        .map_err(|e| step(plan, "writing its database row", e))?;
    make_files(world, plan, &row)?;
    if row.port.is_some() || !row.hosts.is_empty() {
        reached_step(world, id, OperationStep::UpdateEdge);
        routes::apply(world)
            .await
            .map_err(|e| step(plan, "updating the edge", e))?;
    }
    world
        .reached("create.edge")
        .map_err(|e| step(plan, "updating the edge", e))?;
    let handle = world.handle(&row).await?;
    handle
        .ask(Event::Created)
        .await
        .map_err(|r| transition::refused("create", &plan.name, r))?;
    world
        .reached("create.made")
        .map_err(|e| step(plan, "putting it in service", e))?;
    if !plan.asleep {
        reached_step(world, id, OperationStep::Start);
        first_start(world, plan, &handle).await?;
        world
            .reached("create.started")
            .map_err(|e| step(plan, "starting it", e))?;
    }
    handle.caught_up(world).await;
    finish(world, id, "in service").await
}

fn step(plan: &Plan, step: &str, e: ServiceError) -> ServiceError {
    ServiceError {
        message: format!(
            "could not create `{}`: {step} failed, and all changes were undone: {}",
            plan.name, e.message
        ),
        ..e
    }
}

fn make_files(world: &World, plan: &Plan, row: &crate::store::Row) -> Result<(), ServiceError> {
    let config = world.config();
    let context = launch_spec::context(
        world,
        &plan.name,
        row.id,
        &plan.hosts,
        row.port,
        &plan.params,
    );
    let dir = config.instance_dir(plan.name.as_str());
    let hint = "check free space, owner and mode of that path, then try again";
    render::instance::files(&plan.model, &context, &dir).map_err(|e| {
        step(
            plan,
            "creating its files",
            launch_spec::cannot_render(&plan.model, chain(&e), &e),
        )
    })?;
    access_logs::make_new(&config, plan.name.as_str()).map_err(|e| {
        step(
            plan,
            "creating the folder of its access logs",
            ServiceError::failed(chain(&e), hint),
        )
    })?;
    world
        .reached("create.files")
        .map_err(|e| step(plan, "creating its files", e))?;
    users::settle(&dir, &launch_spec::account(world)).map_err(|e| {
        step(
            plan,
            "changing the owner of its files",
            ServiceError::failed(chain(&e), hint),
        )
    })?;
    world
        .reached("create.owner")
        .map_err(|e| step(plan, "changing the owner of its files", e))
}

async fn first_start(
    world: &Arc<World>,
    plan: &Plan,
    handle: &Arc<Handle>,
) -> Result<(), ServiceError> {
    let failed = match transition::start(world, handle, Cause::Operator).await {
        // A stop at this moment is no failure: the instance is created, and sleeps.
        Ok((_, Settled::There | Settled::Stopped)) => match ended_at_once(world, handle).await? {
            None => return Ok(()),
            Some(e) => e,
        },
        Ok((_, Settled::Failed(failure))) => transition::failed("start", &plan.name, &failure),
        Err(e) => e,
    };
    let said = failed_logs::keep(&world.config(), plan.name.as_str());
    let hint = format!(
        "fix the model or its parameters; use --asleep to create it without starting it{said}"
    );
    Err(ServiceError {
        hint,
        ..step(plan, "starting it", failed)
    })
}

/// It has answered: does it stay? One that goes into the background ends in this moment, and with
/// it what it has left. `None`: it stays, or a stop has put it to sleep.
async fn ended_at_once(
    world: &World,
    handle: &Handle,
) -> Result<Option<ServiceError>, ServiceError> {
    let mut changes = handle.follow();
    if tokio::time::timeout(STAYS, changes.wait_for(|seen| seen.phase != Phase::Awake))
        .await
        .is_err()
    {
        return Ok(None);
    }
    handle.caught_up(world).await;
    let last = world
        .store
        .events(Some(handle.instance.id), 1)
        .map_err(crate::service::error::store)?;
    let ended = handle.snapshot().phase == Phase::Failed
        || last
            .first()
            .is_some_and(|event| event.kind == EventKind::Ended);
    let message = "its first process exited right after it answered; it must run in the foreground, not as a daemon";
    Ok(ended.then(|| ServiceError::failed(message, "")))
}

/// Takes everything back; what cannot be taken back is said beside the error that was the cause.
async fn undo(world: &Arc<World>, id: InstanceId, cause: ServiceError) -> ServiceError {
    let undone = take_back(world, id, cause.message.clone()).await;
    match tried(world, id, undone).await {
        Ok(()) => cause,
        Err(e) => ServiceError {
            hint: format!(
                "{}; undo failed: {} (the next monitor run will finish it)",
                cause.hint, e.message
            ),
            ..cause
        },
    }
}

/// Undoes a create that was begun, for this reason: also after a crash of acc. It goes out of
/// service first: should the rest fail, no client is served by an instance that will be removed.
pub(in crate::service) async fn take_back(
    world: &Arc<World>,
    id: InstanceId,
    why: String,
) -> Result<(), ServiceError> {
    let Some(row) = world
        .store
        .by_id(id)
        .map_err(crate::service::error::store)?
    else {
        return Ok(());
    };
    if !matches!(row.stored.phase, Phase::Creating | Phase::Destroyed) {
        let handle = world.handle(&row).await?;
        destroy::stop_and_destroy(world, &handle, false).await?;
        world.reached("undo.stopped")?;
    }
    world
        .write(move |store| store.condemn(id, &why))
        .await
        .map_err(crate::service::error::store)?;
    world.reached("undo.condemned")?;
    purge::remove(world, &row).await
}
