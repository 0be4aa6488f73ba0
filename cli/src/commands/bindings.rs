//! `wess bind`, `bindings` and `unbind`: which messages run which module.

use wess_schemas::BindingName;
use wess_schemas::binding::{Binding, BindingRequest};

use super::Ask;
use crate::args::{BindArgs, BindingsArgs, Output, Remote, UnbindArgs};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output;
use crate::transport::{self, Transport};

impl Ask for BindArgs {
    fn remote(&self) -> &Remote {
        &self.remote
    }

    async fn ask(self) -> Result<Exit, Fault> {
        let request = self.request().map_err(|wrong| Fault::local(Exit::Usage, wrong))?;
        let transport = transport::open(&self.remote).await?;
        let name = match self.name {
            Some(name) => name,
            None => fresh_name(&*transport, &request).await?,
        };
        let binding = transport.bind(name, request).await?;
        match self.remote.output {
            Output::Json => output::json(&binding)?,
            Output::Human => output::text(&said(&binding))?,
        }
        Ok(Exit::Done)
    }
}

/// A name that nobody chose never takes another binding's place.
async fn fresh_name(transport: &dyn Transport, request: &BindingRequest) -> Result<BindingName, Fault> {
    let none = || Fault::local(Exit::Usage, "no name can be made of this: give one by --name");
    let name = request.default_name().ok_or_else(none)?;
    let is_source_of = |old: &Binding| {
        (&old.subject, &old.stream, &old.filter) == (&request.subject, &request.stream, &request.filter)
    };
    let bindings = transport.bindings().await?.bindings;
    match bindings.iter().find(|binding| binding.name == name) {
        Some(old) if !is_source_of(old) => Err(Fault::local(
            Exit::Conflict,
            format!(
                "there is a binding {name} of {}: give another name by --name",
                source(old)
            ),
        )),
        _ => Ok(name),
    }
}

impl Ask for BindingsArgs {
    fn remote(&self) -> &Remote {
        &self.remote
    }

    async fn ask(self) -> Result<Exit, Fault> {
        let transport = transport::open(&self.remote).await?;
        let list = transport.bindings().await?;
        match self.remote.output {
            Output::Json => output::json(&list)?,
            Output::Human if list.bindings.is_empty() => eprintln!("nothing is bound"),
            Output::Human => output::text(&table(&list.bindings))?,
        }
        Ok(Exit::Done)
    }
}

impl Ask for UnbindArgs {
    fn remote(&self) -> &Remote {
        &self.remote
    }

    async fn ask(self) -> Result<Exit, Fault> {
        let transport = transport::open(&self.remote).await?;
        let unbound = transport.unbind(self.name).await?;
        match self.remote.output {
            Output::Json => output::json(&unbound)?,
            Output::Human => output::text(&format!("removed {}", unbound.name))?,
        }
        Ok(Exit::Done)
    }
}

fn said(binding: &Binding) -> String {
    let (name, module) = (&binding.name, &binding.module);
    format!("{name}: {module} runs for each message of {}", source(binding))
}

fn source(binding: &Binding) -> String {
    match (&binding.subject, &binding.stream, &binding.filter) {
        (Some(subject), ..) => subject.clone(),
        (None, Some(stream), Some(filter)) => format!("stream {stream} on {filter}"),
        (None, Some(stream), None) => format!("stream {stream}"),
        (None, None, _) => String::new(),
    }
}

fn table(bindings: &[Binding]) -> String {
    let rows = bindings.iter().map(|binding| {
        let function = binding.function.as_ref().map(|name| format!(".{name}"));
        [
            binding.name.to_string(),
            format!("{}{}", binding.module, function.unwrap_or_default()),
            source(binding),
            binding.publish_to.clone().unwrap_or_default(),
            output::time(binding.updated),
        ]
    });
    output::table(["NAME", "MODULE", "MESSAGES", "OUTPUT", "UPDATED"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wess_schemas::binding::BindingList;

    #[test]
    fn a_binding_is_a_line_that_says_what_runs_for_what() {
        let example = include_str!("../../../schemas/golden/binding-list.json");
        let list: BindingList = serde_json::from_str(example).unwrap();
        let table = table(&list.bindings);
        let lines: Vec<_> = table.lines().collect();
        assert!(lines[1].starts_with("count  wordcount"), "{table}");
        assert!(
            lines[2].contains("upper@2.process  stream ORDERS on orders.*.new  orders-done"),
            "{table}"
        );
        assert_eq!(
            said(&list.bindings[0]),
            "count: wordcount runs for each message of texts.>"
        );
    }
}
