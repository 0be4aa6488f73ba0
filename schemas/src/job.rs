//! Durable jobs in their JSON forms: what is submitted, and the record of what became of it.

mod dead;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chain::{ChainOutcome, ChainRequest};
use crate::digest::Digest;
use crate::error::Failure;
use crate::id::{JobId, ModuleName, WorkerId};
use crate::invocation::Invocation;
use crate::module::Module;
use crate::outcome::Outcome;
use crate::reference::Reference;
use crate::store::StoreRequest;
use crate::timestamp::Timestamp;
pub use dead::{DeadLetter, DeadList, DeadListRequest, DeadPurgeRequest, DeadPurged, DeadReason};

/// Most attempts that a job may ask for.
pub const MAX_ATTEMPTS: u32 = 10;
/// Longest pause between two attempts, in milliseconds.
pub const MAX_BACKOFF_MS: u64 = 3_600_000;
/// Furthest in the future that a job may be put off, in milliseconds: 30 days.
pub const MAX_DELAY_MS: u64 = 30 * 24 * 3_600_000;
/// Longest id of a job with a schedule: each firing adds its number.
pub const MAX_CRON_ID_BYTES: usize = 40;
/// Longest wait for a job's end that one request may ask for, in milliseconds.
pub const MAX_JOB_WAIT_MS: u64 = 120_000;
/// How long a request waits for a job's end, unless told, in milliseconds.
pub const DEFAULT_JOB_WAIT_MS: u64 = 30_000;
/// Most jobs or dead letters in one page.
pub const MAX_JOBS_PAGE: u32 = 100;

/// The body of `wess.jobs.submit`: one of `invoke`, `chain` and `store`, and how to go about it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobRequest {
    /// The job's id and idempotency key: the same key with the same body is the same job. Left out, one is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// Run one guest. `wait_ms` has no meaning for a job and is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invoke: Option<Box<Invocation>>,
    /// Run several, one after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<ChainRequest>,
    /// Store a module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreRequest>,
    /// Whether a guest that fails is run again; left out, its first ending is the outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// Not before so many milliseconds from now; precise to the second. At most 30 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// Again and again: `@every 10m`, `@hourly`, or six fields from seconds to weekday, as NATS reads them. Each firing is
    /// a job of its own, `<job id>-<number>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// Where the fields of `cron` are read, as an IANA name; UTC unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// A subject that gets the record once the job has ended. Neither ours nor NATS's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// A URL that gets the record by POST once the job has ended, on a host that the operator allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
}

/// How often a guest may fail, and how long to pause before the next attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryPolicy {
    /// How many runs at most, the first one included; 1 to 10.
    #[schemars(range(min = 1, max = 10))]
    pub max_attempts: u32,
    /// The pause after each attempt, in milliseconds; the last one holds for all that follow. At most an hour each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub backoff_ms: Vec<u64>,
}

impl RetryPolicy {
    /// Checks its bounds.
    pub fn check(&self) -> Result<(), InvalidJob> {
        let bounded = (1..=MAX_ATTEMPTS).contains(&self.max_attempts)
            && self.backoff_ms.len() <= MAX_ATTEMPTS as usize
            && self.backoff_ms.iter().all(|pause| *pause <= MAX_BACKOFF_MS);
        match bounded {
            true => Ok(()),
            false => Err(InvalidJob::Retry),
        }
    }

    /// The pause after so many attempts, in milliseconds; a second unless told.
    pub fn backoff_ms(&self, attempts: u32) -> u64 {
        let at = (attempts.max(1) as usize - 1).min(self.backoff_ms.len().saturating_sub(1));
        self.backoff_ms.get(at).copied().unwrap_or(1000)
    }
}

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// Runs one guest.
    Invoke,
    /// Runs several.
    Chain,
    /// Stores a module.
    Store,
}

/// What is wrong with a job that parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJob {
    /// Not exactly one thing to do.
    #[error("a job has one of invoke, chain and store")]
    Kind,
    /// `wait_ms` in a call or a step.
    #[error("wait_ms is for calls that somebody waits for; a job waits for as long as it must")]
    Wait,
    /// A retry policy out of bounds.
    #[error(
        "retry has 1 to {MAX_ATTEMPTS} max_attempts and at most {MAX_ATTEMPTS} pauses of at most {MAX_BACKOFF_MS} ms"
    )]
    Retry,
    /// A delay out of bounds.
    #[error("delay_ms is {0}, but must be at most {MAX_DELAY_MS}")]
    Delay(u64),
    /// Both ways to put it off.
    #[error("delay_ms and cron exclude each other")]
    DelayAndCron,
    /// A zone for nothing.
    #[error("time_zone is for cron")]
    TimeZone,
    /// Not a schedule, or not one line.
    #[error("cron is no schedule: {0:?}")]
    Cron(String),
    /// An id that leaves no room for numbers.
    #[error("the id of a job with cron has at most {MAX_CRON_ID_BYTES} characters")]
    CronId,
    /// A subject that nobody may be told of.
    #[error("reply_to {0:?} is no subject that may be published to")]
    ReplyTo(String),
}

