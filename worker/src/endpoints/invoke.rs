//! `wess.invoke` in its three subject forms: a message becomes a call, an ending becomes a reply.

use std::time::{Duration, Instant};

use async_nats::{HeaderMap, HeaderName};
use bytes::Bytes;
use wess_schemas::header::{self, CallHeaders};
use wess_schemas::invocation::{Input, InvalidInvocation, check_wait, take_input};
use wess_schemas::limits::{DEFAULT_WAIT_MS, Limits};
use wess_schemas::outcome::{Outcome, RunStats};
use wess_schemas::payload::PayloadRef;
use wess_schemas::reference::FunctionName;
use wess_schemas::subject::Endpoint;
use wess_schemas::{Digest, ErrorBody, ErrorCode, Invocation, JobId, Reference, WorkerId};
use wess_service::bus::Reply;
use wess_service::trace_context::TraceParent;

use super::json_reply;
use crate::call::{Call, Finished};
use crate::guest::abi::{CallInput, typed};

/// In which form a caller asked, and is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Invocation JSON in, Outcome JSON out.
    Json,
    /// Bytes in, bytes out, facts in headers.
    Raw,
    /// As raw, asked without any headers: the reply has only those that change what its bytes mean.
    Bare,
    /// As bare, asked with no more than a trace and where the input lies: the reply says too of what media type results are.
    Traced,
    /// An HTTP request in, its response out: bodies that nobody holds whole.
    Http,
}

impl Form {
    /// How many there are.
    pub const COUNT: usize = 5;
}

/// The form that a request asks for.
pub fn form(endpoint: &Endpoint, headers: Option<&HeaderMap>) -> Form {
    match endpoint {
        Endpoint::InvokeRaw(..) => raw_form(headers),
        Endpoint::Http(_) => Form::Http,
        _ => Form::Json,
    }
}

/// The form that a request for a raw reply asks for: who says more than its trace and where its input lies wants to know
/// what came of it.
pub fn raw_form(headers: Option<&HeaderMap>) -> Form {
    let asks = |name: &HeaderName| ![header::TRACEPARENT, header::INPUT_REF].contains(&name.as_ref());
    match headers {
        None => Form::Bare,
        Some(headers) if headers.is_empty() => Form::Bare,
        Some(headers) if headers.iter().any(|(name, _)| asks(name)) => Form::Raw,
        Some(_) => Form::Traced,
    }
}

/// Makes a call of a message to one of the invoke endpoints.
pub fn parse(
    endpoint: Endpoint,
    headers: Option<&HeaderMap>,
    payload: Bytes,
    arrived: Instant,
) -> Result<Call, ErrorBody> {
    let trace = headers.and_then(TraceParent::of);
    let mut headers = match headers {
        Some(headers) => {
            CallHeaders::read(|name| headers.get(name).map(|value| value.as_str())).map_err(invalid)?
        }
        None => CallHeaders::default(),
    };
    let key = headers.job_id.take();
    let mut call = match endpoint {
        Endpoint::InvokeRaw(reference, function) => raw(reference, function, headers, payload, arrived)?,
        _ => json(headers, &payload, arrived)?,
    };
    call.trace = trace;
    if let Some(key) = key {
        (call.job_id, call.is_keyed) = (key, true);
    }
    Ok(call)
}

/// Bytes as they are; all else is said in headers.
fn raw(
    reference: Reference,
    function: Option<FunctionName>,
    headers: CallHeaders,
    payload: Bytes,
    arrived: Instant,
) -> Result<Call, ErrorBody> {
    let stored_input = headers.input_ref;
    let input = stored_input.is_none().then_some(payload);
    check_size(input.as_ref())?;
    check_stored(stored_input.as_ref())?;
    check_wait(headers.wait_ms).map_err(misfit)?;
    Ok(Call {
        job_id: JobId::generate(),
        is_keyed: false,
        reference,
        input: CallInput {
            function,
            input,
            ..CallInput::default()
        },
        stored_input,
        http: None,
        limits: headers.limits,
        is_step: false,
        wait: wait(headers.wait_ms),
        trace: None,
        accepted: None,
        arrived,
    })
}

/// An Invocation; headers may say of limits and wait what it does not.
fn json(headers: CallHeaders, payload: &Bytes, arrived: Instant) -> Result<Call, ErrorBody> {
    check_message(payload)?;
    let invocation: Invocation = serde_json::from_slice(payload).map_err(invalid)?;
    let waits = invocation.wait_ms.is_some();
    let mut call = from_invocation(invocation, arrived)?;
    if headers.input_ref.is_some() {
        return Err(invalid(
            "the header Wess-Input-Ref is for raw calls; in JSON it is input_ref",
        ));
    }
    call.wait = match headers.wait_ms {
        Some(_) if waits => return Err(invalid("wait_ms stands in the body and in a header")),
        Some(wait_ms) => {
            check_wait(Some(wait_ms)).map_err(invalid)?;
            wait(Some(wait_ms))
        }
        None => call.wait,
    };
    call.limits = merged(call.limits, headers.limits)?;
    Ok(call)
}

