//! Calling modules one after the other. What is large travels by reference, in every step.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use wess_schemas::chain::{ChainRequest, ChainStep};
use wess_schemas::invocation::take_input;
use wess_schemas::limits::MAX_CHAIN_STEPS;
use wess_schemas::subject::Endpoint;

use crate::admission::Room;
use crate::app::App;
use crate::bodies;
use crate::config::Bounds;
use crate::extract::Trace;
use crate::large::Uploaded;
use crate::problem::Problem;
use crate::routes::invoke::idempotency_key;
use crate::routes::json_answer;
use crate::workers::{Question, Workers, json};

/// `POST /v1/chain`
pub async fn chain(
    State(app): State<Arc<App>>,
    _room: Room,
    Trace(trace): Trace,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (key, limit) = (idempotency_key(&headers)?, Bounds::JSON_BYTES);
    let (request, bytes) =
        bodies::read_json::<ChainRequest>(&app.admission, body, limit, app.bounds.body_timeout).await?;
    let patience = patience(&app.workers, &request);
    let (payload, uploaded) = fitted(&app, request, bytes).await?;
    let question = Question::call(Endpoint::Chain, payload, patience, trace);
    let reply = app.workers.ask(question.with_key(key)).await;
    app.stores.discard(uploaded).await;
    match reply {
        Ok(reply) => Ok(json_answer(app.complete(reply.payload).await?)),
        Err(problem) => Err(with_outputs(&app, problem).await),
    }
}

/// As long as its steps one after the other. One of none or of too many is waited for too: the worker refuses it.
fn patience(workers: &Workers, request: &ChainRequest) -> Duration {
    let of_step = |step: &ChainStep| match step {
        ChainStep::Module(_) => workers.call_patience(request.wait_ms, None),
        ChainStep::Invocation(step) => {
            workers.call_patience(step.wait_ms.or(request.wait_ms), step.limits.timeout_ms)
        }
    };
    request
        .steps
        .iter()
        .take(MAX_CHAIN_STEPS)
        .map(of_step)
        .sum::<Duration>()
        .max(workers.call_patience(None, None))
}

async fn fitted(
    app: &App,
    mut request: ChainRequest,
    bytes: Bytes,
) -> Result<(Bytes, Option<Uploaded>), Problem> {
    if bytes.len() <= app.workers.inline_bytes() {
        return Ok((bytes, None));
    }
    let input = take_input(
        request.input.take(),
        request.input_base64.take(),
        request.input_ref.take(),
    )?;
    let uploaded = app.stores.upload(input).await?;
    request.input_ref = uploaded.as_ref().map(|uploaded| uploaded.reference.clone());
    Ok((json(&request)?, uploaded))
}

/// The steps that ran before one failed are told in the facts. Outputs that cannot be fetched stay references there:
/// the failure itself is what the client has to hear.
async fn with_outputs(app: &App, mut problem: Problem) -> Problem {
    let Ok(facts) = json(problem.facts_mut()) else {
        return problem;
    };
    if let Ok(completed) = app.complete(facts).await
        && let Ok(facts) = serde_json::from_slice(&completed)
    {
        *problem.facts_mut() = facts;
    }
    problem
}
