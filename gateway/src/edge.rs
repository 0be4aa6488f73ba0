//! What happens to every request, whatever its route: its id, its place in a trace, its counting, its log line.
//!
//! Invariant: no answer of ours leaves here as an error without being a problem document, panics included.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{ALLOW, HeaderMap};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use uuid::Uuid;
use wess_schemas::ErrorCode;
use wess_schemas::header::TRACEPARENT;
use wess_service::trace_context::TraceParent;

use crate::app::App;
use crate::auth::Caller;
use crate::extract::Trace;
use crate::hosts::Hosted;
use crate::linger::lingering;
use crate::problem::Problem;

/// Names a request: taken from the client when it is one line of sane length, else made here. Always answered.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MAX_REQUEST_ID_BYTES: usize = 128;
/// The route label of requests for paths that are not ours.
const NO_ROUTE: &str = "none";
/// That of requests to the hosts of modules.
const HOST_ROUTE: &str = "host";

/// Marks an answer of a guest, which is passed on whatever its status is.
#[derive(Debug, Clone, Copy)]
pub struct FromGuest;

/// Wraps every route.
pub async fn edge(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let (matched, hosted) = (
        request.extensions().get::<MatchedPath>(),
        request.extensions().get::<Hosted>(),
    );
    let other = hosted.map_or(NO_ROUTE, |_| HOST_ROUTE);
    let route = matched.map_or(other, MatchedPath::as_str);
    let mut measured = app.metrics.request(route, request.method());
    let told = Told::of(&request, route);
    request.extensions_mut().insert(Trace(told.trace));

    let request = lingering(request, &app.lifecycle);
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let answer =
        answer.unwrap_or_else(|_| Problem::new(ErrorCode::Internal, "the gateway failed").into_response());

    let elapsed = measured.answered(answer.status());
    told.finish(answer, elapsed)
}

/// What is known of a request when its answer is there.
struct Told {
    id: HeaderValue,
    trace: TraceParent,
    method: Method,
    route: String,
}

impl Told {
    fn of(request: &Request, route: &str) -> Self {
        Self {
            id: request_id(request.headers()),
            trace: trace(request.headers()),
            method: request.method().clone(),
            route: route.into(),
        }
    }

    fn finish(&self, mut answer: Response, elapsed: Duration) -> Response {
        let caller = answer.extensions_mut().remove::<Caller>();
        let is_guests = answer.extensions_mut().remove::<FromGuest>().is_some();
        let failed = answer.status().is_client_error() || answer.status().is_server_error();
        if failed && !is_guests {
            answer = self.refuse(answer, caller.as_ref(), elapsed);
        } else {
            self.log_success(&answer, caller.as_ref(), elapsed);
        }
        answer.headers_mut().insert(REQUEST_ID, self.id.clone());
        answer
    }

    /// Makes the document, out of the problem that a handler gave or of the bare status that the router did.
    fn refuse(&self, mut answer: Response, caller: Option<&Caller>, elapsed: Duration) -> Response {
        let status = answer.status();
        let problem = answer
            .extensions_mut()
            .remove()
            .unwrap_or_else(|| Problem::of_status(status));
        self.log_failure(&problem, caller, elapsed);
        let mut document = problem.render(self.id());
        if let Some(allow) = answer.headers_mut().remove(ALLOW) {
            document.headers_mut().insert(ALLOW, allow);
        }
        document
    }

    fn id(&self) -> &str {
        self.id.to_str().unwrap_or_default()
    }

    fn log_success(&self, answer: &Response, caller: Option<&Caller>, elapsed: Duration) {
        tracing::debug!(
            request_id = self.id(), trace_id = self.trace.trace_id(), method = %self.method, route = self.route,
            status = answer.status().as_u16(), caller = caller.map(Caller::name), elapsed_us = micros(elapsed),
            "answered"
        );
    }

    /// Faults of ours are warnings; what a client or a guest did wrong is not.
    fn log_failure(&self, problem: &Problem, caller: Option<&Caller>, elapsed: Duration) {
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    request_id = self.id(), trace_id = self.trace.trace_id(), method = %self.method,
                    route = self.route, code = %problem.code(), caller = caller.map(Caller::name),
                    elapsed_us = micros(elapsed), cause = problem.cause(), "{}", problem.message()
                )
            };
        }
        match problem.code() {
            ErrorCode::Internal | ErrorCode::Unavailable => log!(warn),
            _ => log!(info),
        }
    }
}

fn micros(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

fn request_id(headers: &HeaderMap) -> HeaderValue {
    let sane = |id: &&HeaderValue| {
        let allowed = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(b);
        (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(allowed)
    };
    headers
        .get(REQUEST_ID)
        .filter(sane)
        .cloned()
        .unwrap_or_else(fresh_id)
}

fn fresh_id() -> HeaderValue {
    let mut text = [0; uuid::fmt::Simple::LENGTH];
    let text = Uuid::now_v7().simple().encode_lower(&mut text);
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("none"))
}

fn trace(headers: &HeaderMap) -> TraceParent {
    let caller = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok());
    let caller = caller.and_then(|text| text.parse::<TraceParent>().ok());
    caller.map_or_else(TraceParent::generate, TraceParent::child)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_id(id: &[u8]) -> HeaderMap {
        HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_bytes(id).unwrap())])
    }

    #[test]
    fn a_sane_request_id_is_kept_and_any_other_replaced() {
        for kept in ["a", "01J-x_y.z:1/2+3=", &"a".repeat(MAX_REQUEST_ID_BYTES)] {
            assert_eq!(request_id(&with_id(kept.as_bytes())), kept);
        }
        let long = "a".repeat(MAX_REQUEST_ID_BYTES + 1);
        for bad in [&b""[..], b"a b", b"a\tb", b"\xff", b"<script>", long.as_bytes()] {
            let replaced = request_id(&with_id(bad));
            assert_eq!(replaced.len(), 32, "{replaced:?}");
        }
    }

    #[test]
    fn a_callers_trace_goes_on_and_nonsense_begins_a_new_one() {
        let given: TraceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
            .parse()
            .unwrap();
        let name = HeaderName::from_static(TRACEPARENT);
        let headers =
            HeaderMap::from_iter([(name.clone(), HeaderValue::from_str(&given.to_string()).unwrap())]);
        let ours = trace(&headers);
        assert_eq!(ours.trace_id(), given.trace_id());
        assert_ne!(ours, given);
        let nonsense = HeaderMap::from_iter([(name, HeaderValue::from_static("00-x"))]);
        assert_ne!(trace(&nonsense).trace_id(), given.trace_id());
    }
}
