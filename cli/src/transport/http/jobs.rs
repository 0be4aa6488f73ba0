//! Jobs over HTTP.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use serde::Serialize;
use wess_schemas::JobId;
use wess_schemas::job::{
    DeadLetter, DeadList, DeadListRequest, DeadPurgeRequest, DeadPurged, JobList, JobListRequest, JobRecord,
    JobRequest,
};

use super::{Http, payload};
use crate::args::millis;
use crate::transport::{Answer, Jobs};

/// A word of the contract, as it stands in JSON.
fn word(word: Option<impl Serialize>) -> Option<String> {
    let json = serde_json::to_value(word?).ok()?;
    json.as_str().map(Into::into)
}

impl Jobs for Http {
    fn submit(&self, job: JobRequest, input: Option<Bytes>) -> Answer<'_, JobRecord> {
        let job = match input {
            Some(input) => payload(Some(input)).into_job(job),
            None => job,
        };
        Box::pin(self.ask(self.request(Method::POST, &["jobs"]).json(&job)))
    }

    fn job(&self, job_id: JobId) -> Answer<'_, JobRecord> {
        Box::pin(self.ask(self.request(Method::GET, &["jobs", job_id.as_str()])))
    }

    fn wait_job(&self, job_id: JobId, timeout: Duration) -> Answer<'_, JobRecord> {
        let query = [("timeout_ms", Some(millis(timeout).to_string()))];
        Box::pin(self.ask(self.request_with(Method::GET, &["jobs", job_id.as_str(), "wait"], &query)))
    }

    fn cancel(&self, job_id: JobId) -> Answer<'_, JobRecord> {
        Box::pin(self.ask(self.request(Method::DELETE, &["jobs", job_id.as_str()])))
    }

    fn jobs(&self, request: JobListRequest) -> Answer<'_, JobList> {
        let query = [
            ("state", word(request.state)),
            ("kind", word(request.kind)),
            ("module", word(request.module)),
            ("after", word(request.after)),
            ("limit", request.limit.map(|limit| limit.to_string())),
        ];
        Box::pin(self.ask(self.request_with(Method::GET, &["jobs"], &query)))
    }

    fn dead_letters(&self, request: DeadListRequest) -> Answer<'_, DeadList> {
        let query = [
            ("after", word(request.after)),
            ("limit", request.limit.map(|limit| limit.to_string())),
        ];
        Box::pin(self.ask(self.request_with(Method::GET, &["dead"], &query)))
    }

    fn dead_letter(&self, job_id: JobId) -> Answer<'_, DeadLetter> {
        Box::pin(self.ask(self.request(Method::GET, &["dead", job_id.as_str()])))
    }

    fn redrive(&self, job_id: JobId) -> Answer<'_, JobRecord> {
        Box::pin(self.ask(self.request(Method::POST, &["dead", job_id.as_str(), "redrive"])))
    }

    fn purge(&self, request: DeadPurgeRequest) -> Answer<'_, DeadPurged> {
        let request = match &request.job_id {
            Some(job_id) => self.request(Method::DELETE, &["dead", job_id.as_str()]),
            None => self.request_with(
                Method::DELETE,
                &["dead"],
                &[("all", Some(request.all.to_string()))],
            ),
        };
        Box::pin(self.ask(request))
    }
}
