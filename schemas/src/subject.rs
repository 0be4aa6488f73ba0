//! Every NATS subject, bucket and key of ours, built and parsed here and nowhere else.
//!
//! Refuses to publish anywhere a caller could have meant as a forgery: see [`Subjects::may_reply_to`].

mod key;
mod objects;
mod others;
mod queue;
mod state;

use std::fmt;
use std::str::FromStr;

use crate::id::{BindingName, InvalidName, JobId, ModuleName, Tenant};
use crate::reference::{FunctionName, Reference};
pub use key::{BINDINGS_BUCKET, ModuleKey, binding_group, binding_key};
pub use objects::{ObjectSubjects, object_name, objects_bucket};
pub use queue::{
    CALLS_CONSUMER, CALLS_STREAM, DEAD_STREAM, JOB_PAYLOADS_BUCKET, JOBS_CONSUMER, JOBS_STREAM, Queue,
    RESULTS_BUCKET, SWEEP_CONSUMER, TIMERS_CONSUMER, TIMERS_STREAM, result_key,
};
pub use state::{guest_key, state_key};

/// KV bucket of module records.
pub const MODULES_BUCKET: &str = "wess-modules";
/// Object store of Wasm bytes, written by workers only.
pub const BLOBS_BUCKET: &str = "wess-blobs";
/// Object store of uploads and large payloads.
pub const PAYLOADS_BUCKET: &str = "wess-payloads";
/// Queue group of every worker.
pub const QUEUE_GROUP: &str = "wess";

/// KV bucket of a tenant's guest state.
pub fn state_bucket(tenant: &Tenant) -> String {
    format!("wess-state-{tenant}")
}

/// What stands before the first dot of every subject: one NATS token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(Box<str>);

impl Default for Prefix {
    fn default() -> Self {
        Self("wess".into())
    }
}

impl FromStr for Prefix {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let token = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        match (1..=32).contains(&text.len()) && text.bytes().all(token) {
            true => Ok(Self(text.into())),
            false => Err(InvalidName::new(
                "subject prefix",
                "1 to 32 of A-Z, a-z, 0-9, '-' and '_'",
                text,
            )),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a request's subject asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// An Invocation in JSON.
    Invoke,
    /// Raw input to a module's function.
    InvokeRaw(Reference, Option<FunctionName>),
    /// An HTTP request to a module that serves them.
    Http(Reference),
    /// Several invocations in a row.
    Chain,
    /// Store a module.
    Store,
    /// A page of modules.
    ModulesList,
    /// One module.
    ModulesGet(Reference),
    /// Delete a module, a version or a tag.
    ModulesDelete(Reference),
    /// Set or take away a tag.
    ModulesTag(ModuleName),
    /// Where to read a module's bytes.
    ModulesFetch(Reference),
    /// Submit a job.
    JobsSubmit,
    /// One job's record.
    JobsGet(JobId),
    /// One job's record, once the job has ended.
    JobsWait(JobId),
    /// Cancel a job.
    JobsCancel(JobId),
    /// A page of jobs.
    JobsList,
    /// A page of dead letters.
    DeadList,
    /// One dead letter.
    DeadGet(JobId),
    /// Submit a dead letter's job again.
    DeadRedrive(JobId),
    /// Delete dead letters.
    DeadPurge,
    /// Make or change a binding.
    BindingsPut(BindingName),
    /// Every binding.
    BindingsList,
    /// One binding.
    BindingsGet(BindingName),
    /// Delete a binding.
    BindingsDelete(BindingName),
}

/// A subject that is none of ours, or names something that cannot exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSubject {
    /// Not in the table of endpoints.
    #[error("there is no endpoint {0:?}")]
    Unknown(String),
    /// The module or function in it does not parse.
    #[error(transparent)]
    Name(#[from] InvalidName),
}

/// Builds and parses subjects under one prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subjects {
    prefix: Prefix,
}

impl Subjects {
    /// Subjects under this prefix.
    pub fn new(prefix: Prefix) -> Self {
        Self { prefix }
    }

