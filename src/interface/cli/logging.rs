//! Where the log goes and how much of it: standard error, by `[log]` for the server, by `-v` for
//! everything else.
//!
//! A line that cannot be written (full disk, closed pipe) is dropped. By
//! default the library would complain about it on the same standard error, and panic in the middle
//! of a request when that fails as well.

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// The filter for a command that runs and ends: what it has to tell it says itself, the log is for
/// looking closer.
#[must_use]
pub fn short_filter(verbose: u8, quiet: bool) -> &'static str {
    match (quiet, verbose) {
        (true, _) => "acc=error",
        (false, 0) => "acc=warn",
        (false, 1) => "acc=info",
        (false, 2) => "acc=debug",
        (false, _) => "trace",
    }
}

/// The filter for the server: the config's level, or more with `-v`.
#[must_use]
pub fn server_filter(level: &str, verbose: u8, quiet: bool) -> String {
    match (quiet, verbose) {
        (true, _) => "acc=error".to_owned(),
        (false, 0) => format!("warn,acc={level}"),
        (false, 1) => "info,acc=debug".to_owned(),
        (false, _) => "info,acc=trace".to_owned(),
    }
}

/// Sets up the log of a short command. A second call changes nothing.
pub fn short(verbose: u8, quiet: bool) {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(short_filter(verbose, quiet)))
        .with_writer(std::io::stderr)
        .log_internal_errors(false)
        .with_ansi(false)
        .without_time()
        .finish();
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Sets up the log of the server. A second call changes nothing.
pub fn server(config: &LogConfig, verbose: u8, quiet: bool) {
    let filter = EnvFilter::new(server_filter(&config.level, verbose, quiet));
    let base = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false)
        .with_ansi(false);
    let _ = match config.format {
        LogFormat::Text => tracing::subscriber::set_global_default(base.finish()),
        LogFormat::Json => {
            tracing::subscriber::set_global_default(base.json().flatten_event(true).finish())
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_filter_is_understood() {
        for (quiet, verbose) in [(true, 0), (false, 0), (false, 1), (false, 2), (false, 3)] {
            EnvFilter::builder()
                .parse(short_filter(verbose, quiet))
                .unwrap();
            for level in ["error", "warn", "info", "debug", "trace"] {
                EnvFilter::builder()
                    .parse(server_filter(level, verbose, quiet))
                    .unwrap();
            }
        }
    }

    #[test]
    fn the_config_decides_unless_the_operator_asks_for_more() {
        assert_eq!(server_filter("info", 0, false), "warn,acc=info");
        assert_eq!(server_filter("error", 1, false), "info,acc=debug");
        assert_eq!(server_filter("trace", 0, true), "acc=error");
    }
}
