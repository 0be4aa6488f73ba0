//! `wess chain`: modules in a row; the last one's output on stdout, its verdict as the exit code.

use super::Ask;
use super::invoke::{shown, verdict};
use crate::args::{ChainArgs, Output, Remote};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::{input, output, transport};

impl Ask for ChainArgs {
    fn remote(&self) -> &Remote {
        &self.remote
    }

    async fn ask(self) -> Result<Exit, Fault> {
        let input = input::of_call(self.input.as_deref(), self.file.as_deref())?;
        let transport = transport::open(&self.remote).await?;
        let outcome = transport.chain(self.request(), input).await?;
        match self.remote.output {
            Output::Json => output::json(&outcome)?,
            Output::Human => output::bytes(&shown(outcome.output_bytes(), outcome.results.as_deref()))?,
        }
        let code = outcome.steps.last().and_then(|step| step.exit_code).unwrap_or(0);
        let exit = self
            .steps
            .last()
            .map(|last| verdict(&last.module, code, self.remote.output));
        Ok(exit.unwrap_or(Exit::Done))
    }
}
