//! The endpoints by name: what the Services API lists of each, and which one a request belongs to.

use std::collections::BTreeMap;

use wess_schemas::binding::MAX_BINDINGS;
use wess_schemas::job::MAX_ATTEMPTS;
use wess_schemas::limits::{MAX_CHAIN_STEPS, MAX_INPUT_BYTES};
use wess_schemas::subject::{Endpoint, Subjects};

/// The endpoints of the service, in the order in which INFO lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointName {
    /// `wess.invoke`
    Invoke,
    /// `wess.invoke.>`
    InvokeRaw,
    /// `wess.http.*`
    Http,
    /// `wess.chain`
    Chain,
    /// `wess.store`
    Store,
    /// `wess.modules.list`
    List,
    /// `wess.modules.get.*`
    Get,
    /// `wess.modules.delete.*`
    Delete,
    /// `wess.modules.tag.*`
    Tag,
    /// `wess.modules.fetch.*`
    Fetch,
    /// `wess.jobs.submit`
    JobsSubmit,
    /// `wess.jobs.get.*`
    JobsGet,
    /// `wess.jobs.wait.*`
    JobsWait,
    /// `wess.jobs.cancel.*`
    JobsCancel,
    /// `wess.jobs.list`
    JobsList,
    /// `wess.dead.list`
    DeadList,
    /// `wess.dead.get.*`
    DeadGet,
    /// `wess.dead.redrive.*`
    DeadRedrive,
    /// `wess.dead.purge`
    DeadPurge,
    /// `wess.bindings.put.*`
    BindingsPut,
    /// `wess.bindings.list`
    BindingsList,
    /// `wess.bindings.get.*`
    BindingsGet,
    /// `wess.bindings.delete.*`
    BindingsDelete,
}

impl EndpointName {
    /// Every endpoint.
    pub const ALL: [Self; 23] = [
        Self::Invoke,
        Self::InvokeRaw,
        Self::Http,
        Self::Chain,
        Self::Store,
        Self::List,
        Self::Get,
        Self::Delete,
        Self::Tag,
        Self::Fetch,
        Self::JobsSubmit,
        Self::JobsGet,
        Self::JobsWait,
        Self::JobsCancel,
        Self::JobsList,
        Self::DeadList,
        Self::DeadGet,
        Self::DeadRedrive,
        Self::DeadPurge,
        Self::BindingsPut,
        Self::BindingsList,
        Self::BindingsGet,
        Self::BindingsDelete,
    ];

    /// The endpoint that a subject belongs to.
    pub fn of(endpoint: &Endpoint) -> Self {
        match endpoint {
            Endpoint::Invoke => Self::Invoke,
            Endpoint::InvokeRaw(..) => Self::InvokeRaw,
            Endpoint::Http(_) => Self::Http,
            Endpoint::Chain => Self::Chain,
            Endpoint::Store => Self::Store,
            Endpoint::ModulesList => Self::List,
            Endpoint::ModulesGet(_) => Self::Get,
            Endpoint::ModulesDelete(_) => Self::Delete,
            Endpoint::ModulesTag(_) => Self::Tag,
            Endpoint::ModulesFetch(_) => Self::Fetch,
            Endpoint::JobsSubmit => Self::JobsSubmit,
            Endpoint::JobsGet(_) => Self::JobsGet,
            Endpoint::JobsWait(_) => Self::JobsWait,
            Endpoint::JobsCancel(_) => Self::JobsCancel,
            Endpoint::JobsList => Self::JobsList,
            Endpoint::DeadList => Self::DeadList,
            Endpoint::DeadGet(_) => Self::DeadGet,
            Endpoint::DeadRedrive(_) => Self::DeadRedrive,
            Endpoint::DeadPurge => Self::DeadPurge,
            Endpoint::BindingsPut(_) => Self::BindingsPut,
            Endpoint::BindingsList => Self::BindingsList,
            Endpoint::BindingsGet(_) => Self::BindingsGet,
            Endpoint::BindingsDelete(_) => Self::BindingsDelete,
        }
    }

