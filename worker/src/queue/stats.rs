//! What is counted of jobs.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use wess_schemas::job::JobState;

/// Counters of one worker. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct JobStats {
    ended: Family<[(&'static str, &'static str); 1], Counter>,
    /// Attempts after which another one follows.
    pub retried: Counter,
    /// Jobs that had ended elsewhere when they were handed to us, or while we had them.
    pub adopted: Counter,
    /// Jobs handed back because the worker stopped.
    pub handed_back: Counter,
    /// Jobs given up by the sweep.
    pub swept: Counter,
}

impl JobStats {
    /// A job has ended.
    pub fn ended(&self, state: JobState) {
        self.ended.get_or_create(&[("state", name(state))]).inc();
    }

    /// Shows them to scrapes of `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("jobs_ended", "Jobs by how they ended", self.ended.clone());
        registry.register(
            "jobs_retried",
            "Attempts of jobs after which another one follows",
            self.retried.clone(),
        );
        registry.register(
            "jobs_adopted",
            "Jobs whose ending another worker had stored",
            self.adopted.clone(),
        );
        registry.register(
            "jobs_handed_back",
            "Jobs handed back by a worker that stopped",
            self.handed_back.clone(),
        );
        registry.register(
            "jobs_swept",
            "Jobs given up because they were delivered too often",
            self.swept.clone(),
        );
    }
}

fn name(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Succeeded => "succeeded",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
        JobState::Dead => "dead",
    }
}
