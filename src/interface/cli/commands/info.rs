//! `acc info`: everything about one instance.

use super::super::args::Name;
use super::super::exit::Exit;
use super::super::output::End;
use super::super::{Call, show};
use crate::service::view::Reader;

pub(in super::super) fn run(call: &mut Call<'_>, args: &Name) -> End {
    let instance = Reader::open(call.config)?.find(&args.name)?;
    match call.ui.style.json {
        true => call.ui.json(&instance)?,
        false => call.ui.data(&show::info(&instance, call.ui.now))?,
    }
    Ok(Exit::Done)
}
