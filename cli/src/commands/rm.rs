//! `wess rm`: removes a module, one version, or a tag. Asks first where somebody can answer.

use std::io::{self, IsTerminal};

use wess_schemas::Reference;
use wess_schemas::module::Deleted;

use super::{Ask, confirm};
use crate::args::{Output, Remote, RmArgs};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::{output, transport};

impl Ask for RmArgs {
    fn remote(&self) -> &Remote {
        &self.remote
    }

    async fn ask(self) -> Result<Exit, Fault> {
        if !self.yes && io::stdin().is_terminal() && io::stderr().is_terminal() {
            confirm(&named(&self.reference))?;
        }
        let transport = transport::open(&self.remote).await?;
        let deleted = transport.delete(self.reference).await?;
        match self.remote.output {
            Output::Json => output::json(&deleted)?,
            Output::Human => output::text(&said(&deleted))?,
        }
        Ok(Exit::Done)
    }
}

fn named(reference: &Reference) -> String {
    match reference {
        Reference::Version(name, version) => format!("version {version} of {name}"),
        Reference::Tag(name, tag) => format!("the tag {tag} of {name}"),
        Reference::Latest(_) | Reference::Id(_) | Reference::Digest(_) => {
            format!("{reference} with all its versions")
        }
    }
}

fn said(deleted: &Deleted) -> String {
    let name = &deleted.name;
    let versions: Vec<_> = deleted
        .versions
        .iter()
        .map(|version| format!("{name}@{version}"))
        .collect();
    let tags: Vec<_> = deleted.tags.iter().map(|tag| format!("{name}@{tag}")).collect();
    format!("removed {}", [versions, tags].concat().join(" "))
}
