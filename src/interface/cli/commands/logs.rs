//! `acc logs`: what an instance printed, or the requests to it.

use std::path::Path;
use std::time::Duration;

use super::super::Call;
use super::super::args::LogsArgs;
use super::super::exit::Exit;
use super::super::output::End;
use super::super::tail::Tail;
use crate::service::error::ServiceError;
use crate::service::view::Reader;

/// With `-f`, pause between two looks at the end of the file.
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub(in super::super) async fn run(call: &mut Call<'_>, args: &LogsArgs) -> End {
    let name = Reader::open(call.config)?.find(&args.name.name)?.name;
    let path = if args.access { call.config.access_log(&name) } else { call.config.app_log(&name) };
    let unreadable = |e: std::io::Error| cannot_read(&path, &e);
    let mut tail = Tail::open(&path, args.lines).await.map_err(unreadable)?;
    if !tail.is_there() {
        call.ui.say(if args.access { "no requests yet" } else { "no output yet" });
    }
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        let piece = tail.read().await.map_err(unreadable)?;
        if !piece.is_empty() {
            call.ui.bytes(&piece)?;
        } else if !args.follow || !call.ui.is_read() {
            return Ok(Exit::Done);
        } else {
            looks.tick().await;
        }
    }
}

fn cannot_read(path: &Path, error: &std::io::Error) -> ServiceError {
    ServiceError::because(format!("could not read `{}`", path.display()), error, "run as root (or the user who booted acc)")
}
