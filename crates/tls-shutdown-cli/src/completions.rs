//! `completions`: what a shell needs to complete the arguments of this command.

use std::process::ExitCode;

use clap::CommandFactory;

use crate::{
    arguments::{Arguments, CompletionsArguments},
    failure::Failure,
    output,
};

pub(crate) fn run(arguments: &CompletionsArguments) -> Result<ExitCode, Failure> {
    let mut command = Arguments::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, name, &mut script);
    // In bash's script, clap_complete spells the state after a subcommand in two ways if the command has a hyphen (clap#6421).
    let script = String::from_utf8_lossy(&script).replace("tls__subcmd__shutdown", "tls__shutdown");
    output::print(script.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