/// Bounds what is parsed as JSON: the largest input as base64, with room for arguments and environment.
fn check_message(payload: &Bytes) -> Result<(), ErrorBody> {
    const MAX_JSON_BYTES: usize = 16 << 20;
    if payload.len() <= MAX_JSON_BYTES {
        return Ok(());
    }
    let message = format!(
        "the request is {} bytes of JSON, but must be at most {MAX_JSON_BYTES}",
        payload.len()
    );
    Err(ErrorBody::new(ErrorCode::PayloadTooLarge, message))
}

/// Makes a call of an Invocation.
pub fn from_invocation(mut invocation: Invocation, arrived: Instant) -> Result<Call, ErrorBody> {
    let input = invocation.check_and_take_input().map_err(misfit)?;
    let (input, stored_input) = match input {
        Input::Absent => (None, None),
        Input::Bytes(bytes) => (Some(Bytes::from(bytes)), None),
        Input::Stored(reference) => (None, Some(reference)),
    };
    Ok(Call {
        job_id: JobId::generate(),
        is_keyed: false,
        reference: invocation.module,
        input: CallInput {
            function: invocation.function,
            input,
            args: invocation.args,
            env: invocation.env,
        },
        stored_input,
        http: None,
        limits: invocation.limits,
        is_step: false,
        wait: wait(invocation.wait_ms),
        trace: None,
        accepted: None,
        arrived,
    })
}

fn wait(wait_ms: Option<u64>) -> Duration {
    Duration::from_millis(wait_ms.unwrap_or(DEFAULT_WAIT_MS))
}

fn invalid(why: impl std::fmt::Display) -> ErrorBody {
    ErrorBody::new(ErrorCode::InvalidRequest, why.to_string())
}

/// What a caller is told of an invocation that breaks its contract.
pub fn misfit(why: InvalidInvocation) -> ErrorBody {
    ErrorBody::new(why.code(), why.to_string())
}

fn check_size(input: Option<&Bytes>) -> Result<(), ErrorBody> {
    let size = input.map_or(0, Bytes::len) as u64;
    if size > wess_schemas::limits::MAX_INPUT_BYTES {
        return Err(misfit(InvalidInvocation::InputTooLarge(size)));
    }
    Ok(())
}

/// A reference in a header is held to the same bound as one in a body.
fn check_stored(stored: Option<&PayloadRef>) -> Result<(), ErrorBody> {
    let checked = stored.map(|stored| take_input(None, None, Some(stored.clone())));
    checked.transpose().map(drop).map_err(misfit)
}

/// A limit may stand in the body or in a header, not in both.
fn merged(body: Limits, headers: Limits) -> Result<Limits, ErrorBody> {
    let one = |field, body: Option<u64>, header: Option<u64>| match (body, header) {
        (Some(_), Some(_)) => Err(invalid(format!(
            "limits.{field} stands in the body and in a header"
        ))),
        (body, header) => Ok(body.or(header)),
    };
    Ok(Limits {
        timeout_ms: one("timeout_ms", body.timeout_ms, headers.timeout_ms)?,
        memory_mb: one("memory_mb", body.memory_mb, headers.memory_mb)?,
        fuel: one("fuel", body.fuel, headers.fuel)?,
        output_bytes: body.output_bytes,
    })
}

/// Where a guest's output is when the reply is written.
#[derive(Debug)]
pub enum Output {
    /// At hand; `None` for typed functions.
    Inline(Option<Vec<u8>>),
    /// In `wess-payloads`.
    Stored(PayloadRef),
}

/// The outcome of a call, in the shape clients see.
pub fn outcome(finished: Finished, output: Output, worker: &WorkerId) -> Outcome {
    let mut outcome = Outcome {
        module: finished.module_run(),
        job_id: finished.job_id,
        function: finished.function,
        output: None,
        output_base64: None,
        output_ref: None,
        results: finished.answer.results,
        exit_code: finished.answer.exit_code,
        stats: finished.stats,
        steps: finished.steps,
        worker: worker.clone(),
    };
    match output {
        Output::Inline(None) => {}
        Output::Inline(Some(bytes)) => outcome.set_output(bytes),
        Output::Stored(reference) => outcome.output_ref = Some(reference),
    }
    outcome
}

/// The reply to a call whose guest answered.
pub fn reply(form: Form, finished: Finished, output: Output, worker: &WorkerId) -> Reply {
    match form {
        Form::Json => json_reply(&outcome(finished, output, worker)),
        Form::Raw | Form::Bare | Form::Traced | Form::Http => {
            let facts = Facts {
                job_id: &finished.job_id,
                digest: finished.module.digest,
                stats: &finished.stats,
                exit_code: finished.answer.exit_code,
                results: finished.answer.results.as_deref(),
            };
            raw_reply(form, &facts, output)
        }
    }
}

