//! Makes texts from templates: nginx, supervisord, pages, and the files of an instance.
//!
//! Templates are compiled in; a file of the same name in the operator's folder (`edge.templates`)
//! replaces one. An unknown name in a template is an error, never an empty text.

pub mod instance;
pub mod nginx;
pub mod pages;
pub mod supervisord;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::trust;

/// The built-in templates, by their name below `templates/`.
const BUILT_IN: &[(&str, &str)] = &[
    // A template comes after those it includes.
    (
        "nginx/headers.conf",
        include_str!("../../templates/nginx/headers.conf"),
    ),
    (
        "nginx/own-errors.conf",
        include_str!("../../templates/nginx/own-errors.conf"),
    ),
    (
        "nginx/own-log.conf",
        include_str!("../../templates/nginx/own-log.conf"),
    ),
    (
        "nginx/wake.conf",
        include_str!("../../templates/nginx/wake.conf"),
    ),
    (
        "nginx/nginx.conf",
        include_str!("../../templates/nginx/nginx.conf"),
    ),
    (
        "pages/error.html",
        include_str!("../../templates/pages/error.html"),
    ),
    (
        "pages/waiting.html",
        include_str!("../../templates/pages/waiting.html"),
    ),
    (
        "supervisord/supervisord.conf",
        include_str!("../../templates/supervisord/supervisord.conf"),
    ),
    (
        "supervisord/program.conf",
        include_str!("../../templates/supervisord/program.conf"),
    ),
    (
        "supervisord/service.conf",
        include_str!("../../templates/supervisord/service.conf"),
    ),
];

/// A template could not be read or rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The operator's template cannot be read.
    #[error("could not read template `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// It is not a valid template, or uses an unknown name.
    #[error("template `{name}` is wrong: {why}")]
    Template {
        /// The template.
        name: String,
        /// The reason, with line and column.
        why: String,
    },
    /// The command of a model cannot be run.
    #[error("command `{command}` of model `{model}` {why}")]
    Command {
        /// The program, as the model names it.
        command: String,
        /// The model.
        model: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file of an instance cannot be written.
    #[error("could not write `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
}

/// All templates, parsed.
#[derive(Debug, Clone)]
pub struct Templates {
    tera: tera::Tera,
}

impl Templates {
    /// Parses the built-in templates and those of `overrides`, which replace built-in ones of the
    /// same name (`nginx/nginx.conf`).
    pub fn new(overrides: Option<&Path>) -> Result<Self, RenderError> {
        let mut tera = tera::Tera::new();
        tera.autoescape_on(vec![".html"]);
        for (name, text) in BUILT_IN {
            let path = overrides.map(|dir| dir.join(name)).filter(|p| p.exists());
            let own = match &path {
                Some(path) => Some(read(path)?),
                None => None,
            };
            tera.add_raw_template(name, own.as_deref().unwrap_or(text))
                .map_err(|e| wrong(name, &e))?;
        }
        Ok(Self { tera })
    }

    /// Renders the template of this name.
    pub fn render(&self, name: &str, values: &impl Serialize) -> Result<String, RenderError> {
        let context = tera::Context::from_serialize(values).map_err(|e| wrong(name, &e))?;
        self.tera
            .render(name, &context)
            .map_err(|e| wrong(name, &e))
    }
}

/// nginx, whose master is root, uses it, so no other user may be able to change it.
fn read(path: &Path) -> Result<String, RenderError> {
    trust::read_to_string(path).map_err(|e| RenderError::Read {
        path: path.to_owned(),
        source: e.into(),
    })
}

/// A template error as one line.
pub(crate) fn wrong(name: &str, error: &tera::Error) -> RenderError {
    let why = crate::domain::model::one_line(&error.to_string());
    RenderError::Template {
        name: name.to_owned(),
        why,
    }
}
