//! `Execute` and `ExecuteChain`: asks workers as HTTP does, and says what came of it in the seed protocol's words.

use std::borrow::Cow;
use std::str::FromStr;

use async_nats::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use wess_schemas::header;
use wess_schemas::outcome::RunStats;
use wess_schemas::payload::PayloadRef;
use wess_schemas::seed::{ChainExecution, Execution, StepExecution};
use wess_schemas::subject::Endpoint;
use wess_schemas::{Limits, Reference};

use super::commands::done;
use super::request::{Chain, Execute};
use crate::admission::{OutputRefused, Reservation};
use crate::app::App;
use crate::bodies;
use crate::calls;
use crate::large::{Uploaded, lost, references};
use crate::problem::Problem;
use crate::routes::chain::with_outputs;
use crate::routes::invoke::in_header;
use crate::workers::{Question, unreadable};

/// Runs one module.
pub async fn execute(app: &App, execute: Execute) -> Result<Bytes, Problem> {
    let Execute {
        binary_id,
        input,
        limits,
    } = execute;
    let input = input.into_bytes()?;
    let patience = app.workers.call_patience(None, limits.timeout_ms);
    let endpoint = Endpoint::InvokeRaw(Reference::Id(binary_id), None);
    let (question, uploaded) = if input.len() <= app.workers.inline_bytes() {
        (Question::untraced(endpoint, input, patience), None)
    } else {
        let uploaded = app.stores.upload_bytes(&input).await?;
        let question = Question::untraced(endpoint, Bytes::new(), patience)
            .with_header(header::INPUT_REF, &in_header(&uploaded.reference)?);
        (question, Some(uploaded))
    };
    let reply = app.workers.ask(with_limits(question, &limits)).await;
    app.stores.settle(uploaded, &reply).await;
    let reply = reply?;
    let facts = &reply.headers;
    let execution = Execution {
        return_code: fact(facts, header::EXIT_CODE)?.unwrap_or(0),
        fuel_consumed: fact(facts, header::FUEL_USED)?.unwrap_or(0),
        ..timed(fact(facts, header::RUN_US)?.unwrap_or(0))
    };
    match facts.get(header::OUTPUT_REF) {
        None => answer(app, &reply.payload, |output| done(&with(execution, output))).await,
        Some(stored) => {
            let stored = serde_json::from_str(stored.as_str()).map_err(|error| unreadable(&error))?;
            answer_stored(app, &stored, |output| done(&with(execution, output))).await
        }
    }
}

/// Runs several modules.
pub async fn chain(app: &App, chain: Chain) -> Result<Bytes, Problem> {
    let step = app.workers.call_patience(None, chain.limits.timeout_ms);
    let patience = step * u32::try_from(chain.binary_ids.len()).unwrap_or(u32::MAX);
    let (payload, uploaded) = fitted(app, &chain).await?;
    drop(chain);
    let question = Question::untraced(Endpoint::Chain, payload, patience);
    let reply = app.workers.ask(question).await;
    app.stores.settle(uploaded, &reply).await;
    match reply {
        Ok(reply) => answer_chain(app, &reply.payload).await,
        Err(problem) => Err(with_outputs(app, problem).await),
    }
}

async fn fitted(app: &App, chain: &Chain) -> Result<(Bytes, Option<Uploaded>), Problem> {
    let body = app.admission.hold(chain.body())?;
    if body.len() <= app.workers.inline_bytes() {
        return Ok((body, None));
    }
    let chain: calls::Chain<'_> = bodies::json(&body)?;
    app.fitted(&body, chain).await
}

/// Without any header a worker would not say what the run cost.
fn with_limits(question: Question, limits: &Limits) -> Question {
    let limit = |question: Question, name, limit: Option<u64>| match limit {
        Some(limit) => question.with_header(name, &limit.to_string()),
        None => question,
    };
    let question = limit(question, header::TIMEOUT_MS, limits.timeout_ms);
    limit(question, header::MEMORY_MB, limits.memory_mb).with_header(header::FACTS, "all")
}

fn fact<T: FromStr>(facts: &HeaderMap, name: &'static str) -> Result<Option<T>, Problem> {
    let Some(value) = facts.get(name) else {
        return Ok(None);
    };
    let unreadable = || {
        lost(&std::io::Error::other(format!(
            "header {name} is {:?}",
            value.as_str()
        )))
    };
    value.as_str().parse().map(Some).map_err(|_| unreadable())
}

fn timed(run_us: u64) -> Execution<'static> {
    Execution {
        return_code: 0,
        output: None,
        output_base64: None,
        execution_time_ms: run_us / 1000,
        execution_time_us: run_us,
        fuel_consumed: 0,
    }
}

