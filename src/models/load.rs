//! Reads a model: `model.toml` and its folder, checked completely before anything is made from it.
//!
//! It reports every fault at once and never writes.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use toml::de::DeValue;

use super::files::{self, FileKind, Tree};
use super::names::TemplateNames;
use super::template;
use crate::config::fault::{ConfigFault, lines};
use crate::config::reader::{Faults, Section};
use crate::config::suggest::did_you_mean;
use crate::config::value::{self, Parsed};
use crate::config::{regular, trust};
use crate::domain::instance::RunnerKind;
use crate::domain::model::{ListenKind, Model, Param, Ready};
use crate::domain::name::is_label;

/// The file that defines a model.
const FILE: &str = "model.toml";

/// How instances can listen.
const LISTEN: &[(&str, ListenKind)] = &[
    ("unix", ListenKind::Unix),
    ("tcp", ListenKind::Tcp),
    ("fd", ListenKind::Fd),
];

/// Variables that acc sets itself at each start.
const OURS: &[&str] = &[
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
];

/// Signals that an application may use as its stop signal.
const STOP_SIGNALS: &[Signal] = &[
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGKILL,
];

/// A model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// There is no such folder.
    #[error("there is no model `{name}`{near}")]
    Missing {
        /// The requested name.
        name: String,
        /// `, did you mean …?` or nothing.
        near: String,
    },
    /// It could not be read; it may exist.
    #[error("could not read `{path}`")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// It has faults.
    #[error("model `{name}` is invalid: `{file}`: {}", lines(.faults, "; "))]
    Wrong {
        /// The model.
        name: String,
        /// Its `model.toml`.
        file: PathBuf,
        /// All its faults, in the order of the file.
        faults: Vec<ConfigFault>,
    },
}

/// Loads the model of this name below `models`. A text that is not a valid name is a missing model:
/// nothing outside the folder is read.
///
/// # Errors
/// Missing (with the nearest name), unreadable, or faulty.
pub fn find_model(models: &Path, name: &str) -> Result<Model, ModelError> {
    let dir = models.join(name);
    if is_label(name)
        && dir.try_exists().map_err(|source| ModelError::Read {
            path: dir.clone(),
            source,
        })?
    {
        return load_model(&dir);
    }
    let known = folders(models)?;
    Err(ModelError::Missing {
        name: name.to_owned(),
        near: did_you_mean(name, known.iter().map(String::as_str)),
    })
}

/// Every model below `models`, by name, including faulty ones. A missing folder has no models.
///
/// # Errors
/// The folder itself cannot be read.
pub fn list_models(models: &Path) -> Result<Vec<Result<Model, ModelError>>, ModelError> {
    Ok(folders(models)?
        .iter()
        .map(|name| load_model(&models.join(name)))
        .collect())
}

/// The names of the folders below `models`, in order, without hidden ones.
fn folders(models: &Path) -> Result<Vec<String>, ModelError> {
    let read = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(models)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') && entry.path().is_dir() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    };
    match read() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(|source| ModelError::Read {
            path: models.to_owned(),
            source,
        }),
    }
}

/// Loads and checks the model in `dir`: its `model.toml`, the templates in it, and the folder
/// `files/`.
///
/// # Errors
/// Missing, unreadable, or faulty, with every fault.
pub fn load_model(dir: &Path) -> Result<Model, ModelError> {
    let name = dir
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let file = dir.join(FILE);
    let text = match trust::read_to_string(&file).map_err(io::Error::from) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound && !dir.exists() => {
            return Err(ModelError::Missing {
                name,
                near: String::new(),
            });
        }
        Err(source) => return Err(ModelError::Read { path: file, source }),
    };
    let faults = Faults::new(&text);
    let table = faults.parse();
    if !faults.is_empty() {
        return Err(ModelError::Wrong {
            name,
            file,
            faults: faults.into_list(),
        });
    }
    let root = Section::root(&faults, &table);
    if !is_label(&name) {
        root.fault_here(
            "the folder's name must consist of 1 to 63 characters of a-z, 0-9 and inner dashes",
        );
    }
    let (model, names) = read(&root, name.clone(), dir);
    check_files(&dir.join("files"), &names, &faults)?;
    if faults.is_empty() {
        Ok(model)
    } else {
        Err(ModelError::Wrong {
            name,
            file,
            faults: faults.into_list(),
        })
    }
}

/// The parameters of the model in `dir` that are not secret; `None`: it is unreadable or has
/// faults.
#[must_use]
pub fn open_params(dir: &Path) -> Option<BTreeSet<String>> {
    let text = trust::read_to_string(&dir.join(FILE)).ok()?;
    let faults = Faults::new(&text);
    let table = faults.parse();
    let open = Section::root(&faults, &table)
        .named_sections("params")
        .into_iter()
        .filter_map(|(name, section)| {
            (!section.or("secret", false, value::boolean)).then_some(name)
        })
        .collect();
    faults.is_empty().then_some(open)
}

