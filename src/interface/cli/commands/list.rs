//! `acc list`: the instances, in a table.

use super::super::args::ListArgs;
use super::super::exit::Exit;
use super::super::output::End;
use super::super::{Call, show};
use crate::service::view::{Filter, Reader};

pub(in super::super) fn run(call: &mut Call<'_>, args: &ListArgs) -> End {
    let filter = Filter { phase: args.phase.as_deref(), model: args.model.as_deref(), after: args.after.as_deref(), limit: args.limit };
    let instances = Reader::open(call.config)?.list(&filter)?;
    let ui = &mut *call.ui;
    if ui.style.json {
        ui.json(&instances)?;
    } else if instances.is_empty() {
        let filtered = args.phase.is_some() || args.model.is_some() || args.after.is_some() || args.limit == Some(0);
        ui.say(if filtered { "no such instance" } else { "no instances yet: `acc create --model hello` makes one" });
    } else {
        ui.data(&show::list(&instances, ui.now, ui.style.colour))?;
    }
    Ok(Exit::Done)
}
