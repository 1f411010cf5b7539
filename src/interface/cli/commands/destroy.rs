//! `acc destroy`: takes instances out of service for good.

use super::super::Call;
use super::super::args::DestroyArgs;
use super::super::output::End;
use super::each;
use crate::service::request::Request;

pub(in super::super) async fn run(call: &mut Call<'_>, args: DestroyArgs) -> End {
    each::run(
        call,
        args.names,
        |name| format!("taking `{name}` out of service"),
        |instance| Request::Destroy { instance, force: args.force },
    )
    .await
}
