//! Shows what a slow command waits for: after half a second, on a terminal only.
//!
//! It never changes how long something takes, and a failure to read the phase is no failure of
//! the command.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::MissedTickBehavior;

use super::engine::Engine;
use super::output::Style;
use crate::config::Config;
use crate::service::outcome::Outcome;
use crate::service::request::Request;

/// What ends sooner shows nothing.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often the phase is read.
const CHECK_EVERY: Duration = Duration::from_millis(250);

/// Waits for `work` while showing "`what` … 3 s", with the phase of `instance` when it is named.
pub async fn watch<T>(
    style: Style,
    config: &Config,
    what: &str,
    instance: Option<(&dyn Engine, &str)>,
    work: impl Future<Output = T>,
) -> T {
    if !shown(style) {
        return work.await;
    }
    let mut work = std::pin::pin!(work);
    if let Ok(done) = tokio::time::timeout(PATIENCE, work.as_mut()).await {
        return done;
    }
    let update = async |bar: &ProgressBar| {
        if let Some(phase) = phase_of(config, instance).await {
            bar.set_message(format!("{what}: {phase}"));
        }
    };
    updating(&spinner(what), work, update).await
}

/// Waits for `work` while showing the current text of `line`.
pub async fn follow<T>(
    style: Style,
    line: impl Fn() -> String,
    work: impl Future<Output = T>,
) -> T {
    if !shown(style) {
        return work.await;
    }
    let update = async |bar: &ProgressBar| bar.set_message(line());
    updating(&spinner(&line()), std::pin::pin!(work), update).await
}

/// Waits for `work` while `update` sets the message of `bar` again and again.
async fn updating<T>(
    bar: &ProgressBar,
    mut work: Pin<&mut impl Future<Output = T>>,
    update: impl AsyncFn(&ProgressBar),
) -> T {
    let mut ticks = tokio::time::interval(CHECK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let done = loop {
        tokio::select! {
            biased;
            done = work.as_mut() => break done,
            _ = ticks.tick() => {}
        }
        update(bar).await;
    };
    bar.finish_and_clear();
    done
}

/// Progress is talk, and a pipe or a log file has no use for it.
fn shown(style: Style) -> bool {
    style.talk_to_terminal && !style.quiet && !style.json
}

fn spinner(what: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
        .with_elapsed(PATIENCE)
        .with_message(what.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    // A thread of indicatif draws it: it goes on while this one is busy.
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

async fn phase_of(config: &Config, instance: Option<(&dyn Engine, &str)>) -> Option<&'static str> {
    let (engine, name) = instance?;
    let instance = name.into();
    match engine.dispatch(config, Request::Info { instance }).await {
        Ok(Outcome::Info(info)) => Some(info.instance.phase.as_str()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_to_people_only() {
        let terminal = Style {
            talk_to_terminal: true,
            ..Style::default()
        };
        assert!(shown(terminal));
        assert!(!shown(Style {
            quiet: true,
            ..terminal
        }));
        assert!(!shown(Style {
            json: true,
            ..terminal
        }));
        assert!(!shown(Style::default()));
    }
}
