//! Makes an instance's command, environment and files from the templates of its model.
//!
//! [`launch`] writes nothing, so that all refusals happen before anything is made. [`files`] writes
//! only below the instance's folder, and may be repeated.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::RenderError;
use crate::config::regular;
use crate::domain::instance::Launch;
use crate::domain::model::{ListenKind, Model, Ready};
use crate::host::fs::write_atomic;
use crate::models::files::{self as model_files, FileEntry, FileKind};
use crate::models::template;

/// Where programs are searched for: the usual folders, independent of acc's own environment.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Only the instance's own user may use its folders.
const FOLDER_MODE: u32 = 0o750;

/// The names that templates may use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InstanceVariables {
    /// Name of the instance.
    pub name: String,
    /// Its number.
    pub id: i64,
    /// Its first host.
    pub host: String,
    /// All its hosts.
    pub hosts: Vec<String>,
    /// Its address for people, with scheme and port.
    pub url: String,
    /// The unix socket to listen on; missing for a TCP instance, whose templates must not name it.
    pub socket: Option<String>,
    /// The port of 127.0.0.1 to listen on; missing for a unix instance, whose templates must not
    /// name it.
    pub port: Option<u16>,
    /// Its folder.
    pub dir: String,
    /// The folder of its lasting data.
    pub data: String,
    /// Parameters of the model.
    pub params: BTreeMap<String, String>,
    /// The path of acc, so that a model can use the demo application.
    pub acc: String,
}

impl InstanceVariables {
    fn values(&self) -> tera::Context {
        let mut values = tera::Context::new();
        let texts = [
            ("name", &self.name),
            ("host", &self.host),
            ("url", &self.url),
            ("dir", &self.dir),
            ("data", &self.data),
            ("acc", &self.acc),
        ];
        for (name, text) in texts {
            values.insert(name, text);
        }
        values.insert("id", &self.id);
        values.insert("hosts", &self.hosts);
        values.insert("params", &self.params);
        // Left out instead of empty: a model that uses the missing name must fail, not get "".
        if let Some(socket) = &self.socket {
            values.insert("socket", socket);
        }
        if let Some(port) = self.port {
            values.insert("port", &port);
        }
        values
    }
}

/// How to run an instance: its command with the program's full path, and its whole environment.
///
/// # Errors
/// A template uses an unknown name, a value has a zero byte, or the program is missing or not
/// executable.
pub fn launch(model: &Model, ctx: &InstanceVariables) -> Result<Launch, RenderError> {
    let values = ctx.values();
    let mut env = environment(ctx);
    for (name, text) in &model.env {
        let value = argument(text, &values, model, &format!("env.{name}"))?;
        match env.iter_mut().find(|(known, _)| known == name) {
            Some(entry) => entry.1 = value,
            None => env.push((name.clone(), value)),
        }
    }
    let rendered = model
        .command
        .iter()
        .enumerate()
        .map(|(n, text)| argument(text, &values, model, &format!("command[{n}]")));
    let mut argv = rendered.collect::<Result<Vec<_>, _>>()?;
    if let Some(program) = argv.first_mut() {
        let path = env
            .iter()
            .find(|(name, _)| name == "PATH")
            .map_or(PATH, |(_, value)| value);
        *program = find_program(program, path, model, ctx)?;
    }
    Ok(Launch {
        runner: model.runner.clone(),
        argv,
        env,
        handed: model.listen == ListenKind::Fd,
        notifies: model.ready == Ready::Notify,
        health: model.health.clone(),
        stop_signal: model.stop_signal,
        start_timeout: model.start_timeout,
        stop_timeout: model.stop_timeout,
    })
}

/// The environment that every instance gets; it contains nothing of acc's own.
fn environment(ctx: &InstanceVariables) -> Vec<(String, String)> {
    [("PATH", PATH), ("HOME", &ctx.data), ("LANG", "C.UTF-8")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
}

/// Renders one argument or variable.
fn argument(
    text: &str,
    values: &tera::Context,
    model: &Model,
    key: &str,
) -> Result<String, RenderError> {
    let wrong = |why| RenderError::Template {
        name: format!("{}/model.toml: {key}", model.name),
        why,
    };
    let rendered = template::render(text, values).map_err(|fault| wrong(fault.why))?;
    if rendered.contains('\0') {
        Err(wrong("the result has a zero byte".to_owned()))
    } else {
        Ok(rendered)
    }
}

/// The full path of a program. A bare name is searched for in `path`; one with a slash is relative
/// to the instance's folder (where it may come from the model's files).
fn find_program(
    program: &str,
    path: &str,
    model: &Model,
    ctx: &InstanceVariables,
) -> Result<String, RenderError> {
    let refuse = |why: String| RenderError::Command {
        command: program.to_owned(),
        model: model.name.clone(),
        why,
    };
    if program.is_empty() {
        return Err(refuse("is empty".to_owned()));
    }
    if !program.contains('/') {
        let found = path
            .split(':')
            .filter(|dir| !dir.is_empty())
            .map(|dir| Path::new(dir).join(program))
            .find(|p| check_program(p).is_ok());
        return found
            .map(|p| p.display().to_string())
            .ok_or_else(|| refuse(format!("is not in any of {path}")));
    }
    let full = Path::new(&ctx.dir).join(program);
    let Ok(below) = full.strip_prefix(&ctx.dir) else {
        check_program(&full).map_err(refuse)?;
        return Ok(full.display().to_string());
    };
    // The folder may not exist yet: then check the file that it will be made from.
    let source = model.dir.join("files").join(below);
    let mut template = source.clone().into_os_string();
    template.push(".tera");
    let tried = [full.clone(), source, PathBuf::from(template)].map(|p| check_program(&p));
    if tried.iter().any(Result::is_ok) {
        return Ok(full.display().to_string());
    }
    let why = tried
        .into_iter()
        .filter_map(Result::err)
        .find(|why| why != MISSING);
    Err(refuse(why.unwrap_or_else(|| {
        format!(
            "is neither in the folder of the instance nor in `{}`",
            model.dir.join("files").display()
        )
    })))
}

/// The message of [`check_program`] for a missing file.
const MISSING: &str = "does not exist";

fn check_program(path: &Path) -> Result<(), String> {
    match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(MISSING.to_owned()),
        Err(e) => Err(format!("cannot be examined: {e}")),
        Ok(data) if !data.is_file() => Err("is not a file".to_owned()),
        Ok(data) if data.permissions().mode() & 0o111 == 0 => Err("is not executable".to_owned()),
        Ok(_) => Ok(()),
    }
}

