//! Every answer that is not a success: an RFC 9457 problem document with the contract's code.
//!
//! Invariant: a [`Problem`] becomes a document in one place, [`Problem::render`], which alone knows the request's id.

use std::error::Error;
use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wess_schemas::error::Failure;
use wess_schemas::invocation::InvalidInvocation;
use wess_schemas::{ErrorBody, ErrorCode, JobId};

use crate::admission::{Reservation, held};

/// The media type of problem documents.
pub const PROBLEM_JSON: &str = "application/problem+json";
const TYPE_PREFIX: &str = "urn:wess:error:";
/// When to come back, where the failure itself does not say: rooms empty within a second or not soon.
const RETRY_AFTER_SECONDS: u64 = 1;

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProblemDocument {
    /// `urn:wess:error:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code in words; the same for every problem of one code.
    pub title: String,
    /// The HTTP status, as in the status line.
    pub status: u16,
    /// One sentence for people.
    pub detail: String,
    /// The stable code.
    pub code: ErrorCode,
    /// Whether sending the same request again can help.
    pub retryable: bool,
    /// Whether a guest may have run.
    pub guest_ran: bool,
    /// Facts for programs, by code.
    #[serde(default)]
    pub facts: Map<String, Value>,
    /// The invocation's id, when it had got one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// The HTTP request's id, as in `X-Request-Id`.
    pub request_id: String,
}

impl ProblemDocument {
    fn new(status: StatusCode, body: ErrorBody, request_id: &str) -> Self {
        let Failure {
            code,
            message,
            retryable,
            guest_ran,
            detail,
        } = body.error;
        Self {
            kind: format!("{TYPE_PREFIX}{code}"),
            title: code.as_str().replace('_', " "),
            status: status.as_u16(),
            detail: message,
            code,
            retryable,
            guest_ran,
            facts: detail,
            job_id: body.job_id,
            request_id: request_id.into(),
        }
    }
}

/// What a client over HTTP was told, in the form that a client over NATS is told it.
impl From<ProblemDocument> for ErrorBody {
    fn from(document: ProblemDocument) -> Self {
        let error = Failure {
            code: document.code,
            message: document.detail,
            retryable: document.retryable,
            guest_ran: document.guest_ran,
            detail: document.facts,
        };
        Self {
            error,
            job_id: document.job_id,
        }
    }
}

/// A failure on its way to the client, and what only the log is told.
#[derive(Debug, Clone)]
pub struct Problem(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    status: StatusCode,
    body: ErrorBody,
    headers: Vec<(HeaderName, HeaderValue)>,
    cause: Option<String>,
    room: Arc<Reservation>,
    leaves_unknown: bool,
}

