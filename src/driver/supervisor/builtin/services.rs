//! The services under the builtin supervisor (nginx, acc's server), which has no daemon.
//!
//! It starts again nothing that has ended: acc's server asks for that.

use std::path::Path;

use async_trait::async_trait;

use super::super::{Ensured, OwnServices, Service, SupervisorError, pid_file, preflight};
use super::{Builtin, Start, unreachable};
use crate::domain::instance::Process;
use crate::host::command::PATH;
use crate::host::{command_line, process};

#[async_trait]
impl OwnServices for Builtin {
    fn kind(&self) -> &'static str {
        "builtin"
    }

    async fn boot(&self, _services: &[Service]) -> Result<Ensured, SupervisorError> {
        Ok(Ensured::Already)
    }

    async fn ensure_service(&self, service: &Service) -> Result<Ensured, SupervisorError> {
        let pid_path = pid_file::service_file(&self.pid_dir, service.name);
        let _held = self.locks.lock(&format!("service_{}", service.name)).await;
        if Self::living(service.name, &pid_path).await?.is_some() {
            return Ok(Ensured::Already);
        }
        // Its record was taken away: it is not started twice. (acc's own server, begun by `env`, is
        // known by its lock instead.)
        if let Some(process) =
            command_line::find(&service.argv).map_err(|e| unreachable(service.name, e))?
        {
            return pid_file::restore(&pid_path, process, &service.log).map(|_| Ensured::Already);
        }
        let env = [("PATH".to_owned(), PATH.to_owned())];
        let start = Start {
            name: service.name,
            pid_path,
            program: preflight::service(service)?,
            args: service.argv.get(1..).unwrap_or_default(),
            env: &env,
            log: &service.log,
            user: None,
            instance: None,
        };
        self.spawn(&start).await.map(|_| Ensured::Started)
    }

    async fn restore_service_record(
        &self,
        name: &'static str,
        process: Process,
    ) -> Result<bool, SupervisorError> {
        let _held = self.locks.lock(&format!("service_{name}")).await;
        pid_file::restore(
            &pid_file::service_file(&self.pid_dir, name),
            process,
            Path::new(""),
        )
    }

    async fn service(&self, name: &str) -> Result<Option<Process>, SupervisorError> {
        let _held = self.locks.lock(&format!("service_{name}")).await;
        Self::living(name, &pid_file::service_file(&self.pid_dir, name)).await
    }

    async fn stop_service(&self, service: &Service) -> Result<(), SupervisorError> {
        let _held = self.locks.lock(&format!("service_{}", service.name)).await;
        let pid_path = pid_file::service_file(&self.pid_dir, service.name);
        if let Some(process) = Self::living(service.name, &pid_path).await? {
            // To the leader alone: it knows how to end its own helpers in order.
            process::signal_one(process, service.stop_signal)
                .map_err(|e| unreachable(service.name, e))?;
            Self::end(service.name, process, service.stop_timeout).await?;
        }
        pid_file::remove(&pid_path)
    }

    async fn halt(&self) -> Result<(), SupervisorError> {
        self.members.close();
        Ok(())
    }
}
