//! The folders of an installation: made, with the modes they need, before anything is put there.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::accounts::Accounts;
use crate::config::{Config, trust};
use crate::host::{fs, users};
use crate::service::error::ServiceError;

/// Makes home and run and what is below them. Others may pass through, only the owner may list
/// around.
///
/// # Errors
/// One of them cannot be used; names it and the way out.
pub fn prepare(config: &Config) -> Result<(), ServiceError> {
    ours(config)?;
    let accounts =
        Accounts::of(config).map_err(|fault| ServiceError::failed(fault.message, fault.hint))?;
    for (path, mode) in folders(config) {
        fs::make_dir(&path, mode).map_err(|e| unusable(&path, &e))?;
    }
    // Once more: another process may have been quicker.
    ours(config)?;
    // nginx's master is root and reads what lies here: no other user may own it. nginx gives its
    // own temporary folders away.
    if users::is_root() {
        users::keep(&config.nginx_dir()).map_err(|e| unusable(&config.nginx_dir(), &e))?;
    }
    // An earlier acc may have made them under another umask: instances and nginx must enter them.
    for path in [
        config.home.join("instances"),
        config.home.join("log"),
        config.access_logs(),
        config.nginx_dir(),
        config.run.join("sock"),
    ] {
        fs::let_through(&path).map_err(|e| unusable(&path, &e))?;
    }
    if let Some(edge) = accounts.edge {
        users::share_with(&config.gate_dir(), edge.gid, 0o710)
            .map_err(|e| unusable(&config.gate_dir(), &e))?;
    }
    for path in [&config.home, &config.run] {
        fs::writable(path).map_err(|e| unusable(path, &e))?;
    }
    Ok(())
}

/// All of them, and their modes.
fn folders(config: &Config) -> [(PathBuf, u32); 13] {
    let run = &config.run;
    [
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
    ]
}

/// Is one of them gone? A cleaner of temporary folders takes them away under an acc that runs.
pub(super) fn one_is_gone(config: &Config) -> bool {
    folders(config).iter().any(|(path, _)| !path.is_dir())
}

/// Refuses a home or run folder that another user can write to or replace. Such a user (the one who
/// made `/tmp/acc-UID` first, or owns a folder above) could replace acc's sockets and
/// configurations.
///
/// # Errors
/// It is refused, or could not be checked.
pub fn ours(config: &Config) -> Result<(), ServiceError> {
    for (word, path) in [("home", &config.home), ("run", &config.run)] {
        match trust::distrust(path) {
            Ok(None) => {}
            Ok(Some(found)) => {
                let hint = format!(
                    "run this command as its owner; {}; or set `{word}` in the config to another place",
                    found.fix()
                );
                return Err(ServiceError::failed(
                    format!("{word} `{}` {}", path.display(), found.of(path)),
                    hint,
                ));
            }
            Err(e) => return Err(unusable(path, &e)),
        }
    }
    Ok(())
}

/// Refuses to go on where only the owner of `run` or root has a chance.
///
/// # Errors
/// This user has none.
pub fn may_rule(config: &Config) -> Result<(), ServiceError> {
    let owner = match std::fs::metadata(&config.run) {
        Ok(meta) => meta.uid(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(unusable(&config.run, &e)),
    };
    let own = rustix::process::geteuid().as_raw();
    if own == 0 || own == owner {
        return Ok(());
    }
    let message = format!(
        "acc's run folder `{}` belongs to user {owner}, but this command runs as user {own}",
        config.run.display()
    );
    Err(ServiceError::failed(
        message,
        "run this command as root or as the user who booted acc",
    ))
}

fn unusable(path: &Path, e: &std::io::Error) -> ServiceError {
    let hint = match e.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "run this command as root or as the user who booted acc, or set `home` and `run` in the config to folders of your own"
        }
        std::io::ErrorKind::StorageFull => "free some space",
        _ => "set `home` and `run` in the config to writable folders",
    };
    ServiceError::because(format!("could not use `{}`", path.display()), e, hint)
}