fn with<'a>(execution: Execution<'static>, output: &'a [u8]) -> Execution<'a> {
    match std::str::from_utf8(output) {
        Ok(text) => Execution {
            output: Some(Cow::Borrowed(text)),
            ..execution
        },
        Err(_) => Execution {
            output_base64: Some(Cow::Owned(BASE64.encode(output))),
            ..execution
        },
    }
}

/// The reply with an output that is at hand.
async fn answer(
    app: &App,
    output: &[u8],
    write: impl FnOnce(&[u8]) -> Result<Bytes, Problem>,
) -> Result<Bytes, Problem> {
    let room = room(app, output.len() as u64).await?;
    hold(app, room, write(output)?)
}

/// The reply with an output that a worker has stored.
async fn answer_stored(
    app: &App,
    stored: &PayloadRef,
    write: impl FnOnce(&[u8]) -> Result<Bytes, Problem>,
) -> Result<Bytes, Problem> {
    let room = room(app, stored.size).await?;
    let output = app.stores.take(stored).await?;
    hold(app, room, write(&output)?)
}

/// For an output and for the reply that it stands in: as one, so that nobody who holds room waits for more.
async fn room(app: &App, bytes: u64) -> Result<Reservation, Problem> {
    let room = app.admission.output(bytes.saturating_mul(2)).await;
    room.map_err(|refused| lost(&refused))
}

/// An output that is mostly escapes makes a reply that takes more than was thought.
fn hold(app: &App, mut room: Reservation, reply: Bytes) -> Result<Bytes, Problem> {
    let grown = app.admission.grow(&mut room, reply.len() as u64);
    grown.map_err(|_| lost(&OutputRefused))?;
    Ok(room.hold(reply))
}

/// Just enough of a chain's outcome.
#[derive(Deserialize)]
struct Outcome<'a> {
    #[serde(borrow, default)]
    output: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    output_base64: Option<Cow<'a, str>>,
    #[serde(default)]
    output_ref: Option<PayloadRef>,
    #[serde(borrow, default)]
    results: Option<Vec<&'a RawValue>>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    #[serde(default)]
    exit_code: Option<i32>,
    stats: RunStats,
}

impl From<&Step> for StepExecution {
    fn from(step: &Step) -> Self {
        Self {
            return_code: step.exit_code.unwrap_or(0),
            execution_time_us: step.stats.run_us,
            fuel_consumed: step.stats.fuel.unwrap_or(0),
        }
    }
}

async fn answer_chain(app: &App, document: &[u8]) -> Result<Bytes, Problem> {
    let outcome: Outcome<'_> = serde_json::from_slice(document).map_err(|error| unreadable(&error))?;
    let steps: Vec<StepExecution> = outcome.steps.iter().map(Into::into).collect();
    let whole = Execution {
        return_code: steps.last().map_or(0, |last| last.return_code),
        fuel_consumed: steps.iter().map(|step| step.fuel_consumed).sum(),
        ..timed(steps.iter().map(|step| step.execution_time_us).sum())
    };
    for unread in references(document).map_err(|error| unreadable(&error))? {
        if Some(&unread) != outcome.output_ref.as_ref() {
            app.stores.discard_output(&unread).await;
        }
    }
    match &outcome.output_ref {
        Some(stored) => {
            let write = |output: &[u8]| {
                done(&ChainExecution {
                    whole: with(whole, output),
                    steps,
                })
            };
            answer_stored(app, stored, write).await
        }
        None => {
            let whole = Execution {
                output: outcome
                    .output
                    .or(outcome.results.map(|results| results_text(&results))),
                output_base64: outcome.output_base64,
                ..whole
            };
            answer(app, document, |_| done(&ChainExecution { whole, steps })).await
        }
    }
}

/// What functions returned, as a raw call of them gives it: one value as it is, several as an array.
fn results_text<'a>(results: &[&'a RawValue]) -> Cow<'a, str> {
    match results {
        [only] => Cow::Borrowed(only.get()),
        several => {
            let texts: Vec<_> = several.iter().map(|result| result.get()).collect();
            Cow::Owned(format!("[{}]", texts.join(",")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_text_or_base64() {
        let text = with(timed(1999), "hé".as_bytes());
        assert_eq!((text.output.as_deref(), text.output_base64), (Some("hé"), None));
        assert_eq!((text.execution_time_ms, text.execution_time_us), (1, 1999));
        let binary = with(timed(0), b"\xff");
        assert_eq!(
            (binary.output, binary.output_base64.as_deref()),
            (None, Some("/w=="))
        );
    }

    #[test]
    fn results_are_what_a_raw_call_gives() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        let (one, other) = (raw("5"), raw("\"NaN\""));
        assert_eq!(results_text(&[&one]), "5");
        assert_eq!(results_text(&[&one, &other]), "[5,\"NaN\"]");
        assert_eq!(results_text(&[]), "[]");
    }
}