/// The model, and the names that its templates may use.
fn read(root: &Section<'_>, name: String, dir: &Path) -> (Model, TemplateNames) {
    let timeouts = root.section("timeouts");
    let description = root.or("description", String::new(), value::line);
    let listen = root.optional("listen", value::one_of(LISTEN));
    let params = root
        .named_sections("params")
        .into_iter()
        .map(|(name, section)| param(name, &section))
        .collect();
    // An invalid value of `listen` is a fault by itself, and says nothing about templates.
    let names = TemplateNames::new(
        listen.or_else(|| root.line_of("listen").is_none().then_some(ListenKind::Unix)),
        &params,
    );
    let model = Model {
        name,
        dir: dir.to_owned(),
        description,
        runner: RunnerKind::default(),
        listen: listen.unwrap_or(ListenKind::Unix),
        ready: root.or(
            "ready",
            Ready::Socket,
            value::one_of(&[("socket", Ready::Socket), ("notify", Ready::Notify)]),
        ),
        command: root
            .list("command", |v| template_text(v, &names))
            .unwrap_or_default(),
        health: root.optional("health", health),
        stop_signal: root.or("stop_signal", Signal::SIGTERM as i32, stop_signal),
        env: root.map("env", |name, v| variable(name, v, &names)),
        start_timeout: timeouts.optional("start", value::some_time),
        stop_timeout: timeouts.optional("stop", value::some_time),
        params,
    };
    if root.line_of("command").is_none() {
        root.fault("command", "is missing: the program and its arguments, such as [\"bin/app\", \"--socket\", \"{{ socket }}\"]");
    } else if root.is_empty_list("command") {
        root.fault("command", "must not be empty");
    }
    timeouts.close();
    root.close();
    (model, names)
}

fn param(name: String, section: &Section<'_>) -> (String, Param) {
    let param = Param {
        default: section.optional("default", scalar),
        description: section.or("description", String::new(), value::line),
        required: section.or("required", false, value::boolean),
        secret: section.or("secret", false, value::boolean),
    };
    let first = name
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_lowercase() || c == '_');
    if !first
        || !name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    {
        section.fault_here("the name must consist of a-z, 0-9 and _ and not begin with a digit");
    }
    if param.required && param.default.is_some() {
        section.fault("required", "has no effect with a default");
    }
    section.close();
    (name, param)
}

/// A text, number or boolean as text; a text may have several lines.
fn scalar(v: &DeValue<'_>) -> Parsed<String> {
    match v {
        DeValue::Integer(number) => Ok(number.to_string()),
        DeValue::Float(number) => Ok(number.to_string()),
        DeValue::Boolean(truth) => Ok(truth.to_string()),
        DeValue::String(_) => value::argument(v),
        _ => Err("must be a string, a number, true or false".to_owned()),
    }
}

fn template_text(v: &DeValue<'_>, names: &TemplateNames) -> Parsed<String> {
    let text = value::argument(v)?;
    template::check(&text).map_err(|fault| format!("not a template: {}", fault.why))?;
    names.check(&text).map_err(|missing| missing.why)?;
    Ok(text)
}

fn variable(name: &str, v: &DeValue<'_>, names: &TemplateNames) -> Parsed<String> {
    let first = name
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if !first || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(
            "the name of a variable must consist of letters, digits and _ and not begin with a digit"
                .to_owned(),
        );
    }
    if OURS.contains(&name) {
        return Err("is set by acc: see `listen = \"fd\"` and `ready = \"notify\"`".to_owned());
    }
    let text = scalar(v)?;
    template::check(&text).map_err(|fault| format!("not a template: {}", fault.why))?;
    names.check(&text).map_err(|missing| missing.why)?;
    Ok(text)
}

fn health(v: &DeValue<'_>) -> Parsed<String> {
    let path = value::text(v)?;
    let good = path.starts_with('/') && path.chars().all(|c| c.is_ascii_graphic());
    if good {
        Ok(path)
    } else {
        Err("must be a path that begins with /, without spaces, such as \"/health\"".to_owned())
    }
}

fn stop_signal(v: &DeValue<'_>) -> Parsed<i32> {
    let text = v.as_str().unwrap_or_default();
    let bare = |signal: &Signal| signal.as_str().trim_start_matches("SIG").to_owned();
    let found = STOP_SIGNALS
        .iter()
        .find(|s| s.as_str() == text || bare(s) == text);
    found.map(|s| *s as i32).ok_or_else(|| {
        format!(
            "must be one of {}",
            STOP_SIGNALS.iter().map(bare).collect::<Vec<_>>().join(", ")
        )
    })
}

/// Reports unusable entries of `files/` and invalid templates.
fn check_files(
    folder: &Path,
    names: &TemplateNames,
    faults: &Faults<'_>,
) -> Result<(), ModelError> {
    let unreadable = |path: PathBuf| move |source| ModelError::Read { path, source };
    let Tree { entries, refused } = files::walk(folder).map_err(unreadable(folder.to_owned()))?;
    let add = |below: &Path, line, reason| {
        faults.add(ConfigFault {
            key: Path::new("files").join(below).display().to_string(),
            line,
            reason,
            found: None,
        })
    };
    for (path, reason) in refused {
        add(&path, None, reason);
    }
    for entry in entries.iter().filter(|e| e.kind == FileKind::Render) {
        let path = folder.join(&entry.from);
        let text = regular::read_to_string(&path).map_err(unreadable(path))?;
        if let Err(fault) = template::check(&text) {
            add(
                &entry.from,
                fault.line,
                format!("not a template: {}", fault.why),
            );
        } else if let Err(missing) = names.check(&text) {
            add(&entry.from, missing.line, missing.why.to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
