//! `acc enable`, `acc disable`, `acc pin`: the desired state of instances.

use super::super::args::Names;
use super::super::context::CommandContext;
use super::super::output::CommandEnd;
use super::for_each;
use crate::domain::instance::DesiredState;
use crate::service::request::Request;

pub(in super::super) async fn run(
    call: &mut CommandContext<'_>,
    args: Names,
    desired: DesiredState,
) -> CommandEnd {
    let waiting = |name: &str| match desired {
        DesiredState::Up => format!("waiting for `{name}` to answer"),
        DesiredState::Down => format!("waiting for `{name}` to finish its requests and stop"),
        DesiredState::Auto => format!("changing `{name}`"),
    };
    for_each::run(call, args, waiting, |instance| Request::SetDesired {
        instance,
        desired,
    })
    .await
}