impl Problem {
    /// A failure with the status and the promises of its code.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        ErrorBody::new(code, message).into()
    }

    /// The request is not well formed.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message)
    }

    /// For an error status that somebody else chose, such as the router for an unknown path.
    pub fn of_status(status: StatusCode) -> Self {
        let (code, message) = match status {
            StatusCode::NOT_FOUND => (ErrorCode::InvalidRequest, "there is nothing at this path"),
            StatusCode::METHOD_NOT_ALLOWED => {
                (ErrorCode::InvalidRequest, "this path does not take this method")
            }
            StatusCode::PAYLOAD_TOO_LARGE => (ErrorCode::PayloadTooLarge, "the body is too large"),
            status if status.is_client_error() => {
                (ErrorCode::InvalidRequest, "the request is not well formed")
            }
            _ => (ErrorCode::Internal, "the gateway failed"),
        };
        let mut problem = Self::new(code, message);
        problem.0.status = status;
        problem
    }

    /// Adds one fact for programs.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.body = self.0.body.with(key, value);
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Says that no guest ran, where the code alone leaves it open.
    #[must_use]
    pub fn before_guest(mut self) -> Self {
        self.0.body = self.0.body.before_guest();
        self
    }

    /// Tells the log, and only the log, what was behind it.
    #[must_use]
    pub fn because(mut self, cause: &(dyn Error + 'static)) -> Self {
        let causes = std::iter::successors(Some(cause), |error: &&(dyn Error + 'static)| (*error).source());
        self.0.cause = Some(causes.map(ToString::to_string).collect::<Vec<_>>().join(": "));
        self
    }

    /// Says that a worker may still be at it.
    #[must_use]
    pub fn leaving_unknown(mut self) -> Self {
        self.0.leaves_unknown = true;
        self
    }

    /// Whether a worker may still be at it.
    pub fn leaves_unknown(&self) -> bool {
        self.0.leaves_unknown
    }

    /// Keeps room for its facts until the last of its document is written.
    #[must_use]
    pub fn holding(mut self, room: Reservation) -> Self {
        self.0.room = Arc::new(room);
        self
    }

    /// What the client is told, and the room that it takes until the last of it is written.
    pub fn into_parts(self) -> (ErrorBody, Arc<Reservation>) {
        (self.0.body, self.0.room)
    }

    /// The code.
    pub fn code(&self) -> ErrorCode {
        self.0.body.code()
    }

    /// What is behind it, for the log.
    pub fn cause(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }

    /// The sentence for people.
    pub fn message(&self) -> &str {
        &self.0.body.error.message
    }

    /// The facts for programs.
    pub fn facts_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.0.body.error.detail
    }

    /// The document, as an answer. Headers of the answer that it replaces are the caller's to keep.
    pub fn render(self, request_id: &str) -> Response {
        let retry_after = self.retry_after();
        let Inner {
            status,
            body,
            headers,
            room,
            ..
        } = *self.0;
        // Strings and numbers have no way to fail at being written.
        let document =
            serde_json::to_vec(&ProblemDocument::new(status, body, request_id)).unwrap_or_default();
        let mut response = (status, held(document.into(), room)).into_response();
        let problem_json = HeaderValue::from_static(PROBLEM_JSON);
        response.headers_mut().insert(CONTENT_TYPE, problem_json);
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response.headers_mut().extend(headers);
        response
    }

    fn retry_after(&self) -> Option<u64> {
        let full = matches!(
            self.0.status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
        );
        let failure = &self.0.body.error;
        let told = failure.detail.get("retry_after_ms").and_then(Value::as_u64);
        (full && failure.retryable).then(|| told.map_or(RETRY_AFTER_SECONDS, |ms| ms.div_ceil(1000)))
    }
}

impl From<ErrorBody> for Problem {
    fn from(body: ErrorBody) -> Self {
        // Every published status is a valid one; a test goes through them.
        let status =
            StatusCode::from_u16(body.code().http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self(Box::new(Inner {
            status,
            body,
            headers: Vec::new(),
            cause: None,
            room: Arc::default(),
            leaves_unknown: false,
        }))
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::invalid(rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::invalid(rejection.body_text())
    }
}

impl From<InvalidInvocation> for Problem {
    fn from(invalid: InvalidInvocation) -> Self {
        Self::new(invalid.code(), invalid.to_string())
    }
}

/// An empty answer that carries the problem to where it is rendered.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.0.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_status_and_comes_back_as_it_was() {
        for code in ErrorCode::ALL {
            let body = ErrorBody::new(*code, "why")
                .with("fact", 1)
                .for_job("job".parse().unwrap());
            let problem = Problem::from(body.clone());
            assert_eq!(problem.0.status.as_u16(), code.http_status());
            let document = ProblemDocument::new(problem.0.status, body.clone(), "id");
            let json = serde_json::to_string(&document).unwrap();
            let read: ProblemDocument = serde_json::from_str(&json).unwrap();
            assert_eq!(ErrorBody::from(read), body);
        }
    }

    #[test]
    fn only_what_is_full_for_now_says_when_to_come_back() {
        let header = |problem: Problem| problem.render("id").headers().get(RETRY_AFTER).cloned();
        let limited = Problem::new(ErrorCode::RateLimited, "").with("retry_after_ms", 2500);
        assert_eq!(header(limited).unwrap(), "3");
        assert_eq!(header(Problem::new(ErrorCode::Overloaded, "")).unwrap(), "1");
        for code in [ErrorCode::Internal, ErrorCode::QuotaExceeded] {
            assert_eq!(header(Problem::new(code, "")), None, "{code}");
        }
    }

    #[test]
    fn the_cause_reaches_the_log_and_not_the_client() {
        let cause = std::io::Error::other("secret path");
        let problem = Problem::new(ErrorCode::Internal, "it failed").because(&cause);
        assert_eq!(problem.cause(), Some("secret path"));
        let document = ProblemDocument::new(problem.0.status, problem.0.body, "id");
        assert!(!serde_json::to_string(&document).unwrap().contains("secret"));
    }
}
