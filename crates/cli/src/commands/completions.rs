//! `understudy completions SHELL`: a script for the shell that completes our commands.

use clap::{Args, Command};
use clap_complete::Shell;

use crate::failure::{Exit, Result};
use crate::output;

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  understudy completions bash > /etc/bash_completion.d/understudy\n  understudy completions zsh > ~/.zfunc/_understudy"
)]
pub(crate) struct Completions {
    shell: Shell,
}

pub(crate) fn run(completions: &Completions, mut program: Command) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(completions.shell, &mut program, "understudy", &mut script);
    output::print(&String::from_utf8_lossy(&script));
    Ok(Exit::Done)
}
