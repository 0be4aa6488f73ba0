//! Calling modules: an Invocation in JSON, or raw bytes in and out with the facts in headers.

use std::sync::Arc;

use async_nats::HeaderMap as Facts;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderMap, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use wess_schemas::header::{self, CallHeaders};
use wess_schemas::id::InvalidName;
use wess_schemas::invocation::check_wait;
use wess_schemas::payload::PayloadRef;
use wess_schemas::reference::FunctionName;
use wess_schemas::subject::Endpoint;
use wess_schemas::{JobId, Reference};
use wess_service::bus::Reply;
use wess_service::trace_context::TraceParent;

use crate::admission::Room;
use crate::app::App;
use crate::bodies;
use crate::calls::{Body as _, Call};
use crate::config::Bounds;
use crate::extract::{InPath, Trace};
use crate::large::Uploaded;
use crate::problem::Problem;
use crate::workers::{Question, unreadable};

/// The HTTP name of the idempotency key.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// What a caller may bound by headers, which go on to the worker.
pub(super) const BOUNDS: [&str; 4] = [
    header::TIMEOUT_MS,
    header::WAIT_MS,
    header::FUEL,
    header::MEMORY_MB,
];
/// What a caller asks for of Wess, and what of a worker's headers goes back to it, begins so.
const OUR_PREFIX: &str = "wess-";

/// `POST /v1/invoke`
pub async fn invocation(
    State(app): State<Arc<App>>,
    _room: Room,
    Trace(trace): Trace,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (key, limit) = (idempotency_key(&headers)?, Bounds::JSON_BYTES);
    let body = bodies::read(&app.admission, body, limit, app.bounds.body_timeout).await?;
    let call: Call<'_> = bodies::json(&body)?;
    let patience = call.patience(&app.workers);
    let (payload, uploaded) = app.fitted(&body, call).await?;
    drop(body);
    let question = Question::call(Endpoint::Invoke, payload, patience, trace);
    let reply = app.workers.ask(question.with_key(key)).await;
    app.stores.settle(uploaded, &reply).await;
    app.answer_outcome(reply?.payload).await
}

/// `POST /v1/modules/{ref}/invoke`
pub async fn module(
    State(app): State<Arc<App>>,
    _room: Room,
    Trace(trace): Trace,
    InPath(reference): InPath<Reference>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    raw(&app, Endpoint::InvokeRaw(reference, None), headers, body, trace).await
}

/// `POST /v1/modules/{ref}/invoke/{function}`
pub async fn function(
    State(app): State<Arc<App>>,
    _room: Room,
    Trace(trace): Trace,
    InPath((reference, function)): InPath<(Reference, FunctionName)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    if !function.is_subject_safe() {
        return Err(Problem::invalid(format!(
            "{:?} cannot be called raw: use /v1/invoke",
            function.as_str()
        )));
    }
    raw(
        &app,
        Endpoint::InvokeRaw(reference, Some(function)),
        headers,
        body,
        trace,
    )
    .await
}

async fn raw(
    app: &App,
    endpoint: Endpoint,
    headers: HeaderMap,
    body: Body,
    trace: TraceParent,
) -> Result<Response, Problem> {
    let (asked, key) = (asked(&headers)?, idempotency_key(&headers)?);
    let mut passed = passed_on(&headers, &BOUNDS)?;
    // Whatever it is, it asks for all of them.
    passed.extend(headers.get(header::FACTS).map(|_| (header::FACTS, "all")));
    let patience = app.workers.call_patience(asked.wait_ms, asked.limits.timeout_ms);
    let input = bodies::read(&app.admission, body, Bounds::INPUT_BYTES, app.bounds.body_timeout).await?;
    let large = input.len() > app.workers.inline_bytes();
    let uploaded = if large {
        Some(app.stores.upload_bytes(&input).await?)
    } else {
        None
    };
    let question = match &uploaded {
        None => Question::call(endpoint, input, patience, trace),
        Some(Uploaded { reference, .. }) => Question::call(endpoint, Bytes::new(), patience, trace)
            .with_header(header::INPUT_REF, &in_header(reference)?),
    };
    let with_header = |question: Question, (name, text)| question.with_header(name, text);
    let question = passed.into_iter().fold(question.with_key(key), with_header);
    let reply = app.workers.ask(question).await;
    app.stores.settle(uploaded, &reply).await;
    answer(app, reply?).await
}

/// What the headers ask for, checked here so that a wrong one costs no hop.
pub(super) fn asked(headers: &HeaderMap) -> Result<CallHeaders, Problem> {
    if !names_ours(headers) {
        return Ok(CallHeaders::default());
    }
    let asked = CallHeaders::read(|name| match name {
        // Told by another name over HTTP, and by no name at all: clients there have no way to upload.
        header::MSG_ID | header::INPUT_REF => None,
        name => headers.get(name).and_then(|value| value.to_str().ok()),
    });
    let asked = asked.map_err(|invalid| Problem::invalid(invalid.to_string()))?;
    check_wait(asked.wait_ms)?;
    Ok(asked)
}

/// Whether any header is Wess's. Most calls have none, and need not have each looked up by its name.
fn names_ours(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with(OUR_PREFIX))
}

/// Those headers that are among `names`.
pub(super) fn passed_on<'a>(
    headers: &'a HeaderMap,
    names: &[&'static str],
) -> Result<Vec<(&'static str, &'a str)>, Problem> {
    if !names_ours(headers) {
        return Ok(Vec::new());
    }
    let given = names.iter().filter_map(|name| Some((*name, headers.get(*name)?)));
    let texts = given.map(|(name, value)| match value.to_str() {
        Ok(text) => Ok((name, text)),
        Err(_) => Err(Problem::invalid(format!("header {name} is not ASCII text"))),
    });
    texts.collect()
}

/// The caller's idempotency key.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<JobId>, Problem> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let key = key.to_str().unwrap_or_default().parse();
    key.map(Some)
        .map_err(|invalid: InvalidName| Problem::invalid(format!("header Idempotency-Key: {invalid}")))
}

/// A reference as the value of a header.
pub fn in_header(reference: &PayloadRef) -> Result<String, Problem> {
    serde_json::to_string(reference).map_err(|error| unreadable(&error))
}

async fn answer(app: &App, reply: Reply) -> Result<Response, Problem> {
    let output = match reply.headers.get(header::OUTPUT_REF) {
        None => app.with_room(reply.payload).await?,
        Some(reference) => {
            let reference = serde_json::from_str(reference.as_str()).map_err(|error| unreadable(&error))?;
            app.stores.take_output(&app.admission, &reference).await?
        }
    };
    Ok((facts(&reply.headers), output).into_response())
}

/// The media type is the worker's word, else that of plain bytes: a browser shall take it for that and guess nothing of
/// what a stranger's guest gave.
fn facts(reply: &Facts) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    for (name, values) in reply.iter() {
        let name = HeaderName::from_bytes(name.as_ref());
        let value = values.first().map(|value| HeaderValue::try_from(value.as_str()));
        if let (Ok(name), Some(Ok(value))) = (name, value)
            && is_fact(&name)
        {
            headers.insert(name, value);
        }
    }
    headers
}

fn is_fact(name: &HeaderName) -> bool {
    let ours =
        name.as_str().starts_with(OUR_PREFIX) && !name.as_str().eq_ignore_ascii_case(header::OUTPUT_REF);
    ours || name == CONTENT_TYPE
}
