//! `acc stop`: puts instances to sleep.

use super::super::Call;
use super::super::args::StopArgs;
use super::super::output::End;
use super::each;
use crate::service::request::Request;

pub(in super::super) async fn run(call: &mut Call<'_>, args: StopArgs) -> End {
    each::run(
        call,
        args.names,
        |name| format!("waiting for `{name}` to finish its work and end"),
        |instance| Request::Stop { instance, now: args.now },
    )
    .await
}
