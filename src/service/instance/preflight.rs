//! A start and the ground for it: what is in its way, and what can be done about it. A port was
//! chosen by acc, so when another program has taken it acc chooses another: row and launch at once,
//! the edge after them.
//!
//! It ends no program that is in the way, and gives no port away that might be the instance's own
//! after all.

use std::sync::Arc;

use tracing::warn;

use crate::domain::event_kind::EventKind;
use crate::domain::instance::{Instance, Launch, RunId, RunnerKind};
use crate::domain::model::ListenKind;
use crate::driver::probe::{NotifySocket, Obstacle};
use crate::driver::supervisor::{Program, SupervisorError};
use crate::render;
use crate::service::context::Context;
use crate::service::error::{ServiceError, chain, store as store_error};
use crate::service::instance::handle::Handle;
use crate::service::instance::revive::ASK_AGAIN;
use crate::service::instance::{free_port, revive};
use crate::service::outcome::MonitorAction;
use crate::service::{events, launch_spec, routes};
use crate::store::{Row, StoreError};

/// How many ports are tried for one start: each may be taken between check and use.
const TRIES: u32 = 5;

/// What a start finds.
pub(in crate::service) enum Ground {
    /// Nothing in the way of this program; where it will be heard.
    Clear(Box<Program>, Option<NotifySocket>),
    /// The instance itself: started earlier, when the answer of the supervisor was lost.
    Own(RunId),
}

/// Clears the way for a start. An error says what is in the way, and why nothing can be done about
/// it.
pub(in crate::service) async fn clear(
    ctx: &Arc<Context>,
    handle: &Handle,
) -> Result<Ground, String> {
    let mut tries = 0;
    loop {
        let instance = handle.launched();
        let obstacle = match ctx
            .probe
            .clear(&launch_spec::probe_target(ctx, &instance))
            .await
        {
            Ok(notify_socket) => {
                return Ok(Ground::Clear(
                    Box::new(launch_spec::program(ctx, &instance)),
                    notify_socket,
                ));
            }
            Err(obstacle) => obstacle,
        };
        let why = obstacle.to_string();
        match (revive::find(ctx, &instance).await, obstacle) {
            (Ok(Some(run_id)), _) => return Ok(Ground::Own(run_id)),
            (Ok(None), Obstacle::Port(_)) if tries < TRIES => tries += 1,
            (Ok(None), Obstacle::Socket(_)) if tries < TRIES => {
                tries += 1;
                warn!(instance = %instance.name, "{why}; removing it");
                ctx.probe.evict(&launch_spec::probe_target(ctx, &instance));
                continue;
            }
            // A supervisor that cannot be queried may have it running.
            _ => return Err(why),
        }
        if let Err(e) = relocate(ctx, handle, &instance, &why).await {
            return Err(format!("{why}; no other port is available: {}", e.message));
        }
    }
}

/// Gives it another port.
async fn relocate(
    ctx: &Arc<Context>,
    handle: &Handle,
    instance: &Instance,
    why: &str,
) -> Result<(), ServiceError> {
    let id = instance.id;
    let row = ctx
        .read(move |store| store.by_id(id))
        .await
        .map_err(store_error)?;
    let row = row.ok_or_else(|| crate::service::error::no_instance(instance.name.as_str()))?;
    // A gate to the old port would lead to the program that has it now.
    ctx.edge
        .forget(&row.name)
        .await
        .map_err(|e| routes::edge("could not close its gate", &e))?;
    let Choice {
        port,
        launch,
        changed,
    } = choose(ctx, &row).await?;
    let changed = if changed {
        " (its model has changed since it was created, and applies from now on)"
    } else {
        ""
    };
    let moved = Instance {
        listen: launch_spec::listen(&ctx.config(), &row.name, Some(port)),
        launch,
        ..instance.clone()
    };
    let detail = format!(
        "from port {} to {port}, because {why}{changed}",
        row.port.unwrap_or(0)
    );
    handle.relaunch(moved);
    events::line(ctx, instance, EventKind::PortChanged, detail, None);
    route(ctx).await;
    Ok(())
}

/// Another port, and how it is run there.
struct Choice {
    port: u16,
    launch: Launch,
    /// More than the port is different.
    changed: bool,
}

/// Finds a port and writes it down with the launch.
async fn choose(ctx: &Context, row: &Row) -> Result<Choice, ServiceError> {
    let model = launch_spec::model(&ctx.config(), &row.model)?;
    if model.listen != ListenKind::Tcp {
        let message = format!("its model `{}` no longer listens on a port", row.model);
        return Err(ServiceError::failed(message, "create the instance again"));
    }
    let context =
        |port| launch_spec::context(ctx, &row.name, row.id, &row.hosts, port, &row.params);
    let before = launch_spec::make(&model, &context(row.port))?;
    loop {
        let port = free_port::find(ctx)?;
        let named = render::instance::differs(&model, &context(row.port), &context(Some(port)));
        if let Some(file) = named.map_err(|e| launch_spec::cannot_render(&model, chain(&e), &e))? {
            let message = format!(
                "its file `{}` contains the port, and may have been changed since it was created",
                file.display()
            );
            return Err(ServiceError::failed(
                message,
                "set the port in `command` or `[env]` of the model instead",
            ));
        }
        let launch = launch_spec::make(&model, &context(Some(port)))?;
        let (id, key, made) = (row.id, launch_spec::key(ctx), launch.clone());
        match ctx
            .write(move |store| store.relocate(id, port, &made, &key))
            .await
        {
            Ok(()) => {
                return Ok(Choice {
                    port,
                    launch,
                    changed: row.launch.as_ref() != Some(&before),
                });
            }
            // Another instance was given it just now.
            Err(StoreError::Taken(_)) => {}
            Err(e) => return Err(store_error(e)),
        }
    }
}

/// Updates the edge. No request needs to wait for that where it can come through the wake server
/// meanwhile, which knows.
async fn route(ctx: &Arc<Context>) {
    let context = ctx.clone();
    let telling = async move {
        if let Err(e) = routes::apply(&context).await {
            warn!(
                "could not update the port in the edge; requests go through acc: {}",
                e.message
            );
        }
    };
    if ctx.serving() {
        drop(ctx.hands.spawn(telling))
    } else {
        telling.await
    }
}

/// Starts it. A supervisor that has died is brought back, and one that cannot be asked is asked
/// again for as long as a request may be held (`wake.timeout`): waiting clients do not notice.
pub(in crate::service) async fn start(
    ctx: &Arc<Context>,
    kind: &RunnerKind,
    program: &Program,
) -> Result<RunId, SupervisorError> {
    let runner = ctx.runners.of(kind)?;
    let give_up = ctx
        .now()
        .after(ctx.config().wake.timeout.saturating_sub(ASK_AGAIN));
    loop {
        match runner.start(program).await {
            Err(SupervisorError::Unreachable { .. }) if ctx.now() < give_up => {
                let revived = revive::revive(ctx).await;
                if let Some(line) = &revived {
                    warn!(instance = %program.name, "{}: {}", line.instance, line.why);
                }
                // One that was brought back answers.
                if revived.is_none_or(|line| line.action == MonitorAction::Error) {
                    tokio::time::sleep(ASK_AGAIN).await;
                }
            }
            other => return other,
        }
    }
}
