//! Calling modules one after the other. What is large travels by reference, in every step.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::HeaderMap;
use axum::response::Response;
use wess_schemas::subject::Endpoint;

use crate::admission::Room;
use crate::app::App;
use crate::bodies;
use crate::calls::{Body as _, Chain};
use crate::config::Bounds;
use crate::extract::Trace;
use crate::problem::Problem;
use crate::routes::invoke::idempotency_key;
use crate::workers::{Question, json};

/// `POST /v1/chain`
pub async fn chain(
    State(app): State<Arc<App>>,
    _room: Room,
    Trace(trace): Trace,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (key, limit) = (idempotency_key(&headers)?, Bounds::JSON_BYTES);
    let body = bodies::read(&app.admission, body, limit, app.bounds.body_timeout).await?;
    let chain: Chain<'_> = bodies::json(&body)?;
    let patience = chain.patience(&app.workers);
    let (payload, uploaded) = app.fitted(&body, chain).await?;
    drop(body);
    let question = Question::call(Endpoint::Chain, payload, patience, trace);
    let reply = app.workers.ask(question.with_key(key)).await;
    app.stores.settle(uploaded, &reply).await;
    match reply {
        Ok(reply) => app.answer_outcome(reply.payload).await,
        Err(problem) => Err(with_outputs(&app, problem).await),
    }
}

/// The steps that ran before one failed are told in the facts. Where their outputs cannot be fetched, or there is no
/// room for them, references stay there: the failure itself is what the client has to hear.
pub async fn with_outputs(app: &App, mut problem: Problem) -> Problem {
    let Ok(facts) = json(problem.facts_mut()) else {
        return problem;
    };
    if let Ok(Some(filled)) = app.filled(&facts).await
        && let Ok((facts, room)) = filled.into_facts(&app.admission)
    {
        *problem.facts_mut() = facts;
        return problem.holding(room);
    }
    problem
}
