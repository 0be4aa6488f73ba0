//! Taking modules in: small ones travel in the message, large ones through the object store, none whole in memory.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Deserialize;
use wess_schemas::header::{MODULE, SETTINGS};
use wess_schemas::payload::PayloadRef;
use wess_schemas::settings::{Settings, SettingsChange};
use wess_schemas::store::StoreRequest;
use wess_schemas::subject::Endpoint;
use wess_schemas::{Digest, Limits, ModuleName, Reference};
use wess_service::objects::ObjectError;
use wess_service::payloads::PayloadError;
use wess_service::trace_context::TraceParent;

use crate::admission::Room;
use crate::app::App;
use crate::bodies;
use crate::extract::{InPath, InQuery, Trace};
use crate::large::Uploaded;
use crate::problem::Problem;
use crate::workers::{Question, json, unreadable};

/// Beyond this a module is streamed, even where a message may be larger: within one process it may be of any size.
pub const SMALL_MODULE_BYTES: u64 = 1024 * 1024;

/// Most bytes of JSON that may say a module's settings: twice what their bounds let them have.
const MAX_SETTINGS_BYTES: u64 = 256 * 1024;

/// What a module is stored under, and the limits it shall have. Left out, it keeps those that it has.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreQuery {
    name: ModuleName,
    timeout_ms: Option<u64>,
    memory_mb: Option<u64>,
    fuel: Option<u64>,
    output_bytes: Option<u64>,
}

impl StoreQuery {
    fn limits(&self) -> Option<Limits> {
        let limits = Limits {
            timeout_ms: self.timeout_ms,
            memory_mb: self.memory_mb,
            fuel: self.fuel,
            output_bytes: self.output_bytes,
        };
        Some(limits).filter(|limits| !limits.is_empty())
    }
}

/// `POST /v1/modules?name=`
pub async fn store(
    State(app): State<Arc<App>>,
    _room: Room,
    Trace(trace): Trace,
    InQuery(query): InQuery<StoreQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let request = request(&query, settings(&headers)?);
    bodies::check_announced(&body, app.bounds.module_bytes)?;
    let small = SMALL_MODULE_BYTES.min(app.workers.inline_bytes() as u64);
    let reply = match bodies::announced(&body) {
        Some(size) if size <= small => store_small(&app, request, body, trace).await?,
        _ => store_large(&app, request, body, trace).await?,
    };
    answer(&app, reply).await
}

async fn store_small(
    app: &App,
    request: StoreRequest,
    body: Body,
    trace: TraceParent,
) -> Result<Bytes, Problem> {
    let wasm = bodies::read(
        &app.admission,
        body,
        SMALL_MODULE_BYTES,
        app.bounds.upload_timeout,
    )
    .await?;
    let question = match (request.limits, &request.settings) {
        (None, None) => Question::store(wasm, trace).with_header(MODULE, request.name.as_str()),
        _ => {
            let wasm_base64 = Some(BASE64.encode(wasm));
            let request = StoreRequest {
                wasm_base64,
                ..request
            };
            Question::store(json(&request)?, trace)
        }
    };
    Ok(app.workers.ask(question).await?.payload)
}

async fn store_large(
    app: &App,
    request: StoreRequest,
    body: Body,
    trace: TraceParent,
) -> Result<Bytes, Problem> {
    let uploaded = upload(app, body).await?;
    let PayloadRef { object, digest, .. } = uploaded.reference.clone();
    let request = StoreRequest {
        digest: Some(digest),
        object: Some(object),
        ..request
    };
    let reply = app.workers.ask(Question::store(json(&request)?, trace)).await;
    app.stores.settle(Some(uploaded), &reply).await;
    Ok(reply?.payload)
}

/// What a header says of the module's settings.
fn settings(headers: &HeaderMap) -> Result<Option<Settings>, Problem> {
    let Some(header) = headers.get(SETTINGS) else {
        return Ok(None);
    };
    let wrong = |why: &dyn std::fmt::Display| Problem::invalid(format!("{SETTINGS}: {why}"));
    let settings: Settings = serde_json::from_slice(header.as_bytes()).map_err(|error| wrong(&error))?;
    settings.check().map_err(|error| wrong(&error))?;
    Ok(Some(settings))
}

/// `PUT /v1/modules/{name}/settings`: the newest version's bytes on other terms become the next version.
pub async fn configure(
    State(app): State<Arc<App>>,
    _room: Room,
    Trace(trace): Trace,
    InPath(name): InPath<ModuleName>,
    body: Body,
) -> Result<Response, Problem> {
    let body = bodies::read(&app.admission, body, MAX_SETTINGS_BYTES, app.bounds.body_timeout).await?;
    let SettingsChange { limits, settings } = bodies::json(&body)?;
    let newest = Endpoint::ModulesGet(Reference::Latest(name.clone()));
    let newest = app
        .workers
        .ask(Question::record(newest, Bytes::new(), trace))
        .await?;
    let Stored { digest, .. } =
        serde_json::from_slice(&newest.payload).map_err(|error| unreadable(&error))?;
    let request = StoreRequest {
        name,
        wasm_base64: None,
        digest: Some(digest),
        object: None,
        limits,
        settings,
    };
    let reply = app.workers.ask(Question::store(json(&request)?, trace)).await?;
    answer(&app, reply.payload).await
}

fn request(query: &StoreQuery, settings: Option<Settings>) -> StoreRequest {
    StoreRequest {
        name: query.name.clone(),
        wasm_base64: None,
        digest: None,
        object: None,
        limits: query.limits(),
        settings,
    }
}

async fn upload(app: &App, body: Body) -> Result<Uploaded, Problem> {
    let (limit, patience) = (app.bounds.module_bytes, app.bounds.upload_timeout);
    let uploading = app.stores.payloads.put_stream(bodies::reader(body), limit);
    let uploaded = tokio::time::timeout(patience, uploading)
        .await
        .map_err(|_| bodies::too_slow(patience))?;
    let reference = uploaded.map_err(|error| refused(error, limit))?;
    Ok(Uploaded {
        reference,
        ours: true,
    })
}

fn refused(error: PayloadError, limit: u64) -> Problem {
    match &error {
        PayloadError::Object(ObjectError::TooLarge { .. }) => bodies::too_large(limit),
        PayloadError::Object(ObjectError::Copy { .. }) => {
            Problem::invalid("the body ended before it was complete").because(&error)
        }
        other => Problem::new(other.code(), "the module could not be taken in")
            .before_guest()
            .because(other),
    }
}

/// What of a stored module decides the answer.
#[derive(Deserialize)]
struct Stored {
    name: ModuleName,
    version: u32,
    digest: Digest,
    stored: Option<bool>,
}

/// 201 for a new version, 200 when the newest one has these bytes already.
async fn answer(app: &App, module: Bytes) -> Result<Response, Problem> {
    let Stored {
        name,
        version,
        stored,
        ..
    } = serde_json::from_slice(&module).map_err(|error| unreadable(&error))?;
    let location = HeaderValue::try_from(format!("/v1/modules/{name}@{version}"));
    let mut answer = app.answer_record(module).await?;
    if stored == Some(false) {
        return Ok(answer);
    }
    *answer.status_mut() = StatusCode::CREATED;
    if let Ok(location) = location {
        answer.headers_mut().insert(LOCATION, location);
    }
    Ok(answer)
}