/// Makes the folder of an instance: `into` itself with `data/` and `log/`, and the model's `files/`
/// copied and rendered into it. Existing files of the same name are replaced, others are left
/// alone; a folder that has become a link is an error.
///
/// # Errors
/// A file cannot be read, rendered or written. What was written stays: the caller removes the
/// folder.
pub fn files(model: &Model, ctx: &InstanceVariables, into: &Path) -> Result<(), RenderError> {
    let values = ctx.values();
    for folder in [into.to_owned(), into.join("data"), into.join("log")] {
        make_folder(&folder, FOLDER_MODE)?;
    }
    let (from, tree) = files_of(model)?;
    if let Some((path, reason)) = tree.refused.into_iter().next() {
        return Err(RenderError::Template {
            name: format!("{}/files/{}", model.name, path.display()),
            why: reason,
        });
    }
    tree.entries
        .iter()
        .try_for_each(|entry| make_entry(entry, &from, into, &values, model))
}

/// The first of a model's files that renders differently with the two sets of variables; `None`:
/// there is none.
///
/// # Errors
/// A file cannot be read or rendered.
pub fn differs(
    model: &Model,
    one: &InstanceVariables,
    other: &InstanceVariables,
) -> Result<Option<PathBuf>, RenderError> {
    let (one, other) = (one.values(), other.values());
    let (from, tree) = files_of(model)?;
    for entry in tree
        .entries
        .iter()
        .filter(|entry| entry.kind == FileKind::Render)
    {
        if rendered(entry, &from, &one, model)? != rendered(entry, &from, &other, model)? {
            return Ok(Some(entry.to.clone()));
        }
    }
    Ok(None)
}

/// The folder `files/` of a model, and what is in it.
fn files_of(model: &Model) -> Result<(PathBuf, model_files::Tree), RenderError> {
    let from = model.dir.join("files");
    match model_files::walk(&from) {
        Ok(tree) => Ok((from, tree)),
        Err(source) => Err(RenderError::Read { path: from, source }),
    }
}

fn rendered(
    entry: &FileEntry,
    from: &Path,
    values: &tera::Context,
    model: &Model,
) -> Result<String, RenderError> {
    let path = from.join(&entry.from);
    let text =
        regular::read_to_string(&path).map_err(|source| RenderError::Read { path, source })?;
    template::render(&text, values).map_err(|fault| {
        let line = fault
            .line
            .map_or_else(String::new, |line| format!(" (line {line})"));
        RenderError::Template {
            name: format!("{}/files/{}", model.name, entry.from.display()),
            why: format!("{}{line}", fault.why),
        }
    })
}

fn make_entry(
    entry: &FileEntry,
    from: &Path,
    into: &Path,
    values: &tera::Context,
    model: &Model,
) -> Result<(), RenderError> {
    let (source, target) = (from.join(&entry.from), into.join(&entry.to));
    let unreadable = |e| RenderError::Read {
        path: source.clone(),
        source: e,
    };
    let unwritable = |e| RenderError::Write {
        path: target.clone(),
        source: e,
    };
    match &entry.kind {
        // `data/` and `log/` in a model's files are the instance's own folders, with their own
        // mode.
        FileKind::Folder
            if [OsStr::new("data"), OsStr::new("log")].contains(&entry.to.as_os_str()) =>
        {
            Ok(())
        }
        FileKind::Folder => make_folder(&target, entry.mode | 0o700),
        FileKind::Copy => write_atomic(
            &target,
            &regular::read(&source).map_err(unreadable)?,
            entry.mode,
        )
        .map_err(unwritable),
        FileKind::Render => {
            let text = rendered(entry, from, values, model)?;
            write_atomic(&target, text.as_bytes(), entry.mode).map_err(unwritable)
        }
        FileKind::Link(to) => match fs::symlink_metadata(&target) {
            Ok(there)
                if there.is_symlink() && fs::read_link(&target).is_ok_and(|old| old == *to) =>
            {
                Ok(())
            }
            Ok(there) if there.is_dir() => {
                Err(unwritable(io::Error::other("a folder exists at this path")))
            }
            Ok(_) => fs::remove_file(&target)
                .and_then(|()| symlink(to, &target))
                .map_err(unwritable),
            Err(_) => symlink(to, &target).map_err(unwritable),
        },
    }
}

/// Makes a folder with this mode, or checks an existing one: a link at its path would lead outside.
fn make_folder(path: &Path, mode: u32) -> Result<(), RenderError> {
    let make = || match fs::DirBuilder::new().mode(mode).create(path) {
        // The umask may have cleared bits.
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
        Err(e)
            if e.kind() == io::ErrorKind::AlreadyExists && fs::symlink_metadata(path)?.is_dir() =>
        {
            Ok(())
        }
        Err(e) => Err(e),
    };
    make().map_err(|source| RenderError::Write {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;
