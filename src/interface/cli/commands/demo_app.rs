//! `acc demo-app`: the application behind the model `hello`. It is handed over whole, with a
//! runtime of its own.

use super::super::exit::CommandExit;
use super::super::output::CommandEnd;
use crate::demo;
use crate::service::error::ServiceError;

pub(in super::super) fn run(options: demo::DemoOptions) -> CommandEnd {
    match demo::start(options) {
        Ok(()) => Ok(CommandExit::Done),
        Err(error) => {
            Err(ServiceError::failed(format!("the demo application: {error:#}"), "").into())
        }
    }
}
