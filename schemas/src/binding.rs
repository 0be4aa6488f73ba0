//! Bindings in their JSON forms: which messages run which module, and where its output goes. And the rules that a
//! subject must keep to be bound, which need neither a module nor a server.
//!
//! Refuses what would feed itself: an output never goes to a subject that the binding takes messages from.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::BindingName;
use crate::job::{InvalidJob, RetryPolicy};
use crate::limits::Limits;
use crate::pattern::{covers, is_pattern};
use crate::reference::{FunctionName, Reference};
use crate::timestamp::Timestamp;

/// Most bindings that there may be.
pub const MAX_BINDINGS: usize = 256;
/// Most bytes of one subject.
pub const MAX_SUBJECT_BYTES: usize = 256;
/// What the guest finds the message's subject under.
pub const ENV_SUBJECT: &str = "WESS_SUBJECT";
/// What the guest finds the stream's name under.
pub const ENV_STREAM: &str = "WESS_STREAM";
/// What the guest finds the message's number in its stream under.
pub const ENV_SEQUENCE: &str = "WESS_SEQUENCE";

/// The body of `wess.bindings.put.<name>`: one of `subject` and `stream`, and what runs for each of its messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BindingRequest {
    /// Which module; its input is the message's body.
    pub module: Reference,
    /// Which export; left out, the ABI's own entry or the module's only function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionName>,
    /// Each message on this subject, which may have wildcards after its first token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub subject: Option<String>,
    /// Each message of this JetStream stream, kept there until its run has succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub stream: Option<String>,
    /// Of the stream, only messages on these subjects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub filter: Option<String>,
    /// Of the stream, which messages to begin with; all unless told.
    #[serde(default, skip_serializing_if = "Deliver::is_all")]
    pub deliver: Deliver,
    /// Where each output goes. Left out, it goes to the message's own reply subject, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub publish_to: Option<String>,
    /// Limits of each run, below the module's and the operator's.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// Of the stream, how often a guest that fails is run again before its message becomes a dead letter; left out, its
    /// first failure is its last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
}

/// Which messages of a stream a new binding begins with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Deliver {
    /// Those that lie in it already, and those that come.
    #[default]
    All,
    /// Those that come.
    New,
}

impl Deliver {
    fn is_all(&self) -> bool {
        *self == Self::All
    }
}

/// What a binding takes messages from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source<'a> {
    /// A subject: each message once, to one worker; it is not kept anywhere.
    Subject(&'a str),
    /// A stream: each message until its run has succeeded.
    Stream {
        /// Its name.
        stream: &'a str,
        /// Which of its subjects.
        filter: Option<&'a str>,
    },
}

/// A binding: the reply to `wess.bindings.put.<name>` and `.get.<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Binding {
    /// Its name.
    pub name: BindingName,
    /// Which module.
    pub module: Reference,
    /// Which export, where one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionName>,
    /// The subject that it takes messages from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The stream that it takes messages from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Which subjects of the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Which messages of the stream it began with.
    #[serde(default, skip_serializing_if = "Deliver::is_all")]
    pub deliver: Deliver,
    /// Where each output goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish_to: Option<String>,
    /// Limits of each run.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// How often a guest that fails is run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// Every subject that it may be fed by, as of when it was made.
    pub fed_by: Vec<String>,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
}

/// The reply to `wess.bindings.list`: every binding, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BindingList {
    /// All of them.
    pub bindings: Vec<Binding>,
}

/// The reply to `wess.bindings.delete.<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unbound {
    /// What is gone.
    pub name: BindingName,
}

/// What is wrong with a binding that parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBinding {
    /// Not exactly one source.
    #[error("a binding has one of subject and stream")]
    Source,
    /// A field that only streams have.
    #[error("{0} is for bindings of a stream")]
    StreamOnly(&'static str),
    /// Not a subject at all.
    #[error(
        "{field} {text:?} is no subject: at most {MAX_SUBJECT_BYTES} bytes of tokens between dots, `*` for one of them and \
         `>` for all that follow"
    )]
    Subject {
        /// Which field.
        field: &'static str,
        /// What it says.
        text: String,
    },
    /// A name that no stream has.
    #[error("stream {0:?} is no name of a stream")]
    Stream(String),
    /// A retry policy out of bounds.
    #[error(transparent)]
    Retry(#[from] InvalidJob),
}

