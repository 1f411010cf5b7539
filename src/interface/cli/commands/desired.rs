//! `acc enable`, `acc disable`, `acc pin`: the desired state of instances.

use super::super::args::Names;
use super::super::context::CommandContext;
use super::super::output::CommandEnd;
use super::for_each;
use crate::service::request::Request;

/// `desired`: `auto`, `down` or `up`.
pub(in super::super) async fn run(
    call: &mut CommandContext<'_>,
    args: Names,
    desired: &str,
) -> CommandEnd {
    let waiting = |name: &str| match desired {
        "up" => format!("waiting for `{name}` to answer"),
        "down" => format!("waiting for `{name}` to finish its requests and stop"),
        _ => format!("changing `{name}`"),
    };
    for_each::run(call, args, waiting, |instance| Request::SetDesired {
        instance,
        desired: desired.to_owned(),
    })
    .await
}
