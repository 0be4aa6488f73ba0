//! Whoever wants to know that a job has ended: `wess.done.<job id>`, the subject and the URL that the job names.
//!
//! Told at least once, after the record is stored and before the job leaves the queue. What cannot be told is logged and
//! counted; the record says the same.

use async_nats::Client;
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use wess_schemas::job::{JobRecord, JobRequest};
use wess_schemas::subject::Subjects;

use super::webhook::Webhooks;

/// Tells of endings.
pub struct Teller {
    /// Where subjects are.
    pub client: Client,
    /// Which subjects are ours.
    pub subjects: Subjects,
    /// The way to URLs.
    pub webhooks: Webhooks,
}

impl Teller {
    /// Waits for room for what telling may take long: a webhook, of which only so many are under way.
    pub async fn room(&self, request: &JobRequest) -> Option<OwnedSemaphorePermit> {
        match &request.webhook {
            Some(_) => self.webhooks.room().await,
            None => None,
        }
    }

    /// Tells everybody whom the request names, and the job's own subject.
    pub async fn tell(&self, request: &JobRequest, record: &JobRecord) {
        // A record always serializes: it was stored as JSON.
        let body = Bytes::from(serde_json::to_vec(record).unwrap_or_default());
        self.publish(self.subjects.done(&record.job_id), body.clone())
            .await;
        // Checked when it was submitted; a message in the queue may be older than the rule.
        if let Some(subject) = request
            .reply_to
            .clone()
            .filter(|subject| self.subjects.may_reply_to(subject))
        {
            self.publish(subject, body.clone()).await;
        }
        if let Some(url) = &request.webhook {
            self.webhooks.post(url, &record.job_id, body).await;
        }
    }

    async fn publish(&self, subject: String, body: Bytes) {
        if let Err(error) = self.client.publish(subject, body).await {
            tracing::warn!(%error, "the end of a job was not published");
        }
    }
}
