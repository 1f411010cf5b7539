//! The services under supervisord (nginx, acc's server), and the start of supervisord with them.
//!
//! supervisord restarts a service that ends by itself. Only a boot changes the command of a running
//! service. `orphans` handles services whose supervisord died.

use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::UnixStream;

use crate::domain::instance::Process;
use crate::host::{fs::make_dir, process};
use crate::render::supervisord::{self as texts, DaemonText, SectionError, ServiceText};

use super::super::{Ensured, OwnServices, Service, SupervisorError, pid_file, preflight};
use super::daemon::Presence;
use super::group::{Launched, ProgramGroup, state, unreachable};
use super::handle::{Supervisord, end, kernel, whole_seconds};
use super::orphans::starts_beside;
use super::sections::{SectionMatch, group_name, write_if_other};

impl Supervisord {
    /// The record of a service is not in the run folder: without it a second nginx would be started
    /// beside one that has outlived its supervisord, and no cleaner comes here.
    pub(super) fn service_path(&self, name: &str) -> PathBuf {
        pid_file::service_file(&self.settings.dir, name)
    }

    fn service_group<'a>(&'a self, group: &'a str, service: &'a str) -> ProgramGroup<'a> {
        ProgramGroup {
            client: &self.daemon.client,
            sections: &self.services,
            name: group,
            shown: service,
        }
    }

    /// The section of a service; without `autostart` it is started only on request.
    pub(super) fn service_text(
        &self,
        service: &Service,
        autostart: bool,
    ) -> Result<String, SupervisorError> {
        let text = ServiceText {
            name: &group_name(service.name),
            program: &preflight::service(service)?,
            args: service.argv.get(1..).unwrap_or_default(),
            log: &service.log,
            stop_signal: service.stop_signal,
            stop_wait: whole_seconds(service.stop_timeout),
            autostart,
        };
        if let Some(dir) = service.log.parent() {
            make_dir(dir, 0o755).map_err(|source| SupervisorError::File {
                action: "make",
                path: dir.to_owned(),
                source,
            })?;
        }
        let failed = |e: SectionError| SupervisorError::NotStarted {
            name: service.name.to_owned(),
            why: e.to_string(),
        };
        texts::service(&self.settings.templates, &text).map_err(failed)
    }

    /// Writes the daemon's configuration and the sections of these services, and removes those of
    /// other services. If no daemon runs, removes the sections of instances too: each start makes
    /// them again, and an invalid one would keep the daemon from starting.
    fn write_config(
        &self,
        services: &[Service],
        running: bool,
        survivors: &[&str],
    ) -> Result<(), SupervisorError> {
        let failed = |path: &PathBuf| {
            let path = path.clone();
            move |source| SupervisorError::File {
                action: "make",
                path,
                source,
            }
        };
        let settings = &self.settings;
        make_dir(&settings.dir, 0o700).map_err(failed(&settings.dir))?;
        self.services.kept.make()?;
        self.programs.kept.make()?;
        self.programs.read().make()?;
        self.launcher()?;
        if let Some(dir) = settings.log.parent().map(std::path::Path::to_path_buf) {
            make_dir(&dir, 0o755).map_err(failed(&dir))?;
        }
        let text = DaemonText {
            dir: &settings.dir,
            socket: &settings.socket,
            pid_file: &settings.pid_file,
            log: &settings.log,
            root: crate::host::spawn::may_change_user(),
        };
        let text = texts::daemon(&settings.templates, &text)
            .map_err(|e| SupervisorError::Unusable(e.to_string()))?;
        write_if_other(&self.daemon.config, &text)?;
        if running {
            return Ok(());
        }
        self.programs.kept.keep_only(&[])?;
        self.programs.read().keep_only(&[])?;
        self.specs.keep_only(&[])?;
        self.services.kept.keep_only(&[])?;
        services.iter().try_for_each(|service| {
            let text = self.service_text(service, starts_beside(service, survivors))?;
            self.services.kept.write(&group_name(service.name), &text)
        })
    }

    async fn start_daemon(&self, services: &[Service]) -> Result<(), SupervisorError> {
        let survivors = self.survivors(services).await?;
        self.write_config(services, false, &survivors)?;
        self.daemon.start().await?;
        self.record_standby(&survivors).await
    }

    /// Restarts the daemon after it died or lost its socket. If it was ended in order, and so
    /// removed its pid file, it stays down. Its version was checked at the boot: another check is
    /// one more start of Python, for which requests would wait.
    pub(super) async fn bring_back(
        &self,
        services: &[Service],
    ) -> Result<Ensured, SupervisorError> {
        match self.daemon.presence().await {
            Ok(Presence::Answers) => return self.daemon.note().map(|()| Ensured::Already),
            Ok(Presence::Gone) if !self.settings.pid_file.exists() => return Ok(Ensured::Already),
            Ok(Presence::Gone | Presence::Deaf(_)) => {}
            // It runs and does not listen yet: another process is starting it; wait for that.
            Err(_) if self.daemon.is_starting()? => {}
            Err(error) => return Err(error),
        }
        let _held = self.locks.lock("").await;
        let _alone = self.daemon.alone().await?;
        // Another task may have started it until now.
        match self.daemon.presence().await? {
            Presence::Answers => return Ok(Ensured::Already),
            Presence::Deaf(process) => self.daemon.end_deaf(process).await?,
            Presence::Gone => {}
        }
        self.start_daemon(services).await?;
        Ok(Ensured::Started)
    }

    /// Ends services whose section has changed, or is not wanted any more, and takes them out.
    async fn prune(&self, services: &[Service]) -> Result<(), SupervisorError> {
        for name in self.services.kept.names()? {
            let wanted = services
                .iter()
                .find(|service| group_name(service.name) == name);
            if let Some(service) = wanted
                && self.is_as_wanted(&name, service)?
            {
                continue;
            }
            let shown = name.strip_prefix("acc_").unwrap_or(&name);
            let group = self.service_group(&name, shown);
            let process = self.find_service(shown).await?;
            if let Some(process) = process {
                self.daemon.settled(process).await;
            }
            group
                .stop()
                .await
                .map_err(|e| unreachable(&self.daemon.client, &e))?;
            if let Some(process) = process {
                let patience =
                    wanted.map_or(Duration::from_secs(30), |service| service.stop_timeout);
                end(shown, process, patience).await?;
            }
            group
                .take_out()
                .await
                .map_err(|e| unreachable(&self.daemon.client, &e))?;
            self.services.remove(&name)?;
        }
        Ok(())
    }

    fn is_as_wanted(&self, section: &str, service: &Service) -> Result<bool, SupervisorError> {
        let survivor = self.survivor(service.name)?.is_some();
        Ok(self
            .services
            .kept
            .compare(section, &self.service_text(service, true)?)?
            == SectionMatch::Same
            || survivor
                && self
                    .services
                    .kept
                    .compare(section, &self.service_text(service, false)?)?
                    == SectionMatch::Same)
    }

    /// Makes sure that the service runs; a running one keeps its command.
    pub(super) async fn ensure(&self, service: &Service) -> Result<Ensured, SupervisorError> {
        if self.find_service(service.name).await?.is_some() {
            return Ok(Ensured::Already);
        }
        if self.record_running(service)? {
            self.set_aside(service.name)?;
            return Ok(Ensured::Already);
        }
        let name = group_name(service.name);
        let group = self.service_group(&name, service.name);
        match group.info().await {
            // It ended within its first second, and supervisord pauses before the next try: shorten
            // the pause.
            Ok(Some(info)) if info.state == state::BACKOFF => {
                group
                    .stop()
                    .await
                    .map_err(|e| unreachable(&self.daemon.client, &e))?;
            }
            Ok(_) => {}
            Err(error) => return Err(unreachable(&self.daemon.client, &error)),
        }
        let launched = group
            .launch(&self.service_text(service, true)?, None)
            .await?;
        let (Launched::Already(pid) | Launched::Started(pid)) = launched;
        if let Some(process) = process::by_pid(pid).map_err(|e| kernel(service.name, &e))? {
            self.write_record(&self.service_path(service.name), process, &service.log)?;
        }
        Ok(if matches!(launched, Launched::Already(_)) {
            Ensured::Already
        } else {
            Ensured::Started
        })
    }

    /// Finds the service's process and updates its pid file, because supervisord restarts services
    /// by itself.
    pub(super) async fn find_service(
        &self,
        name: &str,
    ) -> Result<Option<Process>, SupervisorError> {
        let path = self.service_path(name);
        let survivor = self.survivor(name)?;
        let group_name = group_name(name);
        let pid = match self.service_group(&group_name, name).info().await {
            Ok(info) => info.map_or(0, |info| info.pid),
            Err(error) => {
                self.daemon.gone_after(&error)?;
                return Ok(pid_file::living(&path)?.or(survivor));
            }
        };
        let found = process::by_pid(pid).map_err(|e| kernel(name, &e))?;
        if let Some(process) = found
            && pid_file::living(&path)? != found
        {
            self.write_record(&path, process, std::path::Path::new(""))?;
        }
        Ok(found.or(survivor))
    }
}

