//! The body of every failed reply. One shape on NATS, in HTTP problems and in the CLI.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error_code::{ErrorCode, GuestRan, Retry};
use crate::id::{InvalidName, JobId};

/// A failed reply: what went wrong and which request it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{error}")]
pub struct ErrorBody {
    /// What went wrong.
    pub error: Failure,
    /// The request's id, when it had got one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
}

/// What went wrong, for people and for programs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// The stable code.
    pub code: ErrorCode,
    /// One sentence for people; may change between releases.
    pub message: String,
    /// Whether sending the same request again can help.
    pub retryable: bool,
    /// Whether a guest may have run.
    pub guest_ran: bool,
    /// Facts for programs, by code.
    #[serde(default)]
    pub detail: Map<String, Value>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl ErrorBody {
    /// A failure with the promises of its code and no detail.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let error = Failure {
            code,
            message: message.into(),
            retryable: code.retry() != Retry::No,
            guest_ran: code.guest_ran() != GuestRan::No,
            detail: Map::new(),
        };
        Self { error, job_id: None }
    }

    /// Adds one fact for programs.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.error.detail.insert(key.into(), value.into());
        self
    }

    /// Says that no guest ran, where the code alone leaves it open.
    #[must_use]
    pub fn before_guest(mut self) -> Self {
        self.error.guest_ran = false;
        self
    }

    /// Names the request.
    #[must_use]
    pub fn for_job(mut self, job_id: JobId) -> Self {
        self.job_id = Some(job_id);
        self
    }

    /// The code.
    pub fn code(&self) -> ErrorCode {
        self.error.code
    }
}

impl From<InvalidName> for ErrorBody {
    fn from(invalid: InvalidName) -> Self {
        Self::new(ErrorCode::InvalidRequest, invalid.to_string())
    }
}