    /// The subject of an endpoint.
    pub fn endpoint(&self, endpoint: &Endpoint) -> String {
        let prefix = &self.prefix;
        match endpoint {
            Endpoint::Invoke => format!("{prefix}.invoke"),
            Endpoint::InvokeRaw(module, None) => format!("{prefix}.invoke.{module}"),
            Endpoint::InvokeRaw(module, Some(function)) => format!("{prefix}.invoke.{module}.{function}"),
            Endpoint::Http(module) => format!("{prefix}.http.{module}"),
            Endpoint::Chain => format!("{prefix}.chain"),
            Endpoint::Store => format!("{prefix}.store"),
            Endpoint::ModulesList => format!("{prefix}.modules.list"),
            Endpoint::ModulesGet(module) => format!("{prefix}.modules.get.{module}"),
            Endpoint::ModulesDelete(module) => format!("{prefix}.modules.delete.{module}"),
            Endpoint::ModulesTag(name) => format!("{prefix}.modules.tag.{name}"),
            Endpoint::ModulesFetch(module) => format!("{prefix}.modules.fetch.{module}"),
            Endpoint::JobsSubmit => format!("{prefix}.jobs.submit"),
            Endpoint::JobsGet(job) => format!("{prefix}.jobs.get.{job}"),
            Endpoint::JobsWait(job) => format!("{prefix}.jobs.wait.{job}"),
            Endpoint::JobsCancel(job) => format!("{prefix}.jobs.cancel.{job}"),
            Endpoint::JobsList => format!("{prefix}.jobs.list"),
            Endpoint::DeadList => format!("{prefix}.dead.list"),
            Endpoint::DeadGet(job) => format!("{prefix}.dead.get.{job}"),
            Endpoint::DeadRedrive(job) => format!("{prefix}.dead.redrive.{job}"),
            Endpoint::DeadPurge => format!("{prefix}.dead.purge"),
            Endpoint::BindingsPut(name) => format!("{prefix}.bindings.put.{name}"),
            Endpoint::BindingsList => format!("{prefix}.bindings.list"),
            Endpoint::BindingsGet(name) => format!("{prefix}.bindings.get.{name}"),
            Endpoint::BindingsDelete(name) => format!("{prefix}.bindings.delete.{name}"),
        }
    }

    /// What to subscribe to for raw invocations.
    pub fn invoke_wildcard(&self) -> String {
        format!("{}.invoke.>", self.prefix)
    }

    /// What to subscribe to for HTTP requests.
    pub fn http_wildcard(&self) -> String {
        format!("{}.http.*", self.prefix)
    }

    /// What to subscribe to for everything under `modules`.
    pub fn modules_wildcard(&self) -> String {
        format!("{}.modules.>", self.prefix)
    }

    /// What to subscribe to for everything under `jobs`.
    pub fn jobs_wildcard(&self) -> String {
        format!("{}.jobs.>", self.prefix)
    }

    /// What to subscribe to for everything under `dead`.
    pub fn dead_wildcard(&self) -> String {
        format!("{}.dead.>", self.prefix)
    }

    /// What to subscribe to for everything under `bindings`.
    pub fn bindings_wildcard(&self) -> String {
        format!("{}.bindings.>", self.prefix)
    }

    /// Where workers beat.
    pub fn worker_beat(&self) -> String {
        format!("{}.worker.beat", self.prefix)
    }

    /// Where a module's guests log.
    pub fn logs(&self, module: &str) -> String {
        format!("{}.logs.{module}", self.prefix)
    }

    /// What a request's subject asks for.
    pub fn parse(&self, subject: &str) -> Result<Endpoint, InvalidSubject> {
        let unknown = || InvalidSubject::Unknown(subject.chars().take(200).collect());
        let tail = subject
            .strip_prefix(&*self.prefix.0)
            .and_then(|tail| tail.strip_prefix('.'))
            .ok_or_else(unknown)?;
        let (area, rest) = tail
            .split_once('.')
            .map_or((tail, None), |(area, rest)| (area, Some(rest)));
        match (area, rest) {
            ("invoke", None) => Ok(Endpoint::Invoke),
            ("invoke", Some(rest)) => parse_raw(rest),
            ("http", Some(module)) => Ok(Endpoint::Http(module.parse()?)),
            ("chain", None) => Ok(Endpoint::Chain),
            ("store", None) => Ok(Endpoint::Store),
            ("modules", Some(rest)) => parse_modules(rest).unwrap_or_else(|| Err(unknown())),
            ("jobs", Some(rest)) => parse_jobs(rest).unwrap_or_else(|| Err(unknown())),
            ("dead", Some(rest)) => parse_dead(rest).unwrap_or_else(|| Err(unknown())),
            ("bindings", Some(rest)) => parse_bindings(rest).unwrap_or_else(|| Err(unknown())),
            _ => Err(unknown()),
        }
    }
}

fn parse_raw(rest: &str) -> Result<Endpoint, InvalidSubject> {
    let (module, function) = rest
        .split_once('.')
        .map_or((rest, None), |(module, function)| (module, Some(function)));
    let function = function.map(FunctionName::from_str).transpose()?;
    Ok(Endpoint::InvokeRaw(module.parse()?, function))
}

fn parse_modules(rest: &str) -> Option<Result<Endpoint, InvalidSubject>> {
    if rest == "list" {
        return Some(Ok(Endpoint::ModulesList));
    }
    let (verb, which) = rest.split_once('.')?;
    let with_reference = |endpoint: fn(Reference) -> Endpoint| {
        Some(Ok(endpoint(match which.parse() {
            Ok(reference) => reference,
            Err(invalid) => return Some(Err(InvalidSubject::Name(invalid))),
        })))
    };
    match verb {
        "get" => with_reference(Endpoint::ModulesGet),
        "delete" => with_reference(Endpoint::ModulesDelete),
        "fetch" => with_reference(Endpoint::ModulesFetch),
        "tag" => Some(
            which
                .parse()
                .map(Endpoint::ModulesTag)
                .map_err(InvalidSubject::Name),
        ),
        _ => None,
    }
}