#[async_trait]
impl OwnServices for Supervisord {
    fn kind(&self) -> &'static str {
        "supervisord"
    }

    fn has_daemon(&self) -> bool {
        true
    }

    fn run_files(&self) -> Vec<PathBuf> {
        vec![self.settings.socket.clone(), self.settings.pid_file.clone()]
    }

    async fn is_reachable(&self) -> bool {
        UnixStream::connect(&self.settings.socket).await.is_ok()
    }

    async fn is_gone(&self) -> Result<bool, SupervisorError> {
        Ok(self.daemon.presence().await? == Presence::Gone)
    }

    async fn replace_deaf(&self, services: &[Service]) -> Result<(), SupervisorError> {
        if !matches!(self.daemon.presence().await, Ok(Presence::Deaf(_))) {
            return Ok(());
        }
        self.bring_back(services).await.map(drop)
    }

    async fn foreground(
        &self,
        services: &[Service],
    ) -> Result<Option<Vec<String>>, SupervisorError> {
        let _held = self.locks.lock("").await;
        if self.daemon.presence().await? != Presence::Gone {
            let socket = self.settings.socket.display();
            return Err(SupervisorError::Unusable(format!(
                "supervisord runs already on `{socket}`"
            )));
        }
        self.daemon.program().await?;
        let survivors = self.survivors(services).await?;
        self.write_config(services, false, &survivors)?;
        self.daemon.clear()?;
        Ok(Some(self.daemon.foreground_argv()))
    }

    async fn boot(&self, services: &[Service]) -> Result<Ensured, SupervisorError> {
        let _held = self.locks.lock("").await;
        let _alone = self.daemon.alone().await?;
        let ensured = match self.daemon.presence().await? {
            Presence::Answers => {
                self.write_config(services, true, &[])?;
                self.prune(services).await?;
                Ensured::Already
            }
            Presence::Gone => {
                self.daemon.program().await?;
                self.start_daemon(services).await?;
                Ensured::Started
            }
            Presence::Deaf(process) => {
                self.daemon.program().await?;
                self.daemon.end_deaf(process).await?;
                self.start_daemon(services).await?;
                Ensured::Started
            }
        };
        for service in services {
            self.ensure(service).await?;
        }
        Ok(ensured)
    }

    async fn revive(&self, services: &[Service]) -> Result<Ensured, SupervisorError> {
        self.bring_back(services).await
    }

    async fn ensure_service(&self, service: &Service) -> Result<Ensured, SupervisorError> {
        let _held = self.locks.lock(&group_name(service.name)).await;
        self.ensure(service).await
    }

    fn exclude(&self, server: Process) {
        *self.master.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
    }

    async fn restore_service_record(
        &self,
        name: &'static str,
        process: Process,
    ) -> Result<bool, SupervisorError> {
        let _held = self.locks.lock(&group_name(name)).await;
        self.restore_record_of_service(name, process)
    }

    async fn service(&self, name: &str) -> Result<Option<Process>, SupervisorError> {
        let _held = self.locks.lock(&group_name(name)).await;
        self.find_service(name).await
    }

    async fn stop_service(&self, service: &Service) -> Result<(), SupervisorError> {
        let _held = self.locks.lock(&group_name(service.name)).await;
        let process = self.find_service(service.name).await?;
        if let Some(process) = process {
            self.daemon.settled(process).await;
        }
        let name = group_name(service.name);
        let stopped = match self.service_group(&name, service.name).stop().await {
            Ok(stopped) => stopped,
            Err(error) => self.daemon.gone_after(&error).map(|()| false)?,
        };
        if let Some(process) = process {
            if !stopped {
                process::signal_one(process, service.stop_signal)
                    .map_err(|e| kernel(service.name, &e))?;
            }
            end(service.name, process, service.stop_timeout).await?;
        }
        pid_file::remove(&self.service_path(service.name))?;
        self.end_survivor(service).await
    }

    async fn halt(&self) -> Result<(), SupervisorError> {
        self.daemon.halt().await?;
        self.members.close();
        Ok(())
    }
}
