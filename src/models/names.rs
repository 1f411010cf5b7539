//! Whether a template of a model uses the name that its instances do not have, `port` or `socket`.
//! Reported when the model is read, because every create would fail.
//!
//! Only certain faults are reported. The template is rendered with made-up values, once with the
//! missing name and once without. If it fails with the name, it has another fault; if it works
//! without it (`{{ port | default(value=1) }}`), it is valid; for a template with an `if`, only the
//! real values can tell.

use std::collections::BTreeMap;

use tera::Context;

use super::template;
use crate::domain::model::{ListenKind, Param};

/// The names for templates, as far as they depend on the model.
pub(super) struct TemplateNames {
    /// `None`: how instances listen is unknown, and nothing is reported.
    listen: Option<ListenKind>,
    with: Context,
    without: Context,
}

/// A template that uses a missing name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missing {
    /// Line within the text, from 1.
    pub(super) line: Option<usize>,
    /// The name, and how to fix it.
    pub(super) why: &'static str,
}

impl TemplateNames {
    pub(super) fn new(listen: Option<ListenKind>, params: &BTreeMap<String, Param>) -> Self {
        let without = made_up(params);
        let mut with = without.clone();
        with.insert("socket", "/run/a/app.sock");
        with.insert("port", &20_000);
        let mut names = Self {
            listen,
            with,
            without,
        };
        match listen {
            Some(ListenKind::Tcp) => names.without.insert("port", &20_000),
            Some(ListenKind::Unix | ListenKind::Fd) => {
                names.without.insert("socket", "/run/a/app.sock")
            }
            None => {}
        }
        names
    }

    /// Reports which name this template will miss.
    pub(super) fn check(&self, text: &str) -> Result<(), Missing> {
        let Some(listen) = self.listen else {
            return Ok(());
        };
        let (name, why) = other_name(listen);
        if !text.contains(name)
            || text.contains("if ")
            || template::render(text, &self.with).is_err()
        {
            return Ok(());
        }
        template::render(text, &self.without)
            .map(drop)
            .map_err(|fault| Missing {
                line: fault.line,
                why,
            })
    }
}

/// The missing name, and how to fix its use.
fn other_name(listen: ListenKind) -> (&'static str, &'static str) {
    match listen {
        ListenKind::Unix => (
            "port",
            "`port` exists only with `listen = \"tcp\"`: set that, or let the program listen on the unix socket `{{ socket }}`",
        ),
        ListenKind::Fd => (
            "port",
            "`port` exists only with `listen = \"tcp\"`: set that, or let the program use the socket passed as descriptor 3",
        ),
        ListenKind::Tcp => (
            "socket",
            "`socket` does not exist with `listen = \"tcp\"`: set \"unix\" or \"fd\", or let the program listen on 127.0.0.1:{{ port }}",
        ),
    }
}

/// A value for each name that every instance has; `render::instance` uses the real ones.
fn made_up(params: &BTreeMap<String, Param>) -> Context {
    let mut values = Context::new();
    for name in ["name", "host", "url", "dir", "data", "acc"] {
        values.insert(name, "/a");
    }
    values.insert("id", &1);
    values.insert("hosts", &["a"]);
    let params: BTreeMap<&str, &str> = params
        .iter()
        .map(|(name, p)| (name.as_str(), p.default.as_deref().unwrap_or("1")))
        .collect();
    values.insert("params", &params);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_certain_is_said() {
        let params = BTreeMap::from([("tls".to_owned(), Param::default())]);
        let says = |listen, text: &str| {
            TemplateNames::new(Some(listen), &params)
                .check(text)
                .err()
                .map(|m| m.line)
        };
        for text in [
            "{{ port }}",
            "--port={{ port }}",
            "{{ name }}:{{port}}",
            "{{ params.tls }}{{ port + 1 }}",
        ] {
            assert_eq!(says(ListenKind::Unix, text), Some(Some(1)), "{text}");
            assert_eq!(says(ListenKind::Fd, text), Some(Some(1)), "{text}");
            assert_eq!(says(ListenKind::Tcp, text), None, "{text}");
        }
        assert_eq!(
            says(ListenKind::Tcp, "\n\nunix:{{ socket }}"),
            Some(Some(3))
        );
        for listen in [ListenKind::Unix, ListenKind::Fd] {
            assert_eq!(says(listen, "unix:{{ socket }}"), None);
            let conditional = [
                "{% if params.tls == 'x' %}-{% else %}{{ port }}{% endif %}",
                "{% if port %}{{ port }}{% endif %}",
            ];
            for text in [
                "port",
                "{{ params.port }}",
                "{{ port | default(value=1) }}",
                "{{ port }}{{ nosuch }}",
            ]
            .iter()
            .chain(&conditional)
            {
                assert_eq!(says(listen, text), None, "{text}");
            }
        }
        assert_eq!(
            TemplateNames::new(None, &params).check("{{ port }}{{ socket }}"),
            Ok(())
        );
    }
}
