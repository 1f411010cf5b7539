//! Services that outlived their supervisord: it was killed, and its children nginx and acc's server
//! continue.
//!
//! They are not replaced, because every request and connection that they hold would be lost. The
//! next supervisord does not start a second nginx beside the surviving one, which holds the port;
//! when that ends, a monitor run starts a new one. It does start a second acc server: that one
//! waits for the owner's lock, does nothing else, and takes over at once when the first ends. A
//! survivor with an outdated command is ended, unless it is the server that asks.
//!
//! The pid file of a survivor is kept apart from that of the process that the running supervisord
//! has started.

use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Duration;

use crate::domain::instance::Process;
use crate::host::{command_line, process};

use super::super::{SERVER, Service, SupervisorError, pid_file};
use super::handle::{Supervisord, end, kernel};
use super::sections::{SectionMatch, group_name};

/// How often, and with which pauses, it is looked for after the start of supervisord.
const STANDBY_CHECKS: u32 = 100;
const STANDBY_PAUSE: Duration = Duration::from_millis(20);

/// Whether to start the service together with a supervisord, given these survivors.
pub(super) fn starts_beside(service: &Service, survivors: &[&str]) -> bool {
    // It may be started while another of it runs.
    service.name == SERVER || !survivors.contains(&service.name)
}

impl Supervisord {
    fn survivor_path(&self, name: &str) -> PathBuf {
        self.service_path(&format!("{name}_before"))
    }

    /// The process of a service that outlived an earlier supervisord.
    pub(super) fn survivor(&self, name: &str) -> Result<Option<Process>, SupervisorError> {
        pid_file::living(&self.survivor_path(name))
    }

    /// Writes the record of a service again that was taken away; one that has outlived an earlier
    /// supervisord has it elsewhere.
    pub(super) fn restore_record_of_service(
        &self,
        name: &str,
        process: Process,
    ) -> Result<bool, SupervisorError> {
        if self.survivor(name)?.is_some() {
            Ok(false)
        } else {
            pid_file::restore(&self.service_path(name), process, std::path::Path::new(""))
        }
    }

    /// Records a service that runs with this command although no record names it, so that it is not
    /// started twice. Several of acc's own server may run, and its lock tells which one serves.
    pub(super) fn record_running(&self, service: &Service) -> Result<bool, SupervisorError> {
        let path = self.service_path(service.name);
        if service.name == SERVER
            || self.survivor(service.name)?.is_some()
            || pid_file::living(&path)?.is_some()
        {
            return Ok(false);
        }
        let found = command_line::find(&service.argv).map_err(|e| kernel(service.name, &e))?;
        found.map_or(Ok(false), |process| {
            pid_file::restore(&path, process, &service.log)
        })
    }

    /// Makes the process on record one that has outlived its supervisord.
    pub(super) fn set_aside(&self, name: &str) -> Result<(), SupervisorError> {
        let path = self.service_path(name);
        std::fs::rename(&path, self.survivor_path(name)).map_err(|source| SupervisorError::File {
            action: "rename",
            path,
            source,
        })
    }

    /// Whether this process is the master above acc's server that asks.
    fn is_own(&self, process: Process) -> bool {
        *self.master.lock().unwrap_or_else(PoisonError::into_inner) == Some(process)
    }

    /// The services that outlived the dead supervisord and have the right command; ends all others.
    pub(super) async fn survivors(
        &self,
        services: &[Service],
    ) -> Result<Vec<&'static str>, SupervisorError> {
        let mut found = Vec::new();
        for service in services {
            self.record_running(service)?;
            let (path, before) = (
                self.service_path(service.name),
                self.survivor_path(service.name),
            );
            let itself = [pid_file::living(&path)?, self.survivor(service.name)?]
                .into_iter()
                .flatten()
                .any(|p| self.is_own(p));
            let unchanged = itself || self.has_section_of(service)?;
            if unchanged && pid_file::living(&before)?.is_some() {
                // It outlives its second supervisord: the process which that one started only stood
                // by.
                self.end_recorded(service, &path).await?;
                found.push(service.name);
            } else if unchanged && let Some(process) = pid_file::living(&path)? {
                tracing::info!(
                    service = service.name,
                    pid = process.pid,
                    "still running without its supervisord"
                );
                self.set_aside(service.name)?;
                found.push(service.name);
            } else {
                self.end_recorded(service, &path).await?;
                self.end_recorded(service, &before).await?;
            }
        }
        Ok(found)
    }

    /// Waits for the second acc server, so that it is recorded and can be ended. If it does not
    /// appear, supervisord deals with it.
    pub(super) async fn record_standby(&self, survivors: &[&str]) -> Result<(), SupervisorError> {
        if survivors.contains(&SERVER) {
            for _ in 0..STANDBY_CHECKS {
                if self.find_service(SERVER).await? != self.survivor(SERVER)? {
                    break;
                }
                tokio::time::sleep(STANDBY_PAUSE).await;
            }
        }
        Ok(())
    }

    /// Whether the service runs with the command that it should have now.
    fn has_section_of(&self, service: &Service) -> Result<bool, SupervisorError> {
        for autostart in [true, false] {
            if self.services.kept.compare(
                &group_name(service.name),
                &self.service_text(service, autostart)?,
            )? == SectionMatch::Same
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Never ends acc's own master: no server would be left to continue.
    async fn end_recorded(
        &self,
        service: &Service,
        path: &std::path::Path,
    ) -> Result<(), SupervisorError> {
        if let Some(process) = pid_file::living(path)?.filter(|process| !self.is_own(*process)) {
            // Expected; the operator need not act.
            tracing::info!(
                service = service.name,
                pid = process.pid,
                "ending a service whose supervisord has died"
            );
            process::signal_one(process, service.stop_signal)
                .map_err(|e| kernel(service.name, &e))?;
            end(service.name, process, service.stop_timeout).await?;
        }
        pid_file::remove(path)
    }

    /// Ends a survivor of this service, if there is one.
    pub(super) async fn end_survivor(&self, service: &Service) -> Result<(), SupervisorError> {
        self.end_recorded(service, &self.survivor_path(service.name))
            .await
    }
}
