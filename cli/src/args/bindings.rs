//! The flags of `bind`, `bindings` and `unbind`: which messages run which module.

use std::time::Duration;

use clap::Args;
use wess_schemas::BindingName;
use wess_schemas::binding::{BindingRequest, Deliver};
use wess_schemas::job::{MAX_ATTEMPTS, RetryPolicy};

use super::Remote;
use super::call::{CallLimits, Step, duration, millis};

/// `wess bind`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  wess bind 'texts.*' upper                                who publishes with a reply subject is answered
  wess bind 'images.>' resize --publish-to thumbnails
  wess bind --stream ORDERS charge --filter 'orders.*.new' --retry 3 --backoff 1s,10s
  wess bind --stream ORDERS audit --new --name audit-orders
A subject keeps nothing: what nobody has room for is dropped. A stream keeps each message until its run has succeeded, or
until it is a dead letter. The same name again changes the binding.")]
pub struct BindArgs {
    /// The subject, which may have wildcards after its first token; with --stream the module.
    #[arg(value_name = "SUBJECT")]
    pub source: String,
    /// The module; a function may follow after a dot.
    #[arg(
        value_name = "REF",
        required_unless_present = "stream",
        conflicts_with = "stream"
    )]
    pub step: Option<Step>,
    /// Take the messages of this JetStream stream.
    #[arg(long, value_name = "STREAM")]
    pub stream: Option<String>,
    /// Of the stream, only those on these subjects.
    #[arg(long, value_name = "SUBJECT", requires = "stream")]
    pub filter: Option<String>,
    /// Of the stream, leave out what lies in it already.
    #[arg(long, requires = "stream")]
    pub new: bool,
    /// Publish each output here, and not to the message's own reply subject.
    #[arg(long, value_name = "SUBJECT")]
    pub publish_to: Option<String>,
    /// The binding's name; else one is made of the module and what it is bound to.
    #[arg(long, value_name = "NAME")]
    pub name: Option<BindingName>,
    /// Of a stream, how many runs a guest that fails may have, the first one included.
    #[arg(long, value_name = "N", requires = "stream", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_ATTEMPTS)))]
    pub retry: Option<u32>,
    /// The pause after each of them, e.g. 1s,10s; the last one holds for all that follow.
    #[arg(
        long,
        value_name = "TIME",
        value_delimiter = ',',
        value_parser = duration,
        requires = "retry"
    )]
    pub backoff: Vec<Duration>,
    #[command(flatten)]
    pub limits: CallLimits,
    #[command(flatten)]
    pub remote: Remote,
}

impl BindArgs {
    /// What to ask for, or what is wrong with the line.
    pub fn request(&self) -> Result<BindingRequest, String> {
        let (subject, step) = match &self.step {
            Some(step) => (Some(self.source.clone()), step.clone()),
            None => {
                let step: Result<Step, _> = self.source.parse();
                (None, step.map_err(|invalid| invalid.to_string())?)
            }
        };
        let request = BindingRequest {
            module: step.module,
            function: step.function,
            subject,
            stream: self.stream.clone(),
            filter: self.filter.clone(),
            deliver: if self.new { Deliver::New } else { Deliver::All },
            publish_to: self.publish_to.clone(),
            limits: self.limits.limits(),
            retry: self.retry.map(|max_attempts| RetryPolicy {
                max_attempts,
                backoff_ms: self.backoff.iter().copied().map(millis).collect(),
            }),
        };
        match request.check() {
            Ok(()) => Ok(request),
            Err(invalid) => Err(invalid.to_string()),
        }
    }
}

/// `wess bindings`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  wess bindings
  wess bindings -o json | jq -r '.bindings[].name'")]
pub struct BindingsArgs {
    #[command(flatten)]
    pub remote: Remote,
}

/// `wess unbind`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  wess unbind audit-orders
Of a stream its messages stay, but where the binding was in it is forgotten.")]
pub struct UnbindArgs {
    /// The binding's name.
    pub name: BindingName,
    #[command(flatten)]
    pub remote: Remote,
}

#[cfg(test)]
mod tests {
    use crate::args::{Cli, Command};
    use clap::Parser;
    use serde_json::{Value, json};

    fn request(line: &str) -> Result<Value, String> {
        let parsed = Cli::try_parse_from(["wess", "bind"].into_iter().chain(line.split(' ')));
        match parsed.map_err(|error| error.to_string())?.command {
            Command::Bind(args) => args
                .request()
                .map(|request| serde_json::to_value(request).unwrap()),
            _ => panic!(),
        }
    }

    #[test]
    fn flags_become_the_fields_of_a_binding() {
        assert_eq!(
            request("texts.* math.add --publish-to out --timeout 2s").unwrap(),
            json!({"module": "math", "function": "add", "subject": "texts.*", "publish_to": "out", "limits": {"timeout_ms": 2000}})
        );
        assert_eq!(
            request("--stream S upper@2 --filter a.> --new --retry 3 --backoff 1s,10s").unwrap(),
            json!({"module": "upper@2", "stream": "S", "filter": "a.>", "deliver": "new",
                "retry": {"max_attempts": 3, "backoff_ms": [1000, 10_000]}})
        );
    }

    #[test]
    fn a_binding_has_one_source_and_what_is_for_streams_is_for_streams() {
        for line in [
            "upper",
            "a upper --stream S",
            "a b c",
            "a upper --filter b",
            "a upper --new",
            "a upper --retry 3",
            "--stream S upper --backoff 1s",
            "--stream S upper --retry 11",
            "a..b upper",
            "a Upper",
            "a upper --name No",
        ] {
            assert!(request(line).is_err(), "{line}");
        }
    }
}
