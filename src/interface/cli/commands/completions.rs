//! `acc completions`: for a shell, from the command line's own definition.

use clap::CommandFactory;
use clap_complete::Shell;

use super::super::args::Cli;
use super::super::exit::Exit;
use super::super::output::{End, Ui};

pub(in super::super) fn run(ui: &mut Ui, shell: Shell) -> End {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "acc", &mut text);
    ui.bytes(&text)?;
    Ok(Exit::Done)
}
