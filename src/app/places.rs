//! The folders of an installation: made, with the modes they need, before anything is put there.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::accounts;
use crate::config::{Config, trust};
use crate::driver::host::{fs, users};
use crate::service::error::ServiceError;

/// Makes home and run and what is below them. Others may pass through, only the owner may look around.
pub(super) fn prepare(config: &Config) -> Result<(), ServiceError> {
    ours(config)?;
    let accounts = accounts(config)?;
    let run = &config.run;
    for (path, mode) in [
        (config.home.clone(), 0o755),
        (config.models(), 0o755),
        (config.home.join("instances"), 0o711),
        (config.home.join("log"), 0o755),
        (config.access_logs(), 0o711),
        (config.trash(), 0o700),
        (config.nginx_dir(), 0o755),
        (config.supervisor_dir(), 0o700),
        (run.clone(), 0o755),
        (config.gate_dir(), 0o711),
        (run.join("sock"), 0o711),
        (config.pid_dir(), 0o700),
        (config.run_trash(), 0o700),
    ] {
        fs::make_dir(&path, mode).map_err(|e| unusable(&path, &e))?;
    }
    // Once more: somebody may have been quicker.
    ours(config)?;
    // nginx's master is root and reads what lies here: nobody else may own it. nginx gives its own temporary folders away.
    if users::is_root() {
        users::keep(&config.nginx_dir()).map_err(|e| unusable(&config.nginx_dir(), &e))?;
    }
    // Made under another umask, by an earlier acc: who must pass through them could not.
    for path in [config.home.join("instances"), config.home.join("log"), config.access_logs(), config.nginx_dir(), run.join("sock")] {
        fs::let_through(&path).map_err(|e| unusable(&path, &e))?;
    }
    if let Some(edge) = accounts.edge {
        users::share_with(&config.gate_dir(), edge.gid, 0o710).map_err(|e| unusable(&config.gate_dir(), &e))?;
    }
    for path in [&config.home, run] {
        fs::writable(path).map_err(|e| unusable(path, &e))?;
    }
    Ok(())
}

/// Refuses a home or run that others can write to or exchange: whoever made `/tmp/acc-UID` first, or owns a folder above, would
/// take the place of acc's sockets and configurations.
pub(super) fn ours(config: &Config) -> Result<(), ServiceError> {
    for (word, path) in [("home", &config.home), ("run", &config.run)] {
        match trust::distrust(path) {
            Ok(None) => {}
            Ok(Some(found)) => {
                let hint = format!("run as its owner; {}; or set `{word}` in the config to another place", found.way_out());
                return Err(ServiceError::failed(format!("{word} `{}` {}", path.display(), found.of(path)), hint));
            }
            Err(e) => return Err(unusable(path, &e)),
        }
    }
    Ok(())
}

/// Refuses to go on where only the owner of `run` or root has a chance.
pub(super) fn may_rule(config: &Config) -> Result<(), ServiceError> {
    let owner = match std::fs::metadata(&config.run) {
        Ok(meta) => meta.uid(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(unusable(&config.run, &e)),
    };
    let own = rustix::process::geteuid().as_raw();
    if own == 0 || own == owner {
        return Ok(());
    }
    let message = format!("acc's run folder `{}` belongs to user {owner}, and this is user {own}", config.run.display());
    Err(ServiceError::failed(message, "run as root (or the user who booted acc)"))
}

fn unusable(path: &Path, e: &std::io::Error) -> ServiceError {
    let hint = match e.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "run as root (or the user who booted acc), or set `home` and `run` in the config to places of your own"
        }
        std::io::ErrorKind::StorageFull => "free some space",
        _ => "set `home` and `run` in the config to places that can be written",
    };
    ServiceError::because(format!("could not use `{}`", path.display()), e, hint)
}
