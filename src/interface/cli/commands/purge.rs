//! `acc purge`: removes destroyed instances with everything they had.

use super::super::Call;
use super::super::args::Names;
use super::super::output::End;
use super::each;
use crate::service::request::Request;

pub(in super::super) async fn run(call: &mut Call<'_>, args: Names) -> End {
    each::run(call, args, |name| format!("removing `{name}`"), |instance| Request::Purge { instance }).await
}
