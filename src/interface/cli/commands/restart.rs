//! `acc restart`: stops instances, then starts them.

use super::super::args::Names;
use super::super::context::CommandContext;
use super::super::output::CommandEnd;
use super::for_each;
use crate::service::request::Request;

pub(in super::super) async fn run(call: &mut CommandContext<'_>, args: Names) -> CommandEnd {
    for_each::run(
        call,
        args,
        |name| format!("waiting for `{name}` to end and answer again"),
        |instance| Request::Restart { instance },
    )
    .await
}