/// The reply to a call whose outcome was written down.
pub fn reply_of_outcome(form: Form, mut outcome: Outcome) -> Reply {
    if form == Form::Json {
        return json_reply(&outcome);
    }
    let output = match outcome.output_ref.take() {
        Some(stored) => Output::Stored(stored),
        None => Output::Inline(outcome.output_bytes()),
    };
    let facts = Facts {
        job_id: &outcome.job_id,
        digest: outcome.module.digest,
        stats: &outcome.stats,
        exit_code: outcome.exit_code,
        results: outcome.results.as_deref(),
    };
    raw_reply(form, &facts, output)
}

/// What a raw reply says besides its bytes.
struct Facts<'a> {
    job_id: &'a JobId,
    digest: Digest,
    stats: &'a RunStats,
    exit_code: Option<i32>,
    results: Option<&'a [serde_json::Value]>,
}

fn raw_reply(form: Form, facts: &Facts<'_>, output: Output) -> Reply {
    let mut headers = HeaderMap::new();
    if form == Form::Raw {
        write_facts(facts, &mut headers);
    }
    if let Some(exit_code) = facts.exit_code
        && (exit_code != 0 || form == Form::Raw)
    {
        headers.insert(HeaderName::from_static(header::EXIT_CODE), exit_code.to_string());
    }
    if facts.results.is_some() && form != Form::Bare {
        headers.insert(HeaderName::from_static(header::CONTENT_TYPE), "application/json");
    }
    let payload = match (output, facts.results) {
        (Output::Stored(reference), _) => {
            // A reference always serializes: it holds nothing but text and a number.
            headers.insert(
                header::OUTPUT_REF,
                serde_json::to_string(&reference).unwrap_or_default(),
            );
            Bytes::new()
        }
        (Output::Inline(_), Some(results)) => typed::raw_output(results).into(),
        (Output::Inline(bytes), None) => bytes.unwrap_or_default().into(),
    };
    Reply { headers, payload }
}

/// What a caller may want to know of a run besides its answer.
fn write_facts(facts: &Facts<'_>, headers: &mut HeaderMap) {
    let stats = facts.stats;
    let mut fact = |name, value: String| headers.insert(HeaderName::from_static(name), value);
    fact(header::JOB_ID, facts.job_id.as_str().into());
    fact(header::MODULE_DIGEST, facts.digest.to_string());
    fact(header::QUEUE_US, stats.queue_us.to_string());
    fact(header::RUN_US, stats.run_us.to_string());
    fact(header::COLD, stats.cold.to_string());
    if let Some(fuel) = stats.fuel {
        fact(header::FUEL_USED, fuel.to_string());
    }
}

/// What of an answer goes as bytes: its output, or results that would not fit into a message, as JSON.
pub fn take_output(form: Form, finished: &mut Finished, inline_bytes: usize) -> Option<Vec<u8>> {
    let answer = &mut finished.answer;
    let Some(results) = &mut answer.results else {
        return answer.output.take();
    };
    if FACTS_BYTES + results.iter().map(text_bytes).sum::<usize>() <= inline_bytes {
        return None;
    }
    let results = std::mem::take(results);
    match form {
        // That there were results still says what the bytes are.
        Form::Raw | Form::Bare | Form::Traced | Form::Http => Some(typed::raw_output(&results)),
        Form::Json => {
            answer.results = None;
            Some(serde_json::Value::Array(results).to_string().into_bytes())
        }
    }
}

/// About what a value takes as text.
fn text_bytes(value: &serde_json::Value) -> usize {
    const NUMBER_BYTES: usize = 20;
    let quoted = |text: &str| 3 + text.bytes().map(escaped_bytes).sum::<usize>();
    match value {
        serde_json::Value::String(text) => quoted(text),
        serde_json::Value::Array(values) => 3 + values.iter().map(text_bytes).sum::<usize>(),
        serde_json::Value::Object(fields) => {
            let field = |(name, value): (&String, _)| quoted(name) + text_bytes(value);
            3 + fields.iter().map(field).sum::<usize>()
        }
        _ => NUMBER_BYTES,
    }
}

/// What stands in a reply besides the answer.
const FACTS_BYTES: usize = 2048;

/// Whether an output, JSON escapes and base64 included, has room in a reply that may be so long.
pub fn fits(form: Form, output: &[u8], inline_bytes: usize) -> bool {
    // Most outputs are short: nobody has to count their escapes.
    let at_most = output.len().saturating_mul(MOST_ESCAPED_BYTES);
    FACTS_BYTES.saturating_add(at_most) <= inline_bytes || size_bytes(form, output) <= inline_bytes
}

/// What an output takes in a reply, in bytes.
fn size_bytes(form: Form, output: &[u8]) -> usize {
    let body = match (form, std::str::from_utf8(output)) {
        (Form::Raw | Form::Bare | Form::Traced | Form::Http, _) => output.len(),
        (Form::Json, Ok(text)) => text.bytes().map(escaped_bytes).sum(),
        (Form::Json, Err(_)) => output.len().div_ceil(3) * 4,
    };
    FACTS_BYTES + body
}

/// The most that one byte takes in JSON.
const MOST_ESCAPED_BYTES: usize = 6;

/// How long serde_json writes one byte of text.
fn escaped_bytes(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => MOST_ESCAPED_BYTES,
        _ => 1,
    }
}
