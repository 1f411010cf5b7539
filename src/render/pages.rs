//! The two pages of acc: "is starting" and "cannot be served".
//!
//! It never fails while a request waits: both templates are tried once at the start, and a page
//! that fails later is replaced by one line of text.

use std::sync::Arc;

use serde::Serialize;

use super::{RenderError, Templates};

/// The values of the waiting page.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct WaitingPage<'a> {
    /// The instance's name.
    pub name: &'a str,
    /// Where the page gets the events of the wake.
    pub wake_path: &'a str,
}

/// The values of the page for a refusal.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ErrorPage<'a> {
    /// HTTP status.
    pub status: u16,
    /// One short sentence.
    pub title: &'a str,
    /// One longer sentence.
    pub detail: &'a str,
    /// The requested host.
    pub host: &'a str,
    /// Seconds until another try makes sense.
    pub retry_after: Option<u64>,
}

/// Renders the pages.
#[derive(Debug, Clone)]
pub struct Pages {
    templates: Arc<Templates>,
}

impl Pages {
    /// Takes the templates and renders each page once, so that a faulty template is found at the
    /// start.
    ///
    /// # Errors
    /// The template of a page is wrong.
    pub fn new(templates: Arc<Templates>) -> Result<Self, RenderError> {
        templates.render(
            "pages/waiting.html",
            &WaitingPage {
                name: "x",
                wake_path: "/",
            },
        )?;
        let error = ErrorPage {
            status: 503,
            title: "x",
            detail: "x",
            host: "x",
            retry_after: Some(1),
        };
        templates.render("pages/error.html", &error)?;
        templates.render(
            "pages/error.html",
            &ErrorPage {
                retry_after: None,
                ..error
            },
        )?;
        Ok(Self { templates })
    }

    /// The page of an instance that is being woken.
    #[must_use]
    pub fn waiting(&self, page: &WaitingPage<'_>) -> String {
        self.render("pages/waiting.html", page, "The application is starting.")
    }

    /// The page of a refused request.
    #[must_use]
    pub fn error(&self, page: &ErrorPage<'_>) -> String {
        self.render(
            "pages/error.html",
            page,
            "The application cannot be reached.",
        )
    }

    fn render(&self, name: &str, values: &impl Serialize, otherwise: &str) -> String {
        self.templates.render(name, values).unwrap_or_else(|error| {
            tracing::error!(%error, "could not render a page");
            otherwise.to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages() -> Pages {
        Pages::new(Arc::new(Templates::new(None).unwrap())).unwrap()
    }

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let evil = "<script>alert(1)</script>\"'";
        let waiting = pages().waiting(&WaitingPage {
            name: evil,
            wake_path: "/.well-known/acc/wake",
        });
        assert!(!waiting.contains("<script>alert"), "{waiting}");
        assert!(waiting.contains("&lt;script&gt;alert"), "{waiting}");
        let error = ErrorPage {
            status: 404,
            title: evil,
            detail: evil,
            host: evil,
            retry_after: None,
        };
        assert!(!pages().error(&error).contains("<script>"));
    }

    #[test]
    fn the_waiting_page_works_without_scripts_and_in_the_dark() {
        let page = pages().waiting(&WaitingPage {
            name: "shop",
            wake_path: "/.well-known/acc/wake",
        });
        assert!(page.contains(r#"<noscript><meta http-equiv="refresh" content="1"></noscript>"#));
        assert!(page.contains("prefers-color-scheme: dark"));
        assert!(
            page.contains(r#"data-wake="/.well-known/acc/wake""#),
            "{page}"
        );
        assert!(page.contains("shop is starting"));
        assert!(page.len() < 4096, "{} bytes", page.len());
    }

    #[test]
    fn an_error_page_says_when_to_come_back() {
        let page = ErrorPage {
            status: 503,
            title: "Not now",
            detail: "why",
            host: "shop.example.org",
            retry_after: Some(7),
        };
        assert!(pages().error(&page).contains("again in 7 s"));
        assert!(
            !pages()
                .error(&ErrorPage {
                    retry_after: None,
                    ..page
                })
                .contains("again in")
        );
    }

    #[test]
    fn a_faulty_replacement_is_found_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("pages")).unwrap();
        std::fs::write(dir.path().join("pages/error.html"), "{{ nonsense }}").unwrap();
        let templates = Templates::new(Some(dir.path())).unwrap();
        assert!(
            Pages::new(Arc::new(templates))
                .unwrap_err()
                .to_string()
                .contains("pages/error.html")
        );
    }
}
