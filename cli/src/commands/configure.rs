//! `wess configure`: the newest version's bytes on other terms become the next version.

use wess_schemas::settings::SettingsChange;

use super::Ask;
use crate::args::{ConfigureArgs, Output, Remote};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::{output, transport};

impl Ask for ConfigureArgs {
    fn remote(&self) -> &Remote {
        &self.remote
    }

    async fn ask(self) -> Result<Exit, Fault> {
        let mut terms = self.settings.read()?.terms;
        self.settings
            .seal_into(&mut terms, &self.name, &self.remote.nats)
            .await?;
        if terms == SettingsChange::default() {
            return Err(Fault::local(Exit::Usage, "nothing is said that should change"));
        }
        let transport = transport::open(&self.remote).await?;
        let module = transport.configure(self.name, terms).await?;
        match self.remote.output {
            Output::Json => output::json(&module)?,
            Output::Human => output::text(&super::store::said(&module))?,
        }
        Ok(Exit::Done)
    }
}
