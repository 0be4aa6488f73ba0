//! `wess tag`: sets a tag, or takes it away.

use wess_schemas::module::TagRequest;

use super::Ask;
use crate::args::{Output, Remote, TagArgs};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::{output, transport};

impl Ask for TagArgs {
    fn remote(&self) -> &Remote {
        &self.remote
    }

    async fn ask(self) -> Result<Exit, Fault> {
        let Self {
            name,
            tag,
            version,
            remote,
            ..
        } = self;
        let transport = transport::open(&remote).await?;
        let said = match version {
            Some(version) => format!("{name}@{tag} is version {version}"),
            None => format!("{name} has no tag {tag} any more"),
        };
        let module = transport.tag(name, TagRequest { tag, version }).await?;
        match remote.output {
            Output::Json => output::json(&module)?,
            Output::Human => output::text(&said)?,
        }
        Ok(Exit::Done)
    }
}
