//! `acc destroy`: takes instances out of service for good.

use super::super::args::DestroyArgs;
use super::super::context::CommandContext;
use super::super::output::CommandEnd;
use super::for_each;
use crate::service::request::Request;

pub(in super::super) async fn run(call: &mut CommandContext<'_>, args: DestroyArgs) -> CommandEnd {
    for_each::run(
        call,
        args.names,
        |name| format!("taking `{name}` out of service"),
        |instance| Request::Destroy {
            instance,
            force: args.force,
        },
    )
    .await
}
