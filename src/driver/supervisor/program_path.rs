//! Which file a program's command names. It searches for bare names on a path and does not check
//! whether the file can be run.

use std::path::PathBuf;

use super::{Program, SupervisorError};
use crate::host::command::{PATH, is_executable};

/// The file to execute for this program; a path in the command is not checked.
pub(super) fn path(program: &Program) -> Result<PathBuf, SupervisorError> {
    named(program).map_err(|why| SupervisorError::NotStarted {
        name: program.name.to_string(),
        why,
    })
}

/// The file that the command names, or why it names none.
pub(super) fn named(program: &Program) -> Result<PathBuf, String> {
    let name = program
        .argv
        .first()
        .filter(|name| !name.is_empty())
        .ok_or("its command is empty")?;
    if let Some(bad) = program
        .argv
        .iter()
        .chain(program.env.iter().flat_map(|(k, v)| [k, v]))
        .find(|t| t.contains('\0'))
    {
        return Err(format!("{bad:?} contains a zero byte"));
    }
    if let Some((bad, _)) = program
        .env
        .iter()
        .find(|(k, _)| k.is_empty() || k.contains('='))
    {
        return Err(format!("{bad:?} is not a name for an environment variable"));
    }
    if name.contains('/') {
        Ok(program.dir.join(name))
    } else {
        on_path(program, name)
    }
}

/// Searches for a bare name on the program's own `PATH`, else on acc's fixed one.
pub(super) fn on_path(program: &Program, name: &str) -> Result<PathBuf, String> {
    let path = program
        .env
        .iter()
        .rev()
        .find(|(k, _)| k == "PATH")
        .map_or(PATH, |(_, v)| v.as_str());
    // To the C library an empty entry is the working directory, and relative entries start there.
    let candidates: Vec<PathBuf> = path
        .split(':')
        .map(|dir| program.dir.join(dir).join(name))
        .collect();
    let found = candidates
        .iter()
        .find(|p| is_executable(p))
        .or_else(|| candidates.iter().find(|p| p.exists()));
    found
        .cloned()
        .ok_or_else(|| format!("its program `{name}` is not in `{path}`"))
}
