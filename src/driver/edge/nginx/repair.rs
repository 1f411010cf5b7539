//! Repairs a running nginx: resumes stopped processes, restores access to acc's server, and
//! replaces workers that do not answer.
//!
//! It neither starts nor stops nginx: if the master has ended, the supervisor acts.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::{fs, io};

use tokio::time::Instant;

use super::{EdgeError, Nginx, ask, failed, master};
use crate::config::Config;
use crate::host::users::share_with;
use crate::render::nginx::pid_file;

/// The mode of `wake.sock` when nginx's workers are the same user as acc.
const OWN: u32 = 0o600;

/// What keeps an nginx with these settings from answering, one sentence each. `None`: it is not
/// running. Changes nothing.
///
/// # Errors
/// Its processes could not be read.
pub async fn faults(config: &Config) -> io::Result<Option<Vec<String>>> {
    let file = config.nginx_dir().join("nginx.conf");
    let Some(master) = master::find(&pid_file(config), &file)? else {
        return Ok(None);
    };
    let mut faults = Vec::new();
    let stopped = ask::stopped_by_signal(master.processes()?);
    if !stopped.is_empty() {
        faults.push(format!(
            "processes of nginx were stopped by a signal ({})",
            pids(&stopped)
        ));
    }
    if let Some(address) = config.edge.listen.first()
        && let Err(why) = ask::ask(*address).await
    {
        faults.push(format!("nginx does not answer at {address}: {why}"));
    }
    Ok(Some(faults))
}

fn pids(all: &[i32]) -> String {
    let all: Vec<String> = all.iter().map(ToString::to_string).collect();
    format!("pid {}", all.join(", "))
}

impl Nginx {
    /// See [`Edge::repair`](crate::driver::edge::Edge::repair).
    pub(super) async fn repair_nginx(&self, served: bool) -> Result<Vec<String>, EdgeError> {
        let Some(master) = self.master()? else {
            return Ok(Vec::new());
        };
        let mut did = Vec::new();
        let stopped = ask::stopped_by_signal(
            master
                .processes()
                .map_err(|e| failed("search", "/proc".as_ref(), e))?,
        );
        for pid in &stopped {
            ask::resume(*pid).map_err(EdgeError::Unusable)?;
        }
        if !stopped.is_empty() {
            did.push(format!(
                "resumed processes of nginx that were stopped by a signal ({})",
                pids(&stopped)
            ));
        }
        let config = self.config();
        let note = pid_file(&config);
        if master.note(&note).map_err(|e| failed("write", &note, e))? {
            did.push(format!(
                "`{}` did not name nginx's master process",
                note.display()
            ));
        }
        if self.gates.repair_access()? {
            did.push(format!(
                "nginx's workers could not pass through `{}`",
                config.gate_dir().display()
            ));
        }
        let socket = config.wake_socket();
        if self
            .repair_wake_socket()
            .map_err(|e| failed("give access for nginx's workers to", &socket, e))?
        {
            did.push(format!("`{}` had another owner or mode", socket.display()));
        }
        if let (true, Some(address)) = (served, config.edge.listen.first()) {
            // Two attempts: the first may have failed because the host was busy.
            if let (Err(_), Err(why)) = (ask::ask(*address).await, ask::ask(*address).await) {
                self.replace_workers(master, &why).await?;
                ask::ask(*address).await.map_err(|again| {
                    EdgeError::Unusable(format!("nginx does not answer at {address}: {again}"))
                })?;
                did.push(format!(
                    "nginx did not answer at {address} ({why}): replaced its workers"
                ));
            }
        }
        Ok(did)
    }

    async fn replace_workers(
        &self,
        master: master::NginxMaster,
        why: &str,
    ) -> Result<(), EdgeError> {
        let mut applied = self.applied.lock().await;
        applied.reloaded = Some(Instant::now());
        let reloaded = master.reload(&self.config().own_log("nginx-error")).await;
        reloaded.map_err(|e| {
            EdgeError::Unusable(format!(
                "nginx does not answer ({why}), and it has no new workers: {e}"
            ))
        })
    }

    /// Fixes owner and mode of the wake socket; `true`: they were wrong. A missing socket is made
    /// by acc's server.
    fn repair_wake_socket(&self) -> io::Result<bool> {
        let path = self.config().wake_socket();
        let found = match fs::symlink_metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            found => found?,
        };
        if !found.file_type().is_socket() {
            return Ok(false);
        }
        match self.accounts.edge {
            Some(edge) => share_with(&path, edge.gid, 0o660),
            None if found.mode() & 0o7777 == OWN => Ok(false),
            None => fs::set_permissions(&path, fs::Permissions::from_mode(OWN)).map(|()| true),
        }
    }
}
