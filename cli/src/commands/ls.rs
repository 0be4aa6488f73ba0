//! `wess ls`: every stored module, all pages of them.

use wess_schemas::id::Tag;
use wess_schemas::module::{ListRequest, ModuleList, ModuleSummary};

use super::Ask;
use crate::args::{LsArgs, Output, Remote};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output;
use crate::transport::{self, Transport};

/// The most that one page may hold.
const PAGE: u32 = 1000;

impl Ask for LsArgs {
    fn remote(&self) -> &Remote {
        &self.remote
    }

    async fn ask(self) -> Result<Exit, Fault> {
        let transport = transport::open(&self.remote).await?;
        let modules = all(transport.as_ref(), self.prefix).await?;
        match self.remote.output {
            Output::Json => output::json(&ModuleList { modules, next: None })?,
            Output::Human if modules.is_empty() => {
                eprintln!("nothing is stored yet; `wess store NAME FILE` does that")
            }
            Output::Human => output::text(&table(modules))?,
        }
        Ok(Exit::Done)
    }
}

async fn all(transport: &dyn Transport, prefix: Option<String>) -> Result<Vec<ModuleSummary>, Fault> {
    let mut request = ListRequest {
        prefix,
        after: None,
        limit: Some(PAGE),
    };
    let mut modules = Vec::new();
    loop {
        let page = transport.list(request.clone()).await?;
        modules.extend(page.modules);
        match page.next {
            Some(next) => request.after = Some(next),
            None => return Ok(modules),
        }
    }
}

fn table(modules: Vec<ModuleSummary>) -> String {
    let rows = modules.into_iter().map(|module| {
        let tags: Vec<_> = module
            .tags
            .iter()
            .filter(|(tag, _)| !tag.is_latest())
            .map(named)
            .collect();
        [
            module.name.to_string(),
            module.version.to_string(),
            module.abi.as_str().into(),
            output::size(module.size),
            tags.join(" "),
            module.updated.to_string(),
        ]
    });
    output::table(["NAME", "VERSION", "ABI", "SIZE", "TAGS", "UPDATED"], rows)
}

fn named((tag, version): (&Tag, &u32)) -> String {
    format!("{tag}={version}")
}
