//! Services that outlived their supervisord: it was killed, and nginx and acc's server, its
//! children, go on.
//!
//! They are not replaced: each request that they hold, and each connection, would be lost. The next
//! supervisord does not start a second nginx beside the surviving one, which holds the port; when
//! that ends it is started by the process that keeps services running. It does start a second acc
//! server: that one waits for the owner's lock, does nothing else, and takes over at once when the
//! first ends. A survivor whose command is outdated is ended, unless it is the
//! one that asks.
//!
//! The record of a survivor is kept apart from the record of what the running supervisord has
//! started.

use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Duration;

use crate::domain::instance::Process;
use crate::host::process;

use super::super::{SERVER, Service, SupervisorError, pid_file};
use super::handle::{Supervisord, end, kernel};
use super::sections::{SectionMatch, group_name};

/// How often, and with which pauses, it is looked for after the start of supervisord.
const STANDBY_CHECKS: u32 = 100;
const STANDBY_PAUSE: Duration = Duration::from_millis(20);

/// Is the service started together with a supervisord that these have outlived?
pub(super) fn starts_beside(service: &Service, survivors: &[&str]) -> bool {
    // It may be started while another of it runs.
    service.name == SERVER || !survivors.contains(&service.name)
}

impl Supervisord {
    fn survivor_path(&self, name: &str) -> PathBuf {
        pid_file::service_file(&self.settings.pid_dir, &format!("{name}_before"))
    }

    /// The process of a service that has outlived an earlier supervisord.
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

    /// Is it acc's master above this process?
    fn is_own(&self, process: Process) -> bool {
        *self.master.lock().unwrap_or_else(PoisonError::into_inner) == Some(process)
    }

    /// The services that have outlived the supervisord that is gone and are as they should be; all
    /// others are ended.
    pub(super) async fn survivors(
        &self,
        services: &[Service],
    ) -> Result<Vec<&'static str>, SupervisorError> {
        let mut found = Vec::new();
        for service in services {
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
                // It outlives its second supervisord: what that one had started only stood by.
                self.end_recorded(service, &path).await?;
                found.push(service.name);
            } else if unchanged && let Some(process) = pid_file::living(&path)? {
                tracing::info!(
                    service = service.name,
                    pid = process.pid,
                    "still running without its supervisord"
                );
                std::fs::rename(&path, &before).map_err(|source| SupervisorError::File {
                    deed: "rename",
                    path,
                    source,
                })?;
                found.push(service.name);
            } else {
                self.end_recorded(service, &path).await?;
                self.end_recorded(service, &before).await?;
            }
        }
        Ok(found)
    }

    /// Waits for the second acc server, so that it is on record and can be ended. One that does not
    /// come is supervisord's matter.
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

    /// Was the service run by the command that is wanted now?
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

    /// Never acc's master above this process: no server would be left to go on.
    async fn end_recorded(
        &self,
        service: &Service,
        path: &std::path::Path,
    ) -> Result<(), SupervisorError> {
        if let Some(process) = pid_file::living(path)?.filter(|process| !self.is_own(*process)) {
            // Meant and harmless: it is ended because it was to be ended.
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

    /// Ends one that has outlived an earlier supervisord, if there is one.
    pub(super) async fn end_survivor(&self, service: &Service) -> Result<(), SupervisorError> {
        self.end_recorded(service, &self.survivor_path(service.name))
            .await
    }
}
