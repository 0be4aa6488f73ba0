//! The NATS Services API: who answers (PING), what it takes (INFO), and what it has done (STATS).
//!
//! Hand-written, because a question without a reply subject must do nothing, and because endpoints here share
//! subscriptions. The forms are those of NATS ADR-32.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;
use wess_schemas::secret::SEALING_KEY;
use wess_schemas::subject::{QUEUE_GROUP, Subjects};
use wess_schemas::{ErrorBody, WorkerId};
use wess_service::bus::Reply;

use super::json_reply;
pub use super::names::EndpointName;

/// The service's name.
pub const SERVICE: &str = "wess";
const DESCRIPTION: &str = "Stores WebAssembly modules and runs them";
/// What every question's subject begins with.
const PREFIX: &str = "$SRV";
/// Most characters of a last error that are shown.
const MAX_ERROR_CHARS: usize = 200;

/// What is asked of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Who is there?
    Ping,
    /// What do you take?
    Info,
    /// What have you done?
    Stats,
}

impl Question {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Ping, "PING"), (Self::Info, "INFO"), (Self::Stats, "STATS")];

    /// What a subject asks; `None` when it is no question to a service.
    pub fn parse(subject: &str) -> Option<Self> {
        let verb = subject
            .strip_prefix(PREFIX)?
            .strip_prefix('.')?
            .split('.')
            .next()?;
        Self::ALL
            .into_iter()
            .find_map(|(question, name)| (name == verb).then_some(question))
    }

    /// Every subject on which this worker is asked.
    pub fn subjects(worker: &WorkerId) -> impl Iterator<Item = String> {
        Self::ALL.into_iter().flat_map(move |(_, verb)| {
            let everybody = format!("{PREFIX}.{verb}");
            let service = format!("{everybody}.{SERVICE}");
            let instance = format!("{service}.{worker}");
            [everybody, service, instance]
        })
    }
}

/// What one endpoint has done.
#[derive(Debug, Default)]
pub struct EndpointStats {
    requests: AtomicU64,
    errors: AtomicU64,
    processing_ns: AtomicU64,
    last_error: Mutex<String>,
}

/// What one endpoint has done, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointCounts {
    /// Requests answered.
    pub requests: u64,
    /// Those answered by an error.
    pub errors: u64,
    /// Time spent on them, in nanoseconds.
    pub processing_ns: u64,
    /// The last error, if there was one.
    pub last_error: String,
}

impl EndpointStats {
    /// Counts one request.
    pub fn count(&self, took: Duration, error: Option<&ErrorBody>) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.processing_ns.fetch_add(
            u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
        if let Some(error) = error {
            self.errors.fetch_add(1, Ordering::Relaxed);
            let text = error.to_string().chars().take(MAX_ERROR_CHARS).collect();
            *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = text;
        }
    }

    /// The counts now.
    pub fn counts(&self) -> EndpointCounts {
        EndpointCounts {
            requests: self.requests.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            processing_ns: self.processing_ns.load(Ordering::Relaxed),
            last_error: self
                .last_error
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        }
    }
}

/// What each endpoint has done. Asked at each STATS; must not block.
pub type CountRequests = Arc<dyn Fn(EndpointName) -> EndpointCounts + Send + Sync>;

/// Answers questions about this worker.
pub struct Discovery {
    worker: WorkerId,
    subjects: Subjects,
    max_module_bytes: u64,
    started: OffsetDateTime,
    counts: CountRequests,
    /// What secrets are sealed to.
    sealing_key: Option<String>,
}

#[derive(Serialize)]
struct Answer<'a, E: Serialize> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'static str,
    id: &'a WorkerId,
    version: &'static str,
    metadata: BTreeMap<&'static str, String>,
    #[serde(flatten)]
    more: E,
}

#[derive(Serialize)]
struct Nothing {}

#[derive(Serialize)]
struct Info {
    description: &'static str,
    endpoints: Vec<EndpointInfo>,
}

#[derive(Serialize)]
struct EndpointInfo {
    name: &'static str,
    subject: String,
    queue_group: &'static str,
    metadata: BTreeMap<&'static str, String>,
}

// A fraction of six digits always: nats-py reads neither nine digits nor none.
time::serde::format_description!(
    micros,
    OffsetDateTime,
    "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z"
);

#[derive(Serialize)]
struct Stats {
    #[serde(serialize_with = "micros::serialize")]
    started: OffsetDateTime,
    endpoints: Vec<EndpointReport>,
}

#[derive(Serialize)]
struct EndpointReport {
    name: &'static str,
    subject: String,
    queue_group: &'static str,
    num_requests: u64,
    num_errors: u64,
    last_error: String,
    processing_time: u64,
    average_processing_time: u64,
    data: (), // We have none to tell; nats-py cannot read an answer without it.
}

impl Discovery {
    /// Answers as `worker`; `counts` is asked at each STATS.
    pub fn new(worker: WorkerId, subjects: Subjects, max_module_bytes: u64, counts: CountRequests) -> Self {
        Self {
            worker,
            subjects,
            max_module_bytes,
            started: OffsetDateTime::now_utc(),
            counts,
            sealing_key: None,
        }
    }

    /// Tells callers what to seal secrets to.
    pub fn sealing_to(self, sealing_key: Option<String>) -> Self {
        Self { sealing_key, ..self }
    }

    /// Who answers.
    pub fn worker(&self) -> &WorkerId {
        &self.worker
    }

    /// Answers one question.
    pub fn answer(&self, question: Question) -> Reply {
        match question {
            Question::Ping => self.reply("io.nats.micro.v1.ping_response", Nothing {}),
            Question::Info => self.reply("io.nats.micro.v1.info_response", self.info()),
            Question::Stats => self.reply("io.nats.micro.v1.stats_response", self.stats()),
        }
    }

    fn reply(&self, kind: &'static str, more: impl Serialize) -> Reply {
        json_reply(&Answer {
            kind,
            name: SERVICE,
            id: &self.worker,
            version: env!("CARGO_PKG_VERSION"),
            metadata: self
                .sealing_key
                .clone()
                .map(|key| (SEALING_KEY, key))
                .into_iter()
                .collect(),
            more,
        })
    }

    fn info(&self) -> Info {
        let endpoints = EndpointName::ALL.into_iter().map(|endpoint| EndpointInfo {
            name: endpoint.as_str(),
            subject: endpoint.subject(&self.subjects),
            queue_group: QUEUE_GROUP,
            metadata: endpoint.metadata(self.max_module_bytes),
        });
        Info {
            description: DESCRIPTION,
            endpoints: endpoints.collect(),
        }
    }

    fn stats(&self) -> Stats {
        Stats {
            started: self.started,
            endpoints: EndpointName::ALL
                .into_iter()
                .map(|name| self.report(name))
                .collect(),
        }
    }

    fn report(&self, endpoint: EndpointName) -> EndpointReport {
        let counts = (self.counts)(endpoint);
        EndpointReport {
            name: endpoint.as_str(),
            subject: endpoint.subject(&self.subjects),
            queue_group: QUEUE_GROUP,
            num_requests: counts.requests,
            num_errors: counts.errors,
            last_error: counts.last_error,
            processing_time: counts.processing_ns,
            average_processing_time: counts.processing_ns.checked_div(counts.requests).unwrap_or(0),
            data: (),
        }
    }
}

#[cfg(test)]
#[path = "discovery_tests.rs"]
mod tests;
