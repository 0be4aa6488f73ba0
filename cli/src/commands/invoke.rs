//! `wess invoke`: one run of one module; its output's own bytes on stdout.

use serde_json::Value;
use wess_schemas::Reference;

use super::Ask;
use crate::args::{InvokeArgs, Output, Remote};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::transport;
use crate::{input, output};

impl Ask for InvokeArgs {
    fn remote(&self) -> &Remote {
        &self.remote
    }

    async fn ask(self) -> Result<Exit, Fault> {
        let input = input::of_call(self.input.as_deref(), self.file.as_deref())?;
        let transport = transport::open(&self.remote).await?;
        let outcome = transport.invoke(self.invocation(), input).await?;
        let code = outcome.exit_code.unwrap_or(0);
        match self.remote.output {
            Output::Json => output::json(&outcome)?,
            Output::Human => output::bytes(&shown(outcome.output_bytes(), outcome.results.as_deref()))?,
        }
        Ok(verdict(&self.step.module, code, self.remote.output))
    }
}

/// The output's bytes; of a typed function that gave none, its results as the raw form has them: a single one bare.
pub fn shown(output: Option<Vec<u8>>, results: Option<&[Value]>) -> Vec<u8> {
    match (output, results) {
        (Some(output), _) => output,
        (None, Some([single])) => single.to_string().into(),
        (None, Some(results)) => Value::from(results).to_string().into(),
        (None, None) => Vec::new(),
    }
}

/// A guest's own exit code is its answer, and in the JSON; for people it is said on stderr.
pub fn verdict(module: &Reference, code: i32, output: Output) -> Exit {
    if code == 0 {
        return Exit::Done;
    }
    if output == Output::Human {
        eprintln!("{module} ended with exit code {code}");
    }
    Exit::GuestFailed
}
