//! The folders of an installation: made, with the modes they need, before anything is put there.

use std::path::Path;

use crate::config::{Config, EdgeKind};
use crate::driver::host::{fs, users};
use crate::service::error::ServiceError;

/// Makes home and run and what is below them. Others may pass through, only the owner may look around.
pub(super) fn prepare(config: &Config) -> Result<(), ServiceError> {
    let run = &config.run;
    for (path, mode) in [
        (config.home.clone(), 0o755),
        (config.models(), 0o755),
        (config.home.join("instances"), 0o711),
        (config.home.join("log"), 0o755),
        (config.nginx_dir(), 0o755),
        (config.supervisor_dir(), 0o700),
        (run.clone(), 0o755),
        (config.gate_dir(), 0o755),
        (run.join("sock"), 0o711),
        (config.pid_dir(), 0o700),
    ] {
        fs::make_dir(&path, mode).map_err(|e| unusable(&path, &e))?;
    }
    // nginx's master is root and reads what lies here: nobody else may own it. nginx gives its own temporary folders away.
    if users::is_root() {
        users::keep(&config.nginx_dir()).map_err(|e| unusable(&config.nginx_dir(), &e))?;
    }
    for path in [&config.home, run] {
        fs::writable(path).map_err(|e| unusable(path, &e))?;
    }
    if let Some(user) = &config.user {
        users::ids(user).map_err(|e| {
            ServiceError::because(
                "`user` in the config cannot be used",
                &e,
                format!("make it with `useradd --system {user}`, or name another"),
            )
        })?;
    }
    Ok(())
}

/// Lets nginx's workers, who run as `user`, reach a socket or folder of acc's.
pub(super) fn give_to_edge(config: &Config, path: &Path) -> Result<(), ServiceError> {
    match (&config.user, config.edge.kind) {
        (Some(user), EdgeKind::Nginx) => users::give(path, user).map_err(|e| unusable(path, &e)),
        _ => Ok(()),
    }
}

fn unusable(path: &Path, e: &std::io::Error) -> ServiceError {
    let hint = match e.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "run as the user who owns it (often root), or set `home` and `run` in the config to places of your own"
        }
        std::io::ErrorKind::StorageFull => "free some space",
        _ => "set `home` and `run` in the config to places that can be written",
    };
    ServiceError::because(format!("could not use `{}`", path.display()), e, hint)
}
