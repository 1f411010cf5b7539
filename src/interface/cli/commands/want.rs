//! `acc enable`, `acc disable`, `acc pin`: what the operator wants of instances.

use super::super::Call;
use super::super::args::Names;
use super::super::output::End;
use super::each;
use crate::service::request::Request;

/// `wanted`: `auto`, `down` or `up`.
pub(in super::super) async fn run(call: &mut Call<'_>, args: Names, wanted: &str) -> End {
    let waiting = |name: &str| match wanted {
        "up" => format!("waiting for `{name}` to answer"),
        "down" => format!("waiting for `{name}` to finish its work and end"),
        _ => format!("changing `{name}`"),
    };
    each::run(call, args, waiting, |instance| Request::Want { instance, wanted: wanted.to_owned() }).await
}
