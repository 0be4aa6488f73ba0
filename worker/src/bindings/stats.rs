//! What is counted of bindings, by their names, of which there are only so many. A binding that goes takes its counts along.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use wess_schemas::{BindingName, ErrorCode};

type ByBinding = Family<[(&'static str, String); 1], Counter>;

/// Counters of one worker. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct BindingStats {
    runs: ByBinding,
    failures: Family<[(&'static str, String); 2], Counter>,
    dropped: ByBinding,
    dead: ByBinding,
    unanswerable: ByBinding,
}

impl BindingStats {
    /// A guest has answered.
    pub fn ran(&self, name: &BindingName) {
        self.runs.get_or_create(&of(name)).inc();
    }

    /// A message's run has failed, or was refused.
    pub fn failed(&self, name: &BindingName, code: ErrorCode) {
        self.failures.get_or_create(&with_code(name, code)).inc();
    }

    /// A message was thrown away, as there was no room.
    pub fn dropped(&self, name: &BindingName) {
        self.dropped.get_or_create(&of(name)).inc();
    }

    /// A message of a stream was given up.
    pub fn died(&self, name: &BindingName) {
        self.dead.get_or_create(&of(name)).inc();
    }

    /// A message named a reply subject that nobody may reply to.
    pub fn unanswerable(&self, name: &BindingName) {
        self.unanswerable.get_or_create(&of(name)).inc();
    }

    /// A binding is gone.
    pub fn forget(&self, name: &BindingName) {
        for family in [&self.runs, &self.dropped, &self.dead, &self.unanswerable] {
            family.remove(&of(name));
        }
        for code in ErrorCode::ALL {
            self.failures.remove(&with_code(name, *code));
        }
    }

    /// Shows them to scrapes of `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "binding_runs",
            "Guests that answered a binding's message",
            self.runs.clone(),
        );
        registry.register(
            "binding_failures",
            "Runs of bindings' messages that failed, by code",
            self.failures.clone(),
        );
        registry.register(
            "binding_dropped",
            "Messages of bound subjects thrown away, as there was no room",
            self.dropped.clone(),
        );
        registry.register(
            "binding_dead",
            "Messages of bound streams that became dead letters",
            self.dead.clone(),
        );
        registry.register(
            "binding_unanswerable",
            "Messages of bound subjects that named a reply subject which nobody may reply to",
            self.unanswerable.clone(),
        );
    }
}

fn of(name: &BindingName) -> [(&'static str, String); 1] {
    [("binding", name.to_string())]
}

fn with_code(name: &BindingName, code: ErrorCode) -> [(&'static str, String); 2] {
    [("binding", name.to_string()), ("code", code.as_str().into())]
}
