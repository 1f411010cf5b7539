//! The user a command runs as. Root may control what another user has booted, but not with root's
//! rights: files read there name programs to run, and files written there may be redirected
//! by links. So root becomes that user first, permanently, before anything of the installation is
//! read or written.
//!
//! `boot` and `server` do not: root's own installation in another user's folder is refused. Nor
//! does `doctor`, which reports it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::args::Command;
use crate::config::env::Env;
use crate::config::trust::{Distrust, stranger};
use crate::config::{self, named, run_of_faulty};
use crate::host::users;
use crate::service::error::ServiceError;

/// What stands for "no config file".
const NO_FILE: &str = "/dev/null";

/// The config file and the surroundings to go by: those that were given, or, once this process has
/// become another user, the same places and that user's own folders.
///
/// # Errors
/// The places belong to several users, or to one that this process cannot become.
pub(super) fn settle(
    command: &Command,
    file: Option<PathBuf>,
    env: &Env,
) -> Result<(Option<PathBuf>, Env), ServiceError> {
    let as_given = (file.clone(), env.clone());
    if !users::is_root()
        || matches!(
            command,
            Command::Boot(_) | Command::Server(_) | Command::Worker(_) | Command::Doctor
        )
    {
        return Ok(as_given);
    }
    if let Some(path) = named(file.as_deref(), env)
        && let Some(found) = stranger(&path).filter(|found| is_theirs(&path, found))
    {
        let (env, uid) = become_owner(&[found], env)?;
        return Ok((Some(path), with_runtime_dir(env, uid)));
    }
    let (home, run, read) = match config::load(file.as_deref(), env) {
        Ok(config) => (Some(config.home), Some(config.run), config.file),
        Err(errors) => (None, run_of_faulty(file.as_deref(), env), errors.file),
    };
    let mut theirs = Vec::new();
    for (word, path) in [("home", &home), ("run", &run)] {
        let Some((path, found)) = path.as_ref().and_then(|path| Some((path, stranger(path)?)))
        else {
            continue;
        };
        if !is_theirs(path, &found) {
            let message = format!("{word} `{}` {}", path.display(), found.of(path));
            return Err(ServiceError::failed(
                message,
                format!(
                    "{}; or set `{word}` in the config to another place",
                    found.fix()
                ),
            ));
        }
        theirs.push(found);
    }
    if theirs.is_empty() {
        return Ok(as_given);
    }
    let (mut env, _) = become_owner(&theirs, env)?;
    for (name, place) in [("ACC_HOME", home), ("ACC_RUN", run)] {
        env = place.iter().fold(env, |env, place| env.with(name, place));
    }
    Ok((Some(read.unwrap_or_else(|| NO_FILE.into())), env))
}

/// Does the same user own the path and the part of it that was found? Else it belongs to another
/// user, in a place that is not safe.
fn is_theirs(path: &Path, found: &Distrust) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| found.owner.is_some_and(|owner| owner.0 == meta.uid()))
}

/// Becomes the one user whose these are.
fn become_owner(found: &[Distrust], env: &Env) -> Result<(Env, u32), ServiceError> {
    let refused = |found: &Distrust, why: String| {
        let hint = "run the command as that user; to give the folder to root, run `chown` and then `acc doctor`";
        ServiceError::failed(
            format!("{found}: acc does not act there as root; {why}"),
            hint,
        )
    };
    let mut owners = found.iter().filter_map(|found| Some((found, found.owner?)));
    let Some((first, (uid, gid))) = owners.next() else {
        return Ok((env.clone(), env.uid));
    };
    if let Some((other, _)) = owners.find(|(_, owner)| owner.0 != uid) {
        return Err(refused(first, format!("{other}")));
    }
    let home = users::become_user(uid, gid)
        .map_err(|e| refused(first, format!("could not become user {uid}: {e}")))?;
    Ok((env.clone().of_user(uid, home.as_deref()), uid))
}

/// Where a session of that user would have its `run` folder.
fn with_runtime_dir(env: Env, uid: u32) -> Env {
    let dir = PathBuf::from(format!("/run/user/{uid}"));
    let theirs = |dir: &Path| {
        std::fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_dir() && meta.uid() == uid)
    };
    if theirs(&dir) {
        env.with("XDG_RUNTIME_DIR", dir)
    } else {
        env
    }
}
