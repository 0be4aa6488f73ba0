//! `/v1/http/{ref}/{path…}` and the hosts of modules: requests to modules that serve HTTP. Heads are made fit to pass on;
//! bodies pass as they come.
//!
//! Invariant: what a guest answers reaches the client as it is, errors included; ours are problem documents.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH};
use axum::http::request::Parts;
use axum::http::uri::{Authority, PathAndQuery, Uri};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tokio::sync::oneshot;
use wess_schemas::ErrorCode;
use wess_schemas::header::TRACEPARENT;
use wess_schemas::reference::Reference;
use wess_service::http::{self, Broken};
use wess_service::trace_context::TraceParent;

use self::heads::{forward, without_hops};
use super::invoke::{BOUNDS, asked, passed_on};
use crate::admission::Room;
use crate::app::App;
use crate::auth::Door;
use crate::bodies;
use crate::edge::FromGuest;
use crate::extract::{InPath, Trace};
use crate::hosts::Hosted;
use crate::problem::Problem;
use crate::workers::HttpQuestion;

mod heads;

/// What stands before the reference in the path.
const PREFIX: &str = "/v1/http/";
/// Bodies up to this size are read before the worker is asked, so that they travel with their head.
const SMALL_BYTES: u64 = 64 * 1024;
/// Pieces of a larger body that have been read and that the guest has not: each is at most what a connection reads at once.
const PIECES_AHEAD: usize = 4;

/// What is known of a client that broke its body off.
const CLIENT_LEFT: &str = "the client left before its request was complete";

/// `ANY /v1/http/{ref}` and all below
pub async fn pass(
    State(app): State<Arc<App>>,
    room: Room,
    Trace(trace): Trace,
    InPath(named): InPath<Named>,
    request: Request,
) -> Result<Response, Problem> {
    let place = Place::below(request.uri());
    exchange(app, room, trace, named.reference, place, request).await
}

/// Any request to a host of a module
pub async fn hosted(
    State(app): State<Arc<App>>,
    room: Room,
    Trace(trace): Trace,
    Extension(Hosted(module)): Extension<Hosted>,
    request: Request,
) -> Result<Response, Problem> {
    let place = Place::whole(request.uri());
    exchange(app, room, trace, Reference::Latest(module), place, request).await
}

async fn exchange(
    app: Arc<App>,
    room: Room,
    trace: TraceParent,
    reference: Reference,
    place: Place,
    request: Request,
) -> Result<Response, Problem> {
    let asked = asked(request.headers())?;
    let facts = passed_on(request.headers(), &BOUNDS)?
        .into_iter()
        .map(|(name, text)| (name, text.to_owned()))
        .collect();
    let (mut head, body) = request.into_parts();
    prepare(&app, &mut head, place)?;
    // A traceparent is ASCII.
    if let Ok(trace) = HeaderValue::try_from(trace.to_string()) {
        head.headers.insert(TRACEPARENT, trace);
    }
    let has_no_body = head.method == Method::HEAD;
    let (body, left) = passing(&app, body).await?;
    let question = HttpQuestion {
        reference,
        facts,
        trace,
        patience: app.workers.call_patience(asked.wait_ms, asked.limits.timeout_ms),
        request: http::Request::from_parts(head, body),
    };
    let answer = tokio::select! {
        answer = app.workers.exchange(question) => answer?,
        // The connection's other half may be open still, which keeps this handler waiting for a guest.
        Ok(()) = left => return Err(Problem::new(ErrorCode::Cancelled, CLIENT_LEFT)),
    };
    Ok(answered(&app, answer, has_no_body, room))
}

/// The parameters of the path; what follows the reference is taken from the path as it was sent.
#[derive(serde::Deserialize)]
pub struct Named {
    #[serde(rename = "ref")]
    reference: Reference,
}

/// A guest's part of a path.
struct Place {
    /// What stood before it, where something did.
    prefix: Option<String>,
    /// It and the query, byte for byte, from a slash on.
    path: String,
}

impl Place {
    /// After the reference.
    fn below(uri: &Uri) -> Self {
        let whole = uri.path_and_query().map_or("", PathAndQuery::as_str);
        let below = whole.strip_prefix(PREFIX).unwrap_or_default();
        let at = below.find(['/', '?']).unwrap_or(below.len());
        let (reference, rest) = below.split_at(at);
        Self {
            prefix: Some(format!("{PREFIX}{reference}")),
            path: from_slash(rest),
        }
    }