impl JobRequest {
    /// What it does; exactly one thing.
    pub fn kind(&self) -> Result<JobKind, InvalidJob> {
        match (&self.invoke, &self.chain, &self.store) {
            (Some(_), None, None) => Ok(JobKind::Invoke),
            (None, Some(_), None) => Ok(JobKind::Chain),
            (None, None, Some(_)) => Ok(JobKind::Store),
            _ => Err(InvalidJob::Kind),
        }
    }

    /// Checks every bound that needs neither a module nor a subject.
    pub fn check(&self) -> Result<JobKind, InvalidJob> {
        let kind = self.kind()?;
        let waits = self.invoke.as_ref().is_some_and(|call| call.wait_ms.is_some())
            || self.chain.as_ref().is_some_and(ChainRequest::waits);
        if waits {
            return Err(InvalidJob::Wait);
        }
        if let Some(retry) = &self.retry {
            retry.check()?;
        }
        self.check_schedule()?;
        Ok(kind)
    }

    fn check_schedule(&self) -> Result<(), InvalidJob> {
        match (&self.cron, self.delay_ms) {
            (Some(_), Some(_)) => Err(InvalidJob::DelayAndCron),
            (None, Some(delay)) if delay > MAX_DELAY_MS => Err(InvalidJob::Delay(delay)),
            (None, _) if self.time_zone.is_some() => Err(InvalidJob::TimeZone),
            (Some(cron), None) => self.check_cron(cron),
            (None, _) => Ok(()),
        }
    }

    fn check_cron(&self, cron: &str) -> Result<(), InvalidJob> {
        let one_line = |text: &str| {
            (1..=128).contains(&text.len()) && text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
        };
        // What starts with @at fires once: that is what delay_ms is for.
        if !one_line(cron)
            || cron.starts_with("@at")
            || self.time_zone.as_deref().is_some_and(|zone| !one_line(zone))
        {
            return Err(InvalidJob::Cron(cron.chars().take(200).collect()));
        }
        match &self.job_id {
            Some(id) if id.as_str().len() > MAX_CRON_ID_BYTES => Err(InvalidJob::CronId),
            _ => Ok(()),
        }
    }

    /// Which module it asks for, where that is one.
    pub fn module(&self) -> Option<Reference> {
        let called = self.invoke.as_ref().map(|call| call.module.clone());
        called.or_else(|| {
            self.store
                .as_ref()
                .map(|store| Reference::Latest(store.name.clone()))
        })
    }

    /// Whether it starts at once.
    pub fn is_immediate(&self) -> bool {
        self.cron.is_none() && self.delay_ms.unwrap_or(0) == 0
    }

    /// Whether it names somebody who is to be told of its end.
    pub fn names_a_listener(&self) -> bool {
        self.reply_to.is_some() || self.webhook.is_some()
    }
}

/// How far a job has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits for a worker, for its time, or for its next attempt.
    Queued,
    /// Its guest runs. Said only of runs past one second.
    Running,
    /// Ended as it should; a guest's exit code is its own answer.
    Succeeded,
    /// Ended with an error, which is its outcome.
    Failed,
    /// Was cancelled before it ended.
    Cancelled,
    /// Was given up, and waits among the dead letters.
    Dead,
}

impl JobState {
    /// Whether nothing more will happen, unless somebody redrives it.
    pub fn is_final(self) -> bool {
        match self {
            Self::Queued | Self::Running => false,
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::Dead => true,
        }
    }
}

/// What a job that succeeded gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum JobOutcome {
    /// Of one guest.
    Invoke(Box<Outcome>),
    /// Of several.
    Chain(ChainOutcome),
    /// Of a store.
    Store(Box<Module>),
}

