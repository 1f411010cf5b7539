//! `acc demo-app`: the small HTTP application behind the model `hello`, for the demo and for tests.
//!
//! It answers on a unix socket or a loopback port, or on the socket it is handed
//! (`sd_listen_fds(3)`), reports when it is ready on request (`sd_notify(3)`), can be
//! set to misbehave, ends gracefully on SIGTERM, and can record every start, stop and request
//! with its time, so that a test can count what was lost or done twice. It stands apart from the
//! rest of acc on purpose: an application must not share code with what is to keep it running.

mod answer;
mod body;
mod leave;
mod listen;
mod log;
mod websocket;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use answer::DemoApp;
use listen::{DemoListener, DemoStream};
use log::Log;

/// Longest time from SIGTERM to the exit, whatever is still in flight.
const FINISH_LIMIT: Duration = Duration::from_secs(10);

/// The options of the demo application. With neither `socket` nor `port`, a socket must be passed
/// in.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct DemoOptions {
    /// Listen on this unix socket; a socket left there by an earlier run is replaced.
    #[arg(long, value_name = "PATH", conflicts_with = "port")]
    pub socket: Option<PathBuf>,
    /// Listen on this port of 127.0.0.1; 0: the kernel chooses, and the line on standard output
    /// says which.
    #[arg(long)]
    pub port: Option<u16>,
    /// The name it shows.
    #[arg(long, default_value = "demo")]
    pub name: String,
    /// Wait this long before listening.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "0s", value_name = "DURATION")]
    pub start_delay: Duration,
    /// Wait this long before exiting, after all requests have ended.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "0s", value_name = "DURATION")]
    pub finish_delay: Duration,
    /// Report that it is ready (if `NOTIFY_SOCKET` is set) this long after it began to listen; it
    /// answers meanwhile.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "0s", value_name = "DURATION")]
    pub ready_delay: Duration,
    /// The socket on which to report that it is ready.
    #[arg(long, env = "NOTIFY_SOCKET", value_name = "PATH", hide = true)]
    pub notify_socket: Option<PathBuf>,
    /// Append a line for every start, stop and request to this file; empty: none.
    #[arg(long, env = "APP_LOG", value_name = "FILE", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub log: Option<PathBuf>,
    /// Misbehave: ignore SIGTERM and SIGINT.
    #[arg(long)]
    pub ignore_term: bool,
    /// Misbehave: run, but never listen.
    #[arg(long)]
    pub never_listen: bool,
    /// Misbehave: accept connections and never answer.
    #[arg(long)]
    pub never_answer: bool,
    /// Misbehave: exit with this code at once.
    #[arg(long, value_name = "CODE")]
    pub exit_at_start: Option<i32>,
}

/// Runs the demo application on a single-threaded runtime of its own, which starts sooner than a
/// pool.
///
/// # Errors
/// Those of [`run`], or the runtime cannot be made.
pub fn start(options: DemoOptions) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("could not start the runtime")?
        .block_on(run(options))
}

/// Runs until SIGTERM or SIGINT, then finishes the requests in flight (10 s at most) and returns.
///
/// # Errors
/// The log cannot be opened, or the address cannot be bound.
pub async fn run(options: DemoOptions) -> anyhow::Result<()> {
    // Handlers first: a stop during the start delay must not be lost.
    let mut end = StopSignals::new(options.ignore_term)?;
    let log = Arc::new(Log::open(
        options
            .log
            .as_deref()
            .filter(|path| !path.as_os_str().is_empty()),
    )?);
    log.write("START", "");
    if let Some(code) = options.exit_at_start {
        log.write("EXIT", "");
        leave::leave(code);
    }
    let stopped_early = tokio::select! {
        () = tokio::time::sleep(options.start_delay) => false,
        () = end.wait() => true,
    };
    if stopped_early {
        log.write("TERM", "");
    } else if options.never_listen {
        end.wait().await;
        log.write("TERM", "");
    } else {
        let listener = DemoListener::bind(options.socket.as_deref(), options.port)?;
        greet(&options.name, &listener);
        let _ready = options.notify_socket.is_some().then(|| {
            AbortOnDrop(tokio::spawn(say_ready(
                options.ready_delay,
                Arc::clone(&log),
            )))
        });
        serve(listener, &options, &log, &mut end).await;
        tokio::time::sleep(options.finish_delay).await;
    }
    log.write("EXIT", "");
    Ok(())
}

/// Aborts the task when dropped.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reports to the parent process, if requested; a failure concerns only that process.
async fn say_ready(delay: Duration, log: Arc<Log>) {
    if !delay.is_zero() {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Status("listening, not ready yet")]);
        tokio::time::sleep(delay).await;
    }
    log.write("READY", "");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
}

/// Accepts until it is stopped; then finishes what was accepted.
async fn serve(
    listener: DemoListener,
    options: &DemoOptions,
    log: &Arc<Log>,
    end: &mut StopSignals,
) {
    let stopping = CancellationToken::new();
    let tasks = TaskTracker::new();
    let app = Arc::new(DemoApp::new(
        options.name.clone(),
        Arc::clone(log),
        stopping.clone(),
        tasks.clone(),
    ));
    loop {
        let stream = tokio::select! {
            stream = listener.accept() => stream,
            () = end.wait() => break,
        };
        match stream {
            Ok(stream) if options.never_answer => {
                drop(tasks.spawn(keep_silent(stream, stopping.clone())))
            }
            Ok(stream) => drop(tasks.spawn(connection(stream, Arc::clone(&app), stopping.clone()))),
            // Out of descriptors: the listener stays readable, and without a pause this would spin.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    log.write("TERM", "");
    drop(listener);
    stopping.cancel();
    tasks.close();
    let _ = tokio::time::timeout(FINISH_LIMIT, tasks.wait()).await;
}

/// Serves one connection, from the first request to the last.
async fn connection(stream: DemoStream, app: Arc<DemoApp>, stopping: CancellationToken) {
    let service = service_fn(move |request| {
        let app = Arc::clone(&app);
        async move { app.answer(request).await }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(served);
    tokio::select! {
        _ = served.as_mut() => return,
        () = stopping.cancelled() => served.as_mut().graceful_shutdown(),
    }
    let _ = served.await;
}

/// Holds a connection open and never responds, until the end.
async fn keep_silent(stream: DemoStream, stopping: CancellationToken) {
    stopping.cancelled().await;
    drop(stream);
}

/// The signals that ask it to end; ignored if it should misbehave.
struct StopSignals {
    term: Signal,
    int: Signal,
    ignore: bool,
}

impl StopSignals {
    fn new(ignore: bool) -> anyhow::Result<Self> {
        let catch = |kind| signal(kind).context("could not catch a signal");
        Ok(Self {
            term: catch(SignalKind::terminate())?,
            int: catch(SignalKind::interrupt())?,
            ignore,
        })
    }

    async fn wait(&mut self) {
        loop {
            tokio::select! {
                _ = self.term.recv() => {}
                _ = self.int.recv() => {}
            }
            if !self.ignore {
                return;
            }
        }
    }
}

/// Prints the one line on standard output.
#[expect(
    clippy::print_stdout,
    reason = "an application writes to its standard output; acc keeps it in the instance's log"
)]
fn greet(name: &str, listener: &DemoListener) {
    println!(
        "demo {name} listening on {}, pid {}",
        listener.address(),
        std::process::id()
    );
}

#[cfg(test)]
mod tests;