impl BindingRequest {
    /// What it takes messages from. To be asked after [`BindingRequest::check`].
    pub fn source(&self) -> Result<Source<'_>, InvalidBinding> {
        match (&self.subject, &self.stream) {
            (Some(subject), None) => Ok(Source::Subject(subject)),
            (None, Some(stream)) => Ok(Source::Stream {
                stream,
                filter: self.filter.as_deref(),
            }),
            _ => Err(InvalidBinding::Source),
        }
    }

    /// Checks every bound that needs neither a module nor a server.
    pub fn check(&self) -> Result<(), InvalidBinding> {
        let subject = |field, text: &Option<String>| match text {
            Some(text) if text.len() > MAX_SUBJECT_BYTES || !is_pattern(text) => {
                Err(InvalidBinding::Subject {
                    field,
                    text: text.chars().take(80).collect(),
                })
            }
            _ => Ok(()),
        };
        subject("subject", &self.subject)?;
        subject("filter", &self.filter)?;
        subject("publish_to", &self.publish_to)?;
        if let Source::Stream { stream, .. } = self.source()? {
            return self.check_stream(stream);
        }
        let extra = [
            ("filter", self.filter.is_some()),
            ("deliver", self.deliver != Deliver::All),
            ("retry", self.retry.is_some()),
        ];
        match extra.iter().find(|(_, there)| *there) {
            Some((field, _)) => Err(InvalidBinding::StreamOnly(field)),
            None => Ok(()),
        }
    }

    fn check_stream(&self, stream: &str) -> Result<(), InvalidBinding> {
        let is_part =
            |c: char| !c.is_whitespace() && !c.is_control() && !['.', '*', '>', '/', '\\'].contains(&c);
        if !(1..=255).contains(&stream.len()) || !stream.chars().all(is_part) {
            return Err(InvalidBinding::Stream(stream.chars().take(80).collect()));
        }
        match &self.retry {
            Some(retry) => Ok(retry.check()?),
            None => Ok(()),
        }
    }

    /// A name for who gives none: of the module and what it is bound to.
    pub fn default_name(&self) -> Option<BindingName> {
        let module = self.module.name().map_or("module", |name| name.as_str());
        let source = match self.source().ok()? {
            Source::Subject(subject) => subject.to_owned(),
            Source::Stream { stream, filter } => format!("{stream}-{}", filter.unwrap_or_default()),
        };
        let words = format!("{module}-{source}").to_lowercase();
        let words = words
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty());
        let name = words.collect::<Vec<_>>().join("-");
        let short: String = name.chars().take(63).collect();
        short.trim_end_matches('-').parse().ok()
    }
}

impl Binding {
    /// A binding as it was asked for.
    pub fn new(
        name: BindingName,
        request: BindingRequest,
        fed_by: Vec<String>,
        created: Timestamp,
        updated: Timestamp,
    ) -> Self {
        let BindingRequest {
            module,
            function,
            subject,
            stream,
            filter,
            deliver,
            publish_to,
            limits,
            retry,
        } = request;
        Self {
            name,
            module,
            function,
            subject,
            stream,
            filter,
            deliver,
            publish_to,
            limits,
            retry,
            fed_by,
            created,
            updated,
        }
    }

    /// What was asked for.
    pub fn request(&self) -> BindingRequest {
        let this = self.clone();
        BindingRequest {
            module: this.module,
            function: this.function,
            subject: this.subject,
            stream: this.stream,
            filter: this.filter,
            deliver: this.deliver,
            publish_to: this.publish_to,
            limits: this.limits,
            retry: this.retry,
        }
    }

    /// Whether a message on `subject` would run it.
    pub fn takes(&self, subject: &str) -> bool {
        self.fed_by.iter().any(|pattern| covers(pattern, subject))
    }
}