    /// The name in the Services API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invoke => "invoke",
            Self::InvokeRaw => "invoke-raw",
            Self::Http => "http",
            Self::Chain => "chain",
            Self::Store => "store",
            Self::List => "modules-list",
            Self::Get => "modules-get",
            Self::Delete => "modules-delete",
            Self::Tag => "modules-tag",
            Self::Fetch => "modules-fetch",
            Self::JobsSubmit => "jobs-submit",
            Self::JobsGet => "jobs-get",
            Self::JobsWait => "jobs-wait",
            Self::JobsCancel => "jobs-cancel",
            Self::JobsList => "jobs-list",
            Self::DeadList => "dead-list",
            Self::DeadGet => "dead-get",
            Self::DeadRedrive => "dead-redrive",
            Self::DeadPurge => "dead-purge",
            Self::BindingsPut => "bindings-put",
            Self::BindingsList => "bindings-list",
            Self::BindingsGet => "bindings-get",
            Self::BindingsDelete => "bindings-delete",
        }
    }

    /// What is listed as its subject: one that stands for all that it answers.
    pub fn subject(self, subjects: &Subjects) -> String {
        let modules = |tail: &str| subjects.modules_wildcard().replace('>', tail);
        let jobs = |tail: &str| subjects.jobs_wildcard().replace('>', tail);
        let dead = |tail: &str| subjects.dead_wildcard().replace('>', tail);
        let bindings = |tail: &str| subjects.bindings_wildcard().replace('>', tail);
        match self {
            Self::Invoke => subjects.endpoint(&Endpoint::Invoke),
            Self::InvokeRaw => subjects.invoke_wildcard(),
            Self::Http => subjects.http_wildcard(),
            Self::Chain => subjects.endpoint(&Endpoint::Chain),
            Self::Store => subjects.endpoint(&Endpoint::Store),
            Self::List => subjects.endpoint(&Endpoint::ModulesList),
            Self::Get => modules("get.*"),
            Self::Delete => modules("delete.*"),
            Self::Tag => modules("tag.*"),
            Self::Fetch => modules("fetch.*"),
            Self::JobsSubmit => subjects.endpoint(&Endpoint::JobsSubmit),
            Self::JobsGet => jobs("get.*"),
            Self::JobsWait => jobs("wait.*"),
            Self::JobsCancel => jobs("cancel.*"),
            Self::JobsList => subjects.endpoint(&Endpoint::JobsList),
            Self::DeadList => subjects.endpoint(&Endpoint::DeadList),
            Self::DeadGet => dead("get.*"),
            Self::DeadRedrive => dead("redrive.*"),
            Self::DeadPurge => subjects.endpoint(&Endpoint::DeadPurge),
            Self::BindingsPut => bindings("put.*"),
            Self::BindingsList => subjects.endpoint(&Endpoint::BindingsList),
            Self::BindingsGet => bindings("get.*"),
            Self::BindingsDelete => bindings("delete.*"),
        }
    }

    /// What it takes and gives: media types, and schemas by their file names.
    pub fn metadata(self, max_module_bytes: u64) -> BTreeMap<&'static str, String> {
        let facts = self
            .facts()
            .iter()
            .map(|(name, fact)| (*name, (*fact).to_owned()));
        facts
            .chain([("errors", "error".to_owned())])
            .chain(
                self.bound(max_module_bytes)
                    .map(|(name, bound)| (name, bound.to_string())),
            )
            .collect()
    }

    fn facts(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Invoke => &[
                ("accepts", JSON),
                ("request", "invocation"),
                ("response", "outcome"),
                ("headers", OF_CALLS),
            ],
            Self::InvokeRaw => &[
                ("accepts", "*/*"),
                ("request", "raw input"),
                ("response", "raw output"),
                ("headers", OF_RAW_CALLS),
            ],
            Self::Http => &[
                ("accepts", "*/*"),
                ("request", "the body of an HTTP request"),
                ("response", "the body of its response"),
                ("headers", OF_HTTP),
            ],
            Self::Chain => &[
                ("accepts", JSON),
                ("request", "chain-request"),
                ("response", "chain-outcome"),
                ("headers", "Nats-Msg-Id, traceparent"),
            ],
            Self::Store => &[
                (
                    "accepts",
                    "application/wasm with the header Wess-Module, application/json without",
                ),
                ("request", "store-request"),
                ("response", "module"),
                (
                    "headers",
                    "Wess-Module, Wess-Settings, Wess-Timeout-Ms, Wess-Memory-Mb, Wess-Fuel",
                ),
            ],
            Self::List => &[
                ("accepts", JSON),
                ("request", "list-request"),
                ("response", "module-list"),
            ],
            Self::Get => &[("accepts", NOTHING), ("response", "module")],
            Self::Delete => &[("accepts", NOTHING), ("response", "deleted")],
            Self::Tag => &[
                ("accepts", JSON),
                ("request", "tag-request"),
                ("response", "module"),
            ],
            Self::Fetch => &[("accepts", NOTHING), ("response", "blob-location")],
            Self::JobsSubmit => &[
                ("accepts", JSON),
                ("request", "job-request"),
                ("response", "job-record"),
                ("headers", "Nats-Msg-Id, traceparent"),
            ],
            Self::JobsGet | Self::JobsCancel => &[("accepts", NOTHING), ("response", "job-record")],
            Self::JobsWait => &[
                ("accepts", JSON),
                ("request", "job-wait-request"),
                ("response", "job-record"),
            ],
            Self::JobsList => &[
                ("accepts", JSON),
                ("request", "job-list-request"),
                ("response", "job-list"),
            ],
            Self::DeadList => &[
                ("accepts", JSON),
                ("request", "dead-list-request"),
                ("response", "dead-list"),
            ],
            Self::DeadGet => &[("accepts", NOTHING), ("response", "dead-letter")],
            Self::DeadRedrive => &[("accepts", NOTHING), ("response", "job-record")],
            Self::DeadPurge => &[
                ("accepts", JSON),
                ("request", "dead-purge-request"),
                ("response", "dead-purged"),
            ],
            Self::BindingsPut => &[
                ("accepts", JSON),
                ("request", "binding-request"),
                ("response", "binding"),
            ],
            Self::BindingsList => &[("accepts", NOTHING), ("response", "binding-list")],
            Self::BindingsGet => &[("accepts", NOTHING), ("response", "binding")],
            Self::BindingsDelete => &[("accepts", NOTHING), ("response", "unbound")],
        }
    }

    fn bound(self, max_module_bytes: u64) -> Option<(&'static str, u64)> {
        match self {
            Self::Invoke | Self::InvokeRaw => Some(("max_input_bytes", MAX_INPUT_BYTES)),
            Self::Http => None,
            Self::Chain => Some(("max_steps", MAX_CHAIN_STEPS as u64)),
            Self::Store => Some(("max_module_bytes", max_module_bytes)),
            Self::JobsSubmit => Some(("max_attempts", u64::from(MAX_ATTEMPTS))),
            Self::BindingsPut => Some(("max_bindings", MAX_BINDINGS as u64)),
            Self::BindingsList | Self::BindingsGet | Self::BindingsDelete => None,
            Self::List | Self::Get | Self::Delete | Self::Tag | Self::Fetch => None,
            Self::JobsGet | Self::JobsWait | Self::JobsCancel | Self::JobsList => None,
            Self::DeadList | Self::DeadGet | Self::DeadRedrive | Self::DeadPurge => None,
        }
    }
}

const JSON: &str = "application/json";
/// Headers that count for calls.
const OF_CALLS: &str = "Wess-Timeout-Ms, Wess-Memory-Mb, Wess-Fuel, Wess-Wait-Ms, Nats-Msg-Id, traceparent";
const OF_HTTP: &str = "Wess-Http-Method, Wess-Http-Path, Wess-Http-Authority, Wess-Http-Scheme, Wess-Http-Headers, Wess-Timeout-Ms, Wess-Memory-Mb, Wess-Fuel, Wess-Wait-Ms, traceparent";
const OF_RAW_CALLS: &str = "Wess-Timeout-Ms, Wess-Memory-Mb, Wess-Fuel, Wess-Wait-Ms, Wess-Input-Ref, Wess-Facts, Nats-Msg-Id, traceparent";
const NOTHING: &str = "an empty body";
