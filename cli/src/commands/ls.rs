//! `wess ls`: every stored module, all pages of them.

use wess_schemas::id::Tag;
use wess_schemas::module::{ListRequest, ModuleList, ModuleSummary};

use super::Ask;
use crate::args::{LsArgs, Output, Remote};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output;
use crate::transport;

/// The most that one page may hold.
const PAGE: u32 = 1000;

impl Ask for LsArgs {
    fn remote(&self) -> &Remote {
        &self.remote
    }

    async fn ask(self) -> Result<Exit, Fault> {
        let transport = transport::open(&self.remote).await?;
        let modules = all(self.prefix, async |request| transport.list(request).await).await?;
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

async fn all(
    prefix: Option<String>,
    mut page: impl AsyncFnMut(ListRequest) -> Result<ModuleList, Fault>,
) -> Result<Vec<ModuleSummary>, Fault> {
    let mut request = ListRequest {
        prefix,
        after: None,
        limit: Some(PAGE),
    };
    let mut modules = Vec::new();
    loop {
        let page = page(request.clone()).await?;
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
            output::time(module.updated),
        ]
    });
    output::table(["NAME", "VERSION", "ABI", "SIZE", "TAGS", "UPDATED"], rows)
}

fn named((tag, version): (&Tag, &u32)) -> String {
    format!("{tag}={version}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn summary(name: &str) -> ModuleSummary {
        let digest = format!("sha256:{}", "0".repeat(64));
        let id = "01939b1c-02d1-7f4e-8a37-5d2f6f1b7c90";
        let module = json!({ "id": id, "name": name, "version": 2, "digest": digest, "size": 2048, "abi": "plugin",
            "tags": { "latest": 2, "stable": 1 }, "updated": "2026-01-02T03:04:05Z" });
        serde_json::from_value(module).unwrap()
    }

    #[tokio::test]
    async fn every_page_is_asked_for_and_each_begins_where_the_last_one_ended() {
        let mut asked = Vec::new();
        let pages = async |request: ListRequest| {
            asked.push((request.prefix, request.after.clone().map(String::from)));
            let next = if request.after.is_none() {
                Some("b".parse().unwrap())
            } else {
                None
            };
            let name = if request.after.is_none() { "b" } else { "c" };
            Ok(ModuleList {
                modules: vec![summary(name)],
                next,
            })
        };
        let modules = all(Some("x".into()), pages).await.unwrap();
        assert_eq!(
            modules
                .iter()
                .map(|module| module.name.as_str())
                .collect::<Vec<_>>(),
            ["b", "c"]
        );
        assert_eq!(
            asked,
            [(Some("x".into()), None), (Some("x".into()), Some("b".into()))]
        );
    }

    #[test]
    fn a_module_is_a_line_with_its_own_tags() {
        let table = table(vec![summary("upper")]);
        assert_eq!(
            table.lines().nth(1).unwrap(),
            "upper  2        plugin  2.00 KiB  stable=1  2026-01-02T03:04:05Z"
        );
    }
}
