//! `acc stop`: puts instances to sleep.

use super::super::args::StopArgs;
use super::super::context::CommandContext;
use super::super::output::CommandEnd;
use super::for_each;
use crate::service::request::Request;

pub(in super::super) async fn run(call: &mut CommandContext<'_>, args: StopArgs) -> CommandEnd {
    for_each::run(
        call,
        args.names,
        |name| format!("waiting for `{name}` to finish its requests and stop"),
        |instance| Request::Stop {
            instance,
            now: args.now,
        },
    )
    .await
}
