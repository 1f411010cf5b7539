//! `acc completions`: for a shell, from the command line's own definition. In bash they also ask
//! `acc names` for instances and models, which no definition knows.

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use super::super::args::Cli;
use super::super::exit::CommandExit;
use super::super::output::{CommandEnd, Ui};

/// What is added for bash.
const BASH: &str = include_str!("completions.bash");

pub(in super::super) fn run(ui: &mut Ui, shell: Shell) -> CommandEnd {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut for_people(), "acc", &mut text);
    if shell == Shell::Bash {
        text.push(b'\n');
        text.extend_from_slice(BASH.as_bytes());
    }
    ui.bytes(&text)?;
    Ok(CommandExit::Done)
}

/// The command line without the commands that acc and shells call.
fn for_people() -> Command {
    let all = Cli::command();
    let shown = all.get_subcommands().filter(|c| !c.is_hide_set()).cloned();
    Command::new("acc")
        .version(env!("CARGO_PKG_VERSION"))
        .args(all.get_arguments().cloned())
        .subcommands(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_do_not_call_is_not_offered() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut for_people(), "acc", &mut text);
            let text = String::from_utf8(text).unwrap();
            assert!(
                text.contains("doctor") && text.contains("quiet") && text.contains("version"),
                "{shell}"
            );
            assert!(
                !text.contains("demo-app") && !text.contains("channel"),
                "{shell}"
            );
        }
    }

    /// A verb that takes instances has to be named in the addition too.
    #[test]
    fn every_verb_with_names_is_known_to_bash() {
        let command = Cli::command();
        let takes_names = |c: &&clap::Command| {
            c.get_positionals().any(|a| {
                a.get_value_names()
                    .is_some_and(|n| n.iter().any(|n| n == "NAME"))
            })
        };
        let verbs = command
            .get_subcommands()
            .filter(|c| !c.is_hide_set())
            .filter(takes_names);
        for verb in verbs
            .flat_map(|c| c.get_visible_aliases().chain([c.get_name()]))
            .filter(|verb| *verb != "create")
        {
            assert!(BASH.contains(&format!(" {verb}:")), "{verb}");
        }
    }
}
