//! The door to this worker inside its own process: the bus without NATS, for a gateway that shares the process.

use std::time::Instant;

use async_nats::HeaderMap;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio_util::task::task_tracker::TaskTrackerToken;
use wess_schemas::subject::{Endpoint, Subjects};
use wess_schemas::{ErrorBody, ErrorCode};
use wess_service::bus::{Bus, BusError, HttpAnswer, HttpRequest, Reply, Request};
use wess_service::http::{Gathered, Response};

use crate::control::Control;
use crate::endpoints::{error_reply, http};
use crate::executor::{Arrival, Executors};

/// The largest message taken and given here: the largest input as base64 in JSON, with room for the rest.
const MAX_PAYLOAD_BYTES: usize = 16 << 20;

/// How much of a response is read before its head goes out, if it is there.
const AHEAD_BYTES: usize = 64 << 10;

/// A worker in this process, as a bus.
#[derive(Clone)]
pub struct Door {
    pub(crate) subjects: Subjects,
    pub(crate) executors: Executors,
    pub(crate) control: Control,
    pub(crate) _held: TaskTrackerToken,
}

impl Bus for Door {
    fn request(&self, request: Request) -> BoxFuture<'_, Result<Reply, BusError>> {
        let (timeout, subject) = (request.timeout, request.subject.clone());
        async move {
            let answered = tokio::time::timeout(timeout, self.answer(request)).await;
            answered.map_err(|_| BusError::TimedOut { subject, timeout })
        }
        .boxed()
    }

    fn http(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpAnswer, BusError>> {
        let (timeout, subject) = (request.timeout, request.subject.clone());
        async move {
            let answered = tokio::time::timeout(timeout, self.serve(request)).await;
            answered.map_err(|_| BusError::TimedOut { subject, timeout })
        }
        .boxed()
    }

    fn max_payload(&self) -> usize {
        MAX_PAYLOAD_BYTES
    }
}

impl Door {
    async fn answer(&self, request: Request) -> Reply {
        match self.subjects.parse(&request.subject) {
            Ok(endpoint @ (Endpoint::Invoke | Endpoint::InvokeRaw(..))) => {
                self.invoke(endpoint, request).await
            }
            _ => self.control.handle(request, MAX_PAYLOAD_BYTES).await,
        }
    }

    async fn serve(&self, request: HttpRequest) -> HttpAnswer {
        let Ok(Endpoint::Http(reference)) = self.subjects.parse(&request.subject) else {
            let text = format!("there is no endpoint {:?}", request.subject);
            return Err(ErrorBody::new(ErrorCode::InvalidRequest, text));
        };
        let (call, ended, answering) =
            http::call(reference, &request.headers, request.request, Instant::now())?;
        self.executors.dispatch(Arrival::Http(call, ended))?;
        // A guest that has not finished its body well by now has no response.
        let (head, body) = answering.response().await?.into_parts();
        let gathered = Gathered::new(body, AHEAD_BYTES).map_err(|broken| broken.0)?;
        Ok(Response::from_parts(head, gathered.into_body()))
    }

    async fn invoke(&self, endpoint: Endpoint, request: Request) -> Reply {
        let (reply, replied) = oneshot::channel();
        let headers: HeaderMap = request.headers;
        let arrival = Arrival::Message {
            endpoint,
            headers,
            payload: request.payload,
            reply,
        };
        let stopped = || {
            error_reply(&ErrorBody::new(
                ErrorCode::Internal,
                "the worker stopped during the call",
            ))
        };
        match self.executors.dispatch(arrival) {
            Ok(()) => replied.await.unwrap_or_else(|_| stopped()),
            Err(refused) => error_reply(&refused),
        }
    }
}
