//! `wess describe`: what a module is, which functions it has, which versions there are.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use wess_schemas::chain::{ChainStep, StoredChain};
use wess_schemas::export::Export;
use wess_schemas::module::{Abi, Module, VersionSummary};
use wess_schemas::settings::Isolation;
use wess_schemas::wit::WitFunction;
use wess_schemas::{Invocation, Limits, Tag};

use super::Ask;
use crate::args::{DescribeArgs, Output, Remote};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::{output, transport};

impl Ask for DescribeArgs {
    fn remote(&self) -> &Remote {
        &self.remote
    }

    async fn ask(self) -> Result<Exit, Fault> {
        let transport = transport::open(&self.remote).await?;
        let module = transport.get(self.reference).await?;
        match self.remote.output {
            Output::Json => output::json(&module)?,
            Output::Human => {
                let wit = wit(&module).map(|wit| wit.trim_end().to_owned());
                let parts = [facts(&module), content(&module), versions(&module)];
                output::text(&parts.into_iter().chain(wit).collect::<Vec<_>>().join("\n\n"))?
            }
        }
        Ok(Exit::Done)
    }
}

/// A component's text, or that there is none.
fn wit(module: &Module) -> Option<&str> {
    const TOO_LONG: &str = "(the component's WIT is too long to be kept)";
    let is_component = matches!(module.abi, Abi::Component | Abi::Http);
    module.wit.as_deref().or(is_component.then_some(TOO_LONG))
}

fn facts(module: &Module) -> String {
    let (limits, settings) = (limits(&module.limits), &module.settings);
    let grants = &settings.grants;
    output::facts([
        ("module", Some(format!("{}@{}", module.name, module.version))),
        ("abi", Some(module.abi.as_str().into())),
        ("size", Some(output::size(module.size))),
        ("digest", Some(module.digest.to_string())),
        ("id", Some(module.id.to_string())),
        ("limits", (!limits.is_empty()).then_some(limits)),
        ("about", settings.description.clone()),
        ("env", pairs(&settings.env)),
        ("secrets", list(&settings.secrets.keys().cloned().collect())),
        ("config", pairs(&settings.config)),
        ("deterministic", settings.deterministic.then(|| "yes".into())),
        ("instances", settings.isolation.map(instances)),
        ("routes", list(&settings.routes)),
        ("keyvalue", grants.keyvalue.then(|| "allowed".into())),
        ("publishes to", list(&grants.publish)),
        ("calls", list(&grants.http)),
        ("containers", list(&grants.blobstore)),
    ])
}

fn instances(isolation: Isolation) -> String {
    format!("each serves up to {} calls", isolation.reuse)
}

fn pairs(values: &BTreeMap<String, String>) -> Option<String> {
    let pairs = values.iter().map(|(name, value)| format!("{name}={value}"));
    list(&pairs.collect())
}

fn list(names: &BTreeSet<String>) -> Option<String> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    (!names.is_empty()).then(|| names.join(" "))
}

fn content(module: &Module) -> String {
    match &module.chain {
        Some(chain) => steps(chain),
        None => functions(module),
    }
}

/// Each step as it was stored: a reference, or what else its invocation says.
fn steps(chain: &StoredChain) -> String {
    let step = |(at, step): (usize, &ChainStep)| match step {
        ChainStep::Module(module) => [at.to_string(), module.to_string(), String::new()],
        ChainStep::Invocation(call) => [at.to_string(), call.module.to_string(), asked(call)],
    };
    output::table(
        ["STEP", "MODULE", "WITH"],
        chain.steps.iter().enumerate().map(step),
    )
}

fn asked(call: &Invocation) -> String {
    let args = call.args.clone().map(Value::Array);
    let said = [
        call.function
            .as_ref()
            .map(|function| format!("function {function}")),
        args.map(|args| format!("args {args}")),
        pairs(&call.env),
        call.wait_ms.map(|ms| format!("{ms} ms wait")),
        (!call.limits.is_empty()).then(|| limits(&call.limits)),
    ];
    said.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn functions(module: &Module) -> String {
    output::table(
        ["FUNCTION", "SIGNATURE"],
        module
            .exports
            .iter()
            .map(|export| [export.name.clone(), signature(export)]),
    )
}

fn signature(export: &Export) -> String {
    match &export.unsupported {
        Some(why) => format!("{} (cannot be called: {why})", export.signature),
        None if WitFunction::names_http_handler(&export.name) => {
            format!("{} (answers HTTP requests)", export.signature)
        }
        None => export.signature.clone(),
    }
}

fn versions(module: &Module) -> String {
    let row = |version: &VersionSummary| {
        let tags = module
            .tags
            .iter()
            .filter(|(_, named)| **named == version.version)
            .map(|(tag, _)| tag);
        [
            version.version.to_string(),
            tags.map(Tag::to_string).collect::<Vec<_>>().join(" "),
            output::size(version.size),
            output::time(version.created),
            output::brief(version.digest),
        ]
    };
    output::table(
        ["VERSION", "TAGS", "SIZE", "STORED", "DIGEST"],
        module.versions.iter().map(row),
    )
}

fn limits(limits: &Limits) -> String {
    let said = [
        limits.timeout_ms.map(|ms| format!("{ms} ms")),
        limits.memory_mb.map(|mib| format!("{mib} MiB memory")),
        limits.fuel.map(|fuel| format!("{fuel} fuel")),
        limits
            .output_bytes
            .map(|bytes| format!("{bytes} bytes of output")),
    ];
    said.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_limits_that_are_there_are_said() {
        assert_eq!(limits(&Limits::default()), "");
        let some = Limits {
            memory_mb: Some(16),
            fuel: Some(9),
            ..Limits::default()
        };
        assert_eq!(limits(&some), "16 MiB memory, 9 fuel");
    }
}
