//! The launcher program: passes its only argument to the library and exits with the result.
//!
//! It decides nothing.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let (Some(file), None) = (args.next(), args.next()) else {
        return ExitCode::from(acc_launch::CANNOT_START);
    };
    ExitCode::from(acc_launch::launch(&file))
}
