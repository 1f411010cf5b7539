//! The run folder of a running server: makes again what a cleaner of temporary folders has removed,
//! and keeps those cleaners away that respect locks.
//!
//! The server can restore it all: the notes and the processes are in its memory, its sockets and
//! locks are open. It removes nothing, and restores nothing while acc halts. The files of
//! supervisord, nginx and the instances are restored by their own parts of a monitor run.

use std::sync::Arc;

use crate::config::Config;
use crate::domain::instance::RunId;
use crate::domain::name::InstanceName;
use crate::driver::supervisor::{SERVER, SupervisorError};
use crate::service::error::chain;
use crate::service::instance::handle::Handle;
use crate::service::monitor::own_services::report;
use crate::service::outcome::{MonitorAction, MonitorLine, MonitorRun};
use crate::service::places;
use crate::service::world::World;

/// Those that run, as far as the server knows.
pub(in crate::service) fn running(world: &World) -> Vec<(Arc<Handle>, RunId)> {
    let known = world
        .registry
        .all()
        .into_iter()
        .filter(|handle| handle.known());
    known
        .filter_map(|handle| Some((handle.clone(), handle.machine().run_id()?.clone())))
        .collect()
}

/// Makes again what is gone; what was done is a line of the run.
pub(in crate::service) async fn keep(world: &Arc<World>, run: &mut MonitorRun) {
    if !world.serving() {
        return;
    }
    let config = world.config();
    let mut again = Vec::new();
    if places::one_is_gone(&config) {
        match places::prepare(&config) {
            Ok(()) => again.push("folders".to_owned()),
            Err(e) => {
                return run
                    .lines
                    .push(MonitorLine::new("acc", MonitorAction::Error, e.message));
            }
        }
    }
    world.run_folder.learn(&config);
    match world.run_folder.write_lost() {
        Ok(notes) => again.extend(notes),
        Err(e) => run.lines.push(MonitorLine::new(
            "acc",
            MonitorAction::Error,
            format!("could not write a note in `{}`: {e}", config.run.display()),
        )),
    }
    match records(world, &config).await {
        Ok(0) => {}
        Ok(count) => again.push(format!("the records of {count} processes")),
        Err(e) => run
            .lines
            .push(MonitorLine::new("acc", MonitorAction::Error, chain(&e))),
    }
    if let Some(path) = world.run_folder.lost() {
        world.run_folder.expect_replacement(world.now());
        world.want_sockets();
        again.extend(
            path.file_name()
                .map(|name| format!("`{}`", name.to_string_lossy())),
        );
    }
    if !again.is_empty() {
        report(
            world,
            "acc",
            format!(
                "files in `{}` were missing; creating them again: {}",
                config.run.display(),
                again.join(", ")
            ),
            run,
        );
    }
    let awake: Vec<InstanceName> = running(world)
        .into_iter()
        .map(|(handle, _)| handle.instance.name.clone())
        .collect();
    world
        .run_folder
        .keep_cleaners_away(&config, world.now(), &awake);
}

/// Which process each instance and service is: how many were written down again.
async fn records(world: &World, config: &Config) -> Result<usize, SupervisorError> {
    let mut count = 0;
    for (handle, run_id) in running(world) {
        let name = &handle.instance.name;
        count += usize::from(
            world
                .runner(&handle.launched())?
                .restore_record(name, &run_id, &config.app_log(name.as_str()))
                .await?,
        );
    }
    if let Some(master) = world.master() {
        count += usize::from(
            world
                .own_services
                .restore_service_record(SERVER, master)
                .await?,
        );
    }
    if let Ok(Some(edge)) = world.edge.process().await {
        count += usize::from(
            world
                .own_services
                .restore_service_record(world.edge.kind(), edge)
                .await?,
        );
    }
    Ok(count)
}