fn parse_jobs(rest: &str) -> Option<Result<Endpoint, InvalidSubject>> {
    match rest {
        "submit" => return Some(Ok(Endpoint::JobsSubmit)),
        "list" => return Some(Ok(Endpoint::JobsList)),
        _ => {}
    }
    let (verb, which) = rest.split_once('.')?;
    let endpoint = match verb {
        "get" => Endpoint::JobsGet,
        "wait" => Endpoint::JobsWait,
        "cancel" => Endpoint::JobsCancel,
        _ => return None,
    };
    Some(which.parse().map(endpoint).map_err(InvalidSubject::Name))
}

fn parse_dead(rest: &str) -> Option<Result<Endpoint, InvalidSubject>> {
    match rest {
        "list" => return Some(Ok(Endpoint::DeadList)),
        "purge" => return Some(Ok(Endpoint::DeadPurge)),
        _ => {}
    }
    let (verb, which) = rest.split_once('.')?;
    let endpoint = match verb {
        "get" => Endpoint::DeadGet,
        "redrive" => Endpoint::DeadRedrive,
        _ => return None,
    };
    Some(which.parse().map(endpoint).map_err(InvalidSubject::Name))
}

fn parse_bindings(rest: &str) -> Option<Result<Endpoint, InvalidSubject>> {
    if rest == "list" {
        return Some(Ok(Endpoint::BindingsList));
    }
    let (verb, which) = rest.split_once('.')?;
    let endpoint = match verb {
        "put" => Endpoint::BindingsPut,
        "get" => Endpoint::BindingsGet,
        "delete" => Endpoint::BindingsDelete,
        _ => return None,
    };
    Some(which.parse().map(endpoint).map_err(InvalidSubject::Name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subjects() -> Subjects {
        Subjects::default()
    }

    #[test]
    fn every_endpoint_of_the_table_parses_back_from_its_subject() {
        let module: Reference = "hello@3".parse().unwrap();
        let endpoints = [
            Endpoint::Invoke,
            Endpoint::InvokeRaw(module.clone(), None),
            Endpoint::InvokeRaw(module.clone(), Some("ns:a/b@1.0.0#run".parse().unwrap())),
            Endpoint::Http(module.clone()),
            Endpoint::Chain,
            Endpoint::Store,
            Endpoint::ModulesList,
            Endpoint::ModulesGet(module.clone()),
            Endpoint::ModulesDelete(module.clone()),
            Endpoint::ModulesTag("hello".parse().unwrap()),
            Endpoint::ModulesFetch(module),
            Endpoint::JobsSubmit,
            Endpoint::JobsGet("a".parse().unwrap()),
            Endpoint::JobsWait("B_9-".parse().unwrap()),
            Endpoint::JobsCancel("a".parse().unwrap()),
            Endpoint::JobsList,
            Endpoint::DeadList,
            Endpoint::DeadGet("a".parse().unwrap()),
            Endpoint::DeadRedrive("a".parse().unwrap()),
            Endpoint::DeadPurge,
            Endpoint::BindingsPut("a".parse().unwrap()),
            Endpoint::BindingsList,
            Endpoint::BindingsGet("a-b".parse().unwrap()),
            Endpoint::BindingsDelete("a".parse().unwrap()),
        ];
        for endpoint in endpoints {
            assert_eq!(
                subjects().parse(&subjects().endpoint(&endpoint)).unwrap(),
                endpoint
            );
        }
    }

    #[test]
    fn foreign_and_half_subjects_are_refused() {
        for bad in [
            "",
            "wess",
            "wess.",
            "wess.nope",
            "wessinvoke",
            "other.invoke",
            "wess.modules",
            "wess.modules.get",
            "wess.chain.x",
            "wess.http",
            "wess.modules.list.x",
            "wess.jobs",
            "wess.jobs.get",
            "wess.jobs.submit.x",
            "wess.dead.purge.x",
            "wess.bindings",
            "wess.bindings.put",
            "wess.bindings.list.x",
        ] {
            assert!(
                matches!(subjects().parse(bad), Err(InvalidSubject::Unknown(_))),
                "{bad:?}"
            );
        }
        for bad in [
            "wess.invoke.UPPER",
            "wess.invoke.",
            "wess.http.a.b",
            "wess.modules.get.A",
            "wess.modules.tag.a@1",
            "wess.jobs.get.a.b",
            "wess.dead.get.",
            "wess.bindings.put.a.b",
            "wess.bindings.get.A",
        ] {
            assert!(
                matches!(subjects().parse(bad), Err(InvalidSubject::Name(_))),
                "{bad:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_subject_makes_the_parser_panic_and_what_parses_builds_back(subject in "wess\\.(invoke|modules\\.[a-z]{3,6}|jobs\\.[a-z]{3,6}|bindings\\.[a-z]{3,6}|chain|store)(\\.\\PC{0,40})?|\\PC{0,60}") {
            if let Ok(endpoint) = subjects().parse(&subject) {
                prop_assert_eq!(subjects().parse(&subjects().endpoint(&endpoint)).unwrap(), endpoint);
            }
            let _ = (subjects().may_reply_to(&subject), subjects().may_bind(&subject));
        }
    }
}
