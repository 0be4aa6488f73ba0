//! The commands that ask a running Wess: one file each, each an [`Ask`].
//!
//! stdout gets the answer and nothing else; what failed goes to stderr in the form that was asked for.

mod bindings;
mod chain;
mod configure;
mod dead;
mod describe;
mod invoke;
mod jobs;
mod ls;
mod rm;
pub mod seal;
mod store;
mod tag;

use std::io;
use std::process::ExitCode;

use crate::args::{CompletionsArgs, Remote, grammar};
use crate::exit::Exit;
use crate::fault::Fault;

pub use dead::run as dead;
pub use jobs::run as jobs;

/// A command that asks one thing.
pub trait Ask {
    /// Where to ask, and in which form to answer.
    fn remote(&self) -> &Remote;

    /// Takes in what it needs, asks, prints the answer and says how it went.
    async fn ask(self) -> Result<Exit, Fault>;
}

/// Runs a command on a runtime of its own.
pub fn run(command: impl Ask) -> ExitCode {
    let output = command.remote().output;
    let exit = block_on(command.ask()).unwrap_or_else(|fault| {
        fault.print(output);
        fault.exit()
    });
    exit.into()
}

/// Asks a person whether to remove something.
fn confirm(what: &str) -> Result<(), Fault> {
    eprint!("Remove {what}? [y/N] ");
    let mut answer = String::new();
    let answered = io::stdin().read_line(&mut answer);
    match (answered, answer.trim()) {
        (Ok(_), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Fault::local(Exit::Usage, "nothing was removed")),
    }
}

fn block_on(asking: impl Future<Output = Result<Exit, Fault>>) -> Result<Exit, Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime
        .map_err(|error| Fault::local(Exit::Internal, format!("cannot start a runtime: {error}")))?
        .block_on(asking)
}

/// The grammar without the commands that only we start.
fn visible(grammar: &clap::Command) -> clap::Command {
    let commands = grammar.get_subcommands().filter(|command| !command.is_hide_set());
    clap::Command::new("wess")
        .args(grammar.get_arguments())
        .subcommands(commands)
}

/// `wess completions`: needs nobody.
pub fn completions(args: &CompletionsArgs) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut visible(&grammar()), "wess", &mut script);
    match crate::output::bytes(&script) {
        Ok(()) => Exit::Done.into(),
        Err(fault) => fault.exit().into(),
    }
}