    /// All of it.
    fn whole(uri: &Uri) -> Self {
        Self {
            prefix: None,
            path: from_slash(uri.path_and_query().map_or("", PathAndQuery::as_str)),
        }
    }
}

fn from_slash(path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    }
}

/// Makes a head as the guest shall see it.
fn prepare(app: &App, head: &mut Parts, place: Place) -> Result<(), Problem> {
    let authority = authority(head)?;
    let scheme = forward(head, place.prefix.as_deref(), &authority);
    without_hops(&mut head.headers);
    if let Door::Tokens(_) = app.door {
        // It is this gateway's secret.
        head.headers.remove(AUTHORIZATION);
    }
    for name in BOUNDS {
        head.headers.remove(name);
    }
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(place.path);
    head.uri = uri
        .build()
        .map_err(|_| Problem::invalid("the path below the module cannot be passed on"))?;
    head.extensions.clear();
    Ok(())
}

fn authority(head: &Parts) -> Result<Authority, Problem> {
    if let Some(authority) = head.uri.authority() {
        return Ok(authority.clone());
    }
    let host = head.headers.get(axum::http::header::HOST);
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    host.parse()
        .map_err(|_| Problem::invalid("the request names no host in its header Host"))
}

/// A body for the worker, a small one whole, any other as it comes; and who says when its client has left.
async fn passing(app: &App, body: Body) -> Result<(http::Body, oneshot::Receiver<()>), Problem> {
    let (leaving, left) = oneshot::channel();
    if bodies::announced(&body).is_some_and(|bytes| bytes <= SMALL_BYTES) {
        let whole = bodies::read(&app.admission, body, SMALL_BYTES, app.bounds.body_timeout).await?;
        return Ok((http::whole(whole), left));
    }
    let (sender, passing) = Channel::new(PIECES_AHEAD);
    app.lifecycle
        .spawn_brief("http body", pump(body, sender, leaving));
    Ok((passing.boxed_unsync(), left))
}

/// Passes a body on, until it ends or nobody reads it.
async fn pump(mut body: Body, mut sender: Sender<Bytes, Broken>, leaving: oneshot::Sender<()>) {
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                if sender.send(frame).await.is_err() {
                    return;
                }
            }
            Err(_) => {
                // Nobody listens once the head has been sent.
                let _ = leaving.send(());
                return sender.abort(Broken::new(ErrorCode::Cancelled, CLIENT_LEFT));
            }
        }
    }
}

/// A guest's response for the client. It holds the request's room until its last byte is written.
fn answered(app: &App, answer: http::Response, is_head: bool, room: Room) -> Response {
    let (mut head, body) = answer.into_parts();
    without_hops(&mut head.headers);
    let is_empty = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if head.status == StatusCode::NO_CONTENT {
        head.headers.remove(CONTENT_LENGTH);
    }
    let body = if is_head || is_empty {
        // The guest may go on to write what nobody gets; its own time bounds it.
        app.lifecycle.spawn_brief("http rest", drain(body, room));
        Body::empty()
    } else {
        Body::new(Roomed { body, _room: room })
    };
    let mut response = Response::from_parts(head, body).into_response();
    response.extensions_mut().insert(FromGuest);
    response
}

/// A body and the room that its request holds. What is known of its length stays known: a whole one goes out with its head.
struct Roomed {
    body: http::Body,
    _room: Room,
}

impl HttpBody for Roomed {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

async fn drain(mut body: http::Body, _room: Room) {
    while let Some(Ok(_)) = body.frame().await {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Admission;

    #[test]
    fn a_body_that_is_there_has_its_length_and_one_with_trailers_has_none() {
        let roomed = |body| Roomed {
            body,
            _room: Admission::new(1, 1).request().unwrap(),
        };
        let trailers = Some(axum::http::HeaderMap::new());
        assert_eq!(roomed(http::whole("hello".into())).size_hint().exact(), Some(5));
        assert_eq!(
            roomed(http::with_trailers("hello".into(), trailers))
                .size_hint()
                .exact(),
            None
        );
    }
}
