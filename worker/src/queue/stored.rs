//! A job as it lies in `WESS_JOBS`: the request, and in headers what is known of it besides.
//!
//! A request is known again by its digest, in which an uploaded payload counts by its bytes and not by its object's name.

use async_nats::HeaderMap;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use wess_schemas::header::REQUEST_DIGEST;
use wess_schemas::job::{JobKind, JobRecord, JobRequest, JobState};
use wess_schemas::payload::{PayloadBucket, PayloadRef};
use wess_schemas::timestamp::Timestamp;
use wess_schemas::{Digest, ErrorBody, JobId};
use wess_service::trace_context::TraceParent;

use super::bad_request;
use crate::bindings::origin::Origin;

/// A job out of the queue, or on its way into it.
#[derive(Debug, Clone)]
pub struct QueuedJob {
    /// Its id.
    pub job_id: JobId,
    /// What it does.
    pub kind: JobKind,
    /// What was submitted.
    pub request: JobRequest,
    /// By which a repeated submission is known.
    pub digest: Digest,
    /// When the stream got it.
    pub submitted: Timestamp,
    /// Which trace it belongs to.
    pub trace: Option<TraceParent>,
    /// Whose message it was, when it is one of a binding's that was given up and is redriven.
    pub origin: Option<Origin>,
}

impl QueuedJob {
    /// Reads a message of the queue.
    pub fn read(
        job_id: JobId,
        headers: Option<&HeaderMap>,
        payload: &[u8],
        submitted: Timestamp,
    ) -> Result<Self, ErrorBody> {
        let request: JobRequest = serde_json::from_slice(payload).map_err(bad_request)?;
        let kind = request.kind().map_err(bad_request)?;
        let said = headers.and_then(|headers| headers.get(REQUEST_DIGEST));
        let digest = said.and_then(|digest| digest.as_str().parse().ok());
        Ok(Self {
            job_id,
            kind,
            digest: digest.unwrap_or_else(|| digest_of(&request)),
            request,
            submitted,
            trace: headers.and_then(TraceParent::of),
            origin: headers.and_then(Origin::read),
        })
    }

    /// Its message.
    pub fn message(&self) -> (HeaderMap, Bytes) {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_DIGEST, self.digest.to_string());
        if let Some(trace) = self.trace {
            trace.write(&mut headers);
        }
        if let Some(origin) = &self.origin {
            origin.write(&mut headers);
        }
        (headers, canonical(&self.request))
    }

    /// Its record while nothing has come of it yet.
    pub fn record(&self) -> JobRecord {
        JobRecord {
            job_id: self.job_id.clone(),
            state: JobState::Queued,
            kind: self.kind,
            module: self.request.module(),
            request_digest: self.digest,
            submitted: self.submitted,
            due: None,
            cron: self.request.cron.clone(),
            started: None,
            finished: None,
            attempts: 0,
            worker: None,
            outcome: None,
            error: None,
        }
    }
}

/// By which a request is known again.
pub fn digest_of(request: &JobRequest) -> Digest {
    let mut request = request.clone();
    for payload in payloads(&mut request) {
        payload.object.clear();
        payload.bucket = PayloadBucket::default();
    }
    if let Some(store) = &mut request.store
        && let Some(object) = &mut store.object
    {
        object.clear();
    }
    Digest::from_bytes(Sha256::digest(canonical(&request)).into())
}

/// Every reference to a payload that a guest gets.
pub fn payloads(request: &mut JobRequest) -> impl Iterator<Item = &mut PayloadRef> {
    let of_call = request.invoke.as_mut().and_then(|call| call.input_ref.as_mut());
    let of_chain = request.chain.as_mut().and_then(|chain| chain.input_ref.as_mut());
    of_call.into_iter().chain(of_chain)
}

/// A request always serializes: it was read from JSON.
fn canonical(request: &JobRequest) -> Bytes {
    serde_json::to_vec(request).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(object: &str, size: u64) -> JobRequest {
        let digest = Digest::from_bytes([7; 32]);
        serde_json::from_value(serde_json::json!({
            "invoke": {"module": "upper", "input_ref": {"object": object, "digest": digest, "size": size}}
        }))
        .unwrap()
    }

    #[test]
    fn a_request_is_known_by_its_bytes_wherever_they_were_uploaded() {
        assert_eq!(digest_of(&request("a", 1)), digest_of(&request("b", 1)));
        assert_ne!(digest_of(&request("a", 1)), digest_of(&request("a", 2)));
    }

    #[test]
    fn a_job_comes_back_from_its_message_as_it_was() {
        let request = request("a", 1);
        let job = QueuedJob {
            job_id: "order-7".parse().unwrap(),
            kind: JobKind::Invoke,
            digest: digest_of(&request),
            request,
            submitted: Timestamp::now(),
            trace: Some(TraceParent::generate()),
            origin: Some(Origin {
                binding: "orders".parse().unwrap(),
                publish_to: Some("done".into()),
                hops: 1,
            }),
        };
        let (headers, payload) = job.message();
        let read = QueuedJob::read(job.job_id.clone(), Some(&headers), &payload, job.submitted).unwrap();
        assert_eq!(
            (read.digest, read.trace, &read.request, &read.origin),
            (job.digest, job.trace, &job.request, &job.origin)
        );
        assert_eq!(read.record(), job.record());
        let bare = QueuedJob::read(job.job_id.clone(), None, &payload, job.submitted).unwrap();
        assert_eq!(bare.digest, job.digest);
        assert!(QueuedJob::read(job.job_id, None, b"{}", job.submitted).is_err());
    }
}
