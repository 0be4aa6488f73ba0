//! The door to this worker inside its own process: the bus without NATS, for a gateway that shares the process.

use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;
use tokio_util::task::task_tracker::TaskTrackerToken;
use wess_schemas::subject::{Endpoint, Subjects};
use wess_schemas::{ErrorBody, ErrorCode};
use wess_service::bus::{Bus, BusError, HttpAnswer, HttpRequest, Reply, Request};

use crate::control::Control;
use crate::endpoints::http::{HttpTold, HttpWaiting};
use crate::endpoints::{error_reply, http};
use crate::executor::{Arrival, Executors};

/// The largest message taken and given here: the largest input as base64 in JSON, with room for the rest.
const MAX_PAYLOAD_BYTES: usize = 16 << 20;

/// A worker in this process, as a bus.
#[derive(Clone)]
pub struct Door {
    pub(crate) subjects: Subjects,
    pub(crate) executors: Executors,
    pub(crate) control: Control,
    /// Where the control plane runs.
    pub(crate) control_runtime: Handle,
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
            _ => {
                let (headers, trace) = (request.all_headers(), None);
                let request = Request {
                    headers,
                    trace,
                    ..request
                };
                self.control(request).await
            }
        }
    }

    /// Off the executor that this may be called on: much of it blocks, or takes long.
    async fn control(&self, request: Request) -> Reply {
        let control = self.control.clone();
        let handled = async move { control.handle(request, MAX_PAYLOAD_BYTES).await };
        let handled = AbortOnDropHandle::new(self.control_runtime.spawn(handled)).await;
        handled.unwrap_or_else(|_| error_reply(&stopped("the request")))
    }

    async fn serve(&self, request: HttpRequest) -> HttpAnswer {
        let Ok(Endpoint::Http(reference)) = self.subjects.parse(&request.subject) else {
            let text = format!("there is no endpoint {:?}", request.subject);
            return Err(ErrorBody::new(ErrorCode::InvalidRequest, text));
        };
        let (mut call, ended, answering) =
            http::call(reference, &request.headers, request.request, Instant::now())?;
        call.trace = request.trace.or(call.trace);
        let (tell, told) = oneshot::channel();
        let waiting = HttpWaiting::after_first_turn(ended, answering, tell);
        self.executors.dispatch_here(Arrival::Http(call, waiting))?;
        match told.await {
            Ok(HttpTold::Ended(response)) => response,
            // A guest that has broken its body off by then has no response.
            Ok(HttpTold::Answering(answering)) => answering.response().await.and_then(http::gathered),
            Err(_) => Err(stopped("the request")),
        }
    }

    async fn invoke(&self, endpoint: Endpoint, request: Request) -> Reply {
        let (reply, replied) = oneshot::channel();
        let arrival = Arrival::Message {
            endpoint,
            trace: request.trace,
            headers: request.headers,
            payload: request.payload,
            reply,
        };
        match self.executors.dispatch_here(arrival) {
            Ok(()) => replied
                .await
                .unwrap_or_else(|_| error_reply(&stopped("the call"))),
            Err(refused) => error_reply(&refused),
        }
    }
}

fn stopped(during: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::Internal, format!("the worker stopped during {during}"))
}