/// The ring of bindings that a new one would close: each one's output runs the next, and the last one's the first. A
/// single name is a binding that feeds itself.
pub fn ring<'a>(new: &'a Binding, others: &'a [Binding]) -> Option<Vec<&'a BindingName>> {
    let mut seen = BTreeSet::new();
    let mut ways = vec![vec![new]];
    while let Some(way) = ways.pop() {
        let Some(target) = way.last().and_then(|binding| binding.publish_to.as_ref()) else {
            continue;
        };
        if new.takes(target) {
            return Some(way.iter().map(|binding| &binding.name).collect());
        }
        for next in others.iter().filter(|other| other.name != new.name) {
            if next.takes(target) && seen.insert(&next.name) {
                ways.push([&way[..], &[next]].concat());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(json: &str) -> BindingRequest {
        serde_json::from_str(json).unwrap()
    }

    fn binding(name: &str, fed_by: &str, publish_to: Option<&str>) -> Binding {
        let mut request = request(r#"{"module":"a","subject":"x"}"#);
        request.publish_to = publish_to.map(Into::into);
        let now = Timestamp::now();
        Binding::new(name.parse().unwrap(), request, vec![fed_by.into()], now, now)
    }

    #[test]
    fn a_binding_has_one_source_and_what_is_for_streams_is_for_streams() {
        for good in [
            r#"{"module":"a","subject":"orders.*"}"#,
            r#"{"module":"a","stream":"ORDERS"}"#,
            r#"{"module":"a","stream":"ORDERS","filter":"orders.>","deliver":"new","retry":{"max_attempts":3}}"#,
        ] {
            assert_eq!(request(good).check(), Ok(()), "{good}");
        }
        for (bad, named) in [
            (r#"{"module":"a"}"#, "one of"),
            (r#"{"module":"a","subject":"x","stream":"S"}"#, "one of"),
            (r#"{"module":"a","subject":"x","filter":"y"}"#, "filter"),
            (r#"{"module":"a","subject":"x","deliver":"new"}"#, "deliver"),
            (
                r#"{"module":"a","subject":"x","retry":{"max_attempts":3}}"#,
                "retry",
            ),
            (r#"{"module":"a","subject":"x..y"}"#, "subject"),
            (r#"{"module":"a","subject":""}"#, "subject"),
            (r#"{"module":"a","stream":"a.b"}"#, "stream"),
            (r#"{"module":"a","stream":""}"#, "stream"),
            (r#"{"module":"a","stream":"S","filter":"a b"}"#, "filter"),
            (
                r#"{"module":"a","stream":"S","retry":{"max_attempts":11}}"#,
                "retry",
            ),
            (
                r#"{"module":"a","subject":"x","publish_to":"a..b"}"#,
                "publish_to",
            ),
        ] {
            let refused = request(bad).check().expect_err(bad).to_string();
            assert!(refused.contains(named), "{bad}: {refused}");
        }
        let long = format!(r#"{{"module":"a","subject":"{}"}}"#, "x".repeat(257));
        assert!(request(&long).check().is_err());
    }

    #[test]
    fn who_gives_no_name_gets_one_of_module_and_source() {
        let name = |json: &str| request(json).default_name().unwrap().to_string();
        assert_eq!(
            name(r#"{"module":"upper@3","subject":"orders.*.New"}"#),
            "upper-orders-new"
        );
        assert_eq!(
            name(r#"{"module":"upper","stream":"ORDERS","filter":"orders.>"}"#),
            "upper-orders-orders"
        );
        assert_eq!(name(r#"{"module":"upper","stream":"ORDERS"}"#), "upper-orders");
        assert!(
            name(&format!(
                r#"{{"module":"upper","subject":"{}"}}"#,
                "a-".repeat(100)
            ))
            .len()
                <= 63
        );
    }

    #[test]
    fn a_ring_of_outputs_is_found_however_long_it_is() {
        let names = |found: Option<Vec<&BindingName>>| {
            found.map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let own = binding("own", "a.*", Some("a.b"));
        assert_eq!(names(ring(&own, &[])), Some(vec!["own".into()]));
        let others = [
            binding("two", "b.>", Some("c")),
            binding("side", "b.x", Some("nowhere")),
            binding("three", "c", Some("a")),
        ];
        let first = binding("one", "a", Some("b.x"));
        assert_eq!(
            names(ring(&first, &others)),
            Some(["one", "two", "three"].map(String::from).to_vec())
        );
        let elsewhere = binding("one", "z", Some("b.x"));
        assert_eq!(ring(&elsewhere, &others), None);
        // Put anew, it takes its own old place.
        let changed = binding("three", "c", Some("d"));
        assert_eq!(
            ring(&changed, &[first, others[0].clone(), others[2].clone()]),
            None
        );
    }

    proptest! {
        #[test]
        fn no_source_makes_a_name_that_is_none(subject in "\\PC{0,90}", stream in "\\PC{0,90}") {
            let mut by_subject = request(r#"{"module":"a","subject":"x"}"#);
            by_subject.subject = Some(subject);
            let _ = (by_subject.check(), by_subject.default_name());
            let mut by_stream = request(r#"{"module":"a","stream":"x"}"#);
            by_stream.stream = Some(stream);
            let _ = (by_stream.check(), by_stream.default_name());
        }
    }
}
