//! The names of the queue: streams, consumers, buckets, and the subjects under `wess.queue`, which only workers and
//! gateways may publish to.

use std::str::FromStr;

use super::{InvalidSubject, Prefix, Subjects};
use crate::id::{JobId, Tenant};

/// Stream of submitted jobs, until they are settled.
pub const JOBS_STREAM: &str = "WESS_JOBS";
/// Stream, in memory, of synchronous calls that found no slot or no worker.
pub const CALLS_STREAM: &str = "WESS_CALLS";
/// Stream of schedules, and of what they fired.
pub const TIMERS_STREAM: &str = "WESS_TIMERS";
/// Stream of dead letters, and of the advisories that name jobs which were delivered too often.
pub const DEAD_STREAM: &str = "WESS_DEAD";
/// Durable consumer of [`JOBS_STREAM`].
pub const JOBS_CONSUMER: &str = "wess-jobs";
/// Durable consumer of [`CALLS_STREAM`].
pub const CALLS_CONSUMER: &str = "wess-calls";
/// Durable consumer of what fired in [`TIMERS_STREAM`].
pub const TIMERS_CONSUMER: &str = "wess-timers";
/// Durable consumer of the advisories in [`DEAD_STREAM`].
pub const SWEEP_CONSUMER: &str = "wess-sweep";
/// KV bucket of job records.
pub const RESULTS_BUCKET: &str = "wess-results";
/// Object store of jobs' large payloads.
pub const JOB_PAYLOADS_BUCKET: &str = "wess-job-payloads";

/// The key of a job's record in [`RESULTS_BUCKET`].
pub fn result_key(tenant: &Tenant, job_id: &JobId) -> String {
    format!("{tenant}.{job_id}")
}

/// What a message under `wess.queue` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// A submitted job.
    Jobs,
    /// A synchronous call that waits.
    Calls,
    /// A schedule.
    At,
    /// What a schedule fired.
    Fired,
    /// A dead letter.
    Dead,
}

impl Queue {
    const ALL: [Self; 5] = [Self::Jobs, Self::Calls, Self::At, Self::Fired, Self::Dead];

    fn token(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Calls => "calls",
            Self::At => "at",
            Self::Fired => "fired",
            Self::Dead => "dead",
        }
    }
}

impl Subjects {
    /// The name of a stream of ours: as it is under the prefix `wess`, else with the prefix behind it, so that each has its
    /// own.
    pub fn stream(&self, stream: &str) -> String {
        match self.prefix == Prefix::default() {
            true => stream.into(),
            false => format!("{stream}_{}", self.prefix),
        }
    }

    /// Where NATS says that a job was delivered as often as it may be.
    pub fn max_deliveries_advisory(&self) -> String {
        let jobs = self.stream(JOBS_STREAM);
        format!("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{jobs}.{JOBS_CONSUMER}")
    }

    /// The subject of one message of a queue.
    pub fn queued(&self, queue: Queue, tenant: &Tenant, job_id: &JobId) -> String {
        format!("{}.queue.{}.{tenant}.{job_id}", self.prefix, queue.token())
    }

    /// Every message of a queue.
    pub fn queue_wildcard(&self, queue: Queue) -> String {
        format!("{}.queue.{}.>", self.prefix, queue.token())
    }

    /// A tenant's messages of a queue.
    pub fn queue_of(&self, queue: Queue, tenant: &Tenant) -> String {
        format!("{}.queue.{}.{tenant}.*", self.prefix, queue.token())
    }

    /// Which message of which queue a subject names.
    pub fn parse_queued(&self, subject: &str) -> Result<(Queue, Tenant, JobId), InvalidSubject> {
        let unknown = || InvalidSubject::Unknown(subject.chars().take(200).collect());
        let mut tokens = subject.split('.');
        if tokens.next() != Some(&*self.prefix.0) || tokens.next() != Some("queue") {
            return Err(unknown());
        }
        let queue = tokens.next().ok_or_else(unknown)?;
        let queue = Queue::ALL
            .into_iter()
            .find(|known| known.token() == queue)
            .ok_or_else(unknown)?;
        match (tokens.next(), tokens.next(), tokens.next()) {
            (Some(tenant), Some(job_id), None) => {
                Ok((queue, Tenant::from_str(tenant)?, JobId::from_str(job_id)?))
            }
            _ => Err(unknown()),
        }
    }

    /// Where it is said that a job has ended.
    pub fn done(&self, job_id: &JobId) -> String {
        format!("{}.done.{job_id}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_queued_subject_parses_back() {
        let (subjects, tenant, job_id) = (Subjects::default(), Tenant::default(), JobId::generate());
        for queue in Queue::ALL {
            let subject = subjects.queued(queue, &tenant, &job_id);
            assert_eq!(
                subjects.parse_queued(&subject).unwrap(),
                (queue, tenant.clone(), job_id.clone())
            );
        }
    }

    #[test]
    fn each_prefix_has_streams_of_its_own() {
        let other = Subjects::new("fn".parse().unwrap());
        assert_eq!(Subjects::default().stream(JOBS_STREAM), "WESS_JOBS");
        assert_eq!(other.stream(JOBS_STREAM), "WESS_JOBS_fn");
        assert!(
            other
                .max_deliveries_advisory()
                .ends_with(".WESS_JOBS_fn.wess-jobs")
        );
    }

    proptest! {
        #[test]
        fn no_subject_makes_the_parser_panic(subject in "wess\\.queue\\.(jobs|at|x)(\\.\\PC{0,20}){0,4}|\\PC{0,40}") {
            let subjects = Subjects::default();
            if let Ok((queue, tenant, job_id)) = subjects.parse_queued(&subject) {
                prop_assert_eq!(subjects.queued(queue, &tenant, &job_id), subject);
            }
        }
    }
}
