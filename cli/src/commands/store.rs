//! `wess store`: a file's bytes become a module's newest version.

use super::Ask;
use crate::args::{Output, Remote, StoreArgs};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::transport::{self, NewModule};
use crate::{input, output};

impl Ask for StoreArgs {
    fn remote(&self) -> &Remote {
        &self.remote
    }

    async fn ask(self) -> Result<Exit, Fault> {
        let wasm = input::of_module(&self.file)?;
        let limits = self.limits();
        let transport = transport::open(&self.remote).await?;
        let module = transport
            .store(NewModule {
                name: self.name,
                wasm,
                limits,
            })
            .await?;
        match self.remote.output {
            Output::Json => output::json(&module)?,
            Output::Human => output::text(&said(&module))?,
        }
        Ok(Exit::Done)
    }
}

/// What a store did, for people.
pub fn said(module: &wess_schemas::Module) -> String {
    let what = if module.stored == Some(false) {
        "is unchanged at"
    } else {
        "is stored as"
    };
    let size = output::size(module.size);
    let spread = if module.propagated == Some(false) {
        "; some workers have yet to see it"
    } else {
        ""
    };
    format!(
        "{} {what} version {}: {}, {size}, {}{spread}",
        module.name,
        module.version,
        module.abi.as_str(),
        module.digest
    )
}
