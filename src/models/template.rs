//! Small templates inside a model: checks and renders them.
//!
//! Unknown names are errors, nothing is escaped (these are arguments and plain files, not HTML),
//! and no template can include another.

use tera::{Context, ErrorKind, Tera};

use crate::domain::model::one_line;

/// Why a text is not a valid template, or cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateFault {
    /// Line within the text from 1, if known.
    pub line: Option<usize>,
    /// The reason, in one line.
    pub why: String,
}

/// Checks the syntax only.
pub fn check(text: &str) -> Result<(), TemplateFault> {
    Tera::default()
        .add_raw_template("it", text)
        .map_err(|e| fault(&e))
}

/// Renders the template; a name that is not in `values` is an error.
pub fn render(text: &str, values: &Context) -> Result<String, TemplateFault> {
    Tera::one_off(text, values, false).map_err(|e| fault(&e))
}

fn fault(error: &tera::Error) -> TemplateFault {
    let (line, why) = match error.kind() {
        ErrorKind::SyntaxError(report) | ErrorKind::RenderingError(report) => {
            (Some(report.span().start_line), report.message().to_owned())
        }
        // Some errors are a drawing of several lines; the first has the message.
        other => (
            None,
            other
                .to_string()
                .lines()
                .next()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .to_owned(),
        ),
    };
    let why = one_line(&why);
    let (first, rest) = why.split_at(why.chars().next().map_or(0, char::len_utf8));
    TemplateFault {
        line,
        why: first.to_lowercase() + rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_names_are_rendered() {
        let mut values = Context::new();
        values.insert("name", "a<b");
        values.insert("params", &std::collections::BTreeMap::from([("x", "1")]));
        assert_eq!(
            render(
                "{{ name }} {{ params.x }}{% if port %}no{% endif %}",
                &values
            ),
            Ok("a<b 1".to_owned())
        );
        for (text, line, word) in [
            ("\n{{ nam }}", 2, "nam"),
            ("{{ params.y }}", 1, "y"),
            ("{{ port }}", 1, "port"),
        ] {
            let fault = render(text, &values).unwrap_err();
            assert!(
                fault.line == Some(line) && fault.why.contains(word),
                "{text}: {fault:?}"
            );
        }
        for text in [
            "{{ name",
            "{% if %}",
            "{{ name | nosuch }}",
            "{% include \"/etc/passwd\" %}",
        ] {
            assert!(check(text).is_err(), "{text}");
        }
        assert_eq!(check("{{ anything.at_all }}"), Ok(()));
    }
}
