//! `man`: the manual pages, from the same texts as `--help`.

use std::{io, process::ExitCode};

use clap::{Command, CommandFactory, error::ErrorKind};
use clap_mangen::{
    Man,
    roff::{Roff, roman},
};

use crate::{
    arguments::{Arguments, ManArguments},
    failure::Failure,
    output,
};

pub(crate) fn run(arguments: &ManArguments) -> Result<ExitCode, Failure> {
    let mut command = Arguments::command().disable_help_subcommand(true);
    // Gives the pages their names.
    command.build();
    if let Some(name) = &arguments.command {
        match command.find_subcommand(name) {
            Some(found) => command = found.clone(),
            None => {
                let names: Vec<_> = command.get_subcommands().map(Command::get_name).collect();
                let message = format!("there is no command '{name}', choose one of: {}", names.join(", "));
                command.error(ErrorKind::InvalidValue, message).exit()
            }
        }
    }
    let page = render(command).map_err(|error| Failure::new(format!("cannot make the page: {error}")))?;
    output::print(&page)?;
    Ok(ExitCode::SUCCESS)
}

/// Clap's page, with the examples in a section of their own, in which each keeps its line.
fn render(mut command: Command) -> io::Result<Vec<u8>> {
    let help = command.get_after_help().map(ToString::to_string);
    command = command.after_help(None::<&str>);
    let mut page = Vec::new();
    Man::new(command).source(concat!("tls-shutdown ", env!("CARGO_PKG_VERSION"))).render(&mut page)?;
    if let Some(examples) = help.as_deref().and_then(|help| help.strip_prefix("Examples:\n")) {
        let mut section = Roff::new();
        section.control("SH", ["EXAMPLES"]).control("nf", []);
        for line in examples.lines() {
            section.text([roman(line.trim_start())]);
        }
        section.control("fi", []).to_writer(&mut page)?;
    }
    Ok(page)
}
