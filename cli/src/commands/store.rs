//! `wess store`: a file's bytes become a module's newest version.

use super::Ask;
use crate::args::{Output, Remote, StoreArgs};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::settings::{self, Manifest};
use crate::transport::{self, NewModule};
use crate::{input, output};
use wess_schemas::ModuleName;
use wess_schemas::settings::SettingsChange;

impl Ask for StoreArgs {
    fn remote(&self) -> &Remote {
        &self.remote
    }

    async fn ask(self) -> Result<Exit, Fault> {
        let (name, file, mut terms) = self.what()?;
        self.settings
            .seal_into(&mut terms, &name, &self.remote.nats)
            .await?;
        let wasm = input::of_module(&file)?;
        let transport = transport::open(&self.remote).await?;
        let module = transport.store(NewModule { name, wasm, terms }).await?;
        match self.remote.output {
            Output::Json => output::json(&module)?,
            Output::Human => output::text(&said(&module))?,
        }
        Ok(Exit::Done)
    }
}

impl StoreArgs {
    /// Under which name to store which file, on which terms.
    fn what(&self) -> Result<(ModuleName, String, SettingsChange), Fault> {
        let Manifest { name, module, terms } = self.settings.read()?;
        let parse = |name: &str| {
            name.parse()
                .map_err(|error| Fault::local(Exit::Usage, format!("{error}")))
        };
        let (name, file) = match (&self.first, &self.second) {
            (Some(name), Some(file)) => (parse(name)?, file.clone()),
            (Some(file), None) => match name {
                Some(name) => (name, file.clone()),
                None => (settings::name_of(file)?, file.clone()),
            },
            (None, _) => {
                let missing = || Fault::local(Exit::Usage, "say which file to store: wess store [NAME] FILE");
                let file = module.ok_or_else(missing)?.to_string_lossy().into_owned();
                (name.map_or_else(|| settings::name_of(&file), Ok)?, file)
            }
        };
        Ok((name, file, terms))
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