/// A job's record: the reply to `wess.jobs.submit`, `.get`, `.wait` and `.cancel`, and what `wess.done.<job id>` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobRecord {
    /// Its id.
    pub job_id: JobId,
    /// How far it has come.
    pub state: JobState,
    /// What it does.
    pub kind: JobKind,
    /// Which module it asks for: that of a call, or the name of a store. Chains have several, and none here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<Reference>,
    /// SHA-256 of the request, by which a repeated submission is known.
    pub request_digest: Digest,
    /// When it was accepted, or, for what a schedule fired, when that was.
    pub submitted: Timestamp,
    /// When it is due, while it waits for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
    /// Its schedule, of which each firing is a job of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// When its last attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Timestamp>,
    /// How often a guest has ended for it.
    pub attempts: u32,
    /// Who runs it, or ran it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerId>,
    /// What it gave, once it has succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<JobOutcome>,
    /// Why it failed or was given up; between attempts, how the last one ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// The body of `wess.jobs.wait.<job id>`; may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobWaitRequest {
    /// How long to wait, in milliseconds, before the record is given as it is; 30 s unless told, at most 120 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The body of `wess.jobs.list`; may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobListRequest {
    /// Only jobs in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<JobState>,
    /// Only jobs that do this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<JobKind>,
    /// Only jobs that ask for this module, in whatever version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<ModuleName>,
    /// Only jobs after this one: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<JobId>,
    /// How many at most; 1 to 100, 100 unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub limit: Option<u32>,
}

/// The reply to `wess.jobs.list`, in the order of ids. Ids of ours are in the order of time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobList {
    /// The page. With a filter it may be short, or empty, before the last one.
    pub jobs: Vec<JobRecord>,
    /// What to ask as `after` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<JobId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(json: &str) -> JobRequest {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_job_does_exactly_one_thing() {
        assert_eq!(
            request(r#"{"invoke":{"module":"a"}}"#).check(),
            Ok(JobKind::Invoke)
        );
        assert_eq!(
            request(r#"{"chain":{"steps":["a"]}}"#).check(),
            Ok(JobKind::Chain)
        );
        assert_eq!(request(r#"{"store":{"name":"a"}}"#).check(), Ok(JobKind::Store));
        for none_or_two in ["{}", r#"{"invoke":{"module":"a"},"store":{"name":"a"}}"#] {
            assert_eq!(request(none_or_two).check(), Err(InvalidJob::Kind));
        }
    }

    #[test]
    fn every_bound_of_a_job_is_held_by_its_name() {
        let check = |more: &str| request(&format!(r#"{{"invoke":{{"module":"a"}},{more}}}"#)).check();
        let delay = MAX_DELAY_MS + 1;
        for (more, named) in [
            (r#""retry":{"max_attempts":0}"#, "retry"),
            (r#""retry":{"max_attempts":11}"#, "retry"),
            (r#""retry":{"max_attempts":2,"backoff_ms":[3600001]}"#, "retry"),
            (
                r#""retry":{"max_attempts":2,"backoff_ms":[1,1,1,1,1,1,1,1,1,1,1]}"#,
                "retry",
            ),
            (&*format!(r#""delay_ms":{delay}"#), "delay_ms"),
            (r#""delay_ms":1,"cron":"@hourly""#, "exclude"),
            (r#""time_zone":"Europe/Paris""#, "time_zone"),
            (r#""cron":"""#, "cron"),
            (r#""cron":"@at 2030-01-01T00:00:00Z""#, "cron"),
            (r#""cron":"@hourly\r\nNats-Rollup: all""#, "cron"),
            (r#""cron":"@hourly","time_zone":"a\nb""#, "cron"),
            (
                r#""cron":"@hourly","job_id":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa""#,
                "id of a job with cron",
            ),
        ] {
            let refused = check(more).expect_err(more).to_string();
            assert!(refused.contains(named), "{more}: {refused}");
        }
        for good in [
            r#""retry":{"max_attempts":10,"backoff_ms":[3600000]}"#,
            r#""cron":"@hourly","time_zone":"Europe/Paris""#,
            r#""delay_ms":2592000000"#,
        ] {
            assert!(check(good).is_ok(), "{good}");
        }
        let waits = [
            r#"{"invoke":{"module":"a","wait_ms":1}}"#,
            r#"{"chain":{"steps":[{"module":"a","wait_ms":1}]}}"#,
        ];
        for waits in waits {
            assert_eq!(request(waits).check(), Err(InvalidJob::Wait));
        }
    }

    #[test]
    fn the_last_pause_holds_for_all_that_follow() {
        let policy = |backoff_ms: &[u64]| RetryPolicy {
            max_attempts: 10,
            backoff_ms: backoff_ms.to_vec(),
        };
        let pauses = |policy: &RetryPolicy| [1, 2, 3, 9].map(|attempts| policy.backoff_ms(attempts));
        assert_eq!(pauses(&policy(&[1, 5])), [1, 5, 5, 5]);
        assert_eq!(pauses(&policy(&[])), [1000; 4]);
    }
}
