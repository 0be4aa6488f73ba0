//! What one run may still send and take in, and its way out.
//!
//! Invariant: whatever a run has under way ends with what it is held by, at the latest with the run.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body::Body;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::exchange::{Exchange, Held, ResponseBody};
use super::target::Target;
use super::{MAX_AT_ONCE, MAX_REQUESTS, MAX_URI_BYTES, Outbound, OutboundFault, Timeouts};

/// One run's way out.
#[derive(Debug)]
pub struct Allowance {
    outbound: Arc<Outbound>,
    requests: AtomicUsize,
    at_once: Arc<Semaphore>,
    bytes: Arc<RunBytes>,
}

/// Bytes of a run's bodies so far.
#[derive(Debug, Default)]
pub(super) struct RunBytes {
    pub sent: AtomicU64,
    pub received: AtomicU64,
}

/// Room for one request, in its run and in its worker.
pub(super) struct Room {
    _in_run: OwnedSemaphorePermit,
    _in_worker: OwnedSemaphorePermit,
}

impl Allowance {
    /// What a run may do that has done nothing yet.
    pub fn new(outbound: Arc<Outbound>) -> Self {
        Self {
            outbound,
            requests: AtomicUsize::new(0),
            at_once: Arc::new(Semaphore::new(MAX_AT_ONCE)),
            bytes: Arc::default(),
        }
    }

    /// Sends a request whose URI has scheme and authority, where its module's grants let it. It is under way at once,
    /// and is broken off when the future, or the body that comes of it, is dropped.
    pub fn send<B>(
        &self,
        granted: &BTreeSet<String>,
        request: Request<B>,
        timeouts: Timeouts,
    ) -> impl Future<Output = Result<Response<ResponseBody>, OutboundFault>> + Send + use<B>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let begun = self.begin(granted, request, timeouts);
        if let Err(fault) = &begun {
            self.outbound.stats().failed(*fault);
        }
        async move {
            let (head, held) = begun?;
            match head.await.unwrap_or(Err(OutboundFault::Internal)) {
                Ok(response) => Ok(response.map(|body| body.holding(held))),
                Err(fault) => Err(held.failed(fault)),
            }
        }
    }

    fn begin<B>(
        &self,
        granted: &BTreeSet<String>,
        mut request: Request<B>,
        timeouts: Timeouts,
    ) -> Result<(Head, Held), OutboundFault>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        if self.requests.fetch_add(1, Ordering::Relaxed) >= MAX_REQUESTS {
            return Err(OutboundFault::Denied);
        }
        let target = Target::of(request.uri(), granted, self.outbound.policy)?;
        address(&mut request, &target)?;
        let room = Room {
            _in_run: Arc::clone(&self.at_once)
                .try_acquire_owned()
                .map_err(|_| OutboundFault::TooManyAtOnce)?,
            _in_worker: self.outbound.permit()?,
        };
        let (tell, head) = oneshot::channel();
        let exchange = Exchange {
            outbound: Arc::clone(&self.outbound),
            target,
            timeouts,
            bytes: Arc::clone(&self.bytes),
        };
        let task = self
            .outbound
            .tasks
            .spawn_on(exchange.run(request, tell), &self.outbound.io);
        let held = Held::new(AbortOnDropHandle::new(task), room, self.outbound.stats().clone());
        Ok((head, held))
    }
}

type Head = oneshot::Receiver<Result<Response<ResponseBody>, OutboundFault>>;

/// Makes of a request for any host one for this host: a path, and headers that say where it goes.
fn address<B>(request: &mut Request<B>, target: &Target) -> Result<(), OutboundFault> {
    if request.method() == Method::CONNECT {
        return Err(OutboundFault::MethodInvalid);
    }
    let path = match request.uri().path_and_query().map_or("/", |path| path.as_str()) {
        query if query.starts_with('?') => format!("/{query}"),
        path => path.to_owned(),
    };
    if path.len() > MAX_URI_BYTES {
        return Err(OutboundFault::UriTooLong);
    }
    *request.uri_mut() = Uri::try_from(path).map_err(|_| OutboundFault::UriInvalid)?;
    let headers = request.headers_mut();
    headers.insert(HOST, target.host_header()?);
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::outbound::{MAX_UNDER_WAY, OutboundPolicy};

    fn granted() -> BTreeSet<String> {
        BTreeSet::from(["a.example".into(), "127.0.0.1:1".into()])
    }

    fn addressed(request: http::request::Builder) -> Result<Request<()>, OutboundFault> {
        let mut request = request.body(()).unwrap();
        let target = Target::of(request.uri(), &granted(), OutboundPolicy::Granted)?;
        address(&mut request, &target).map(|()| request)
    }

    #[test]
    fn a_request_says_its_path_and_its_host() {
        let hosts = "somebody.else";
        for (uri, path) in [
            ("http://a.example", "/"),
            ("http://a.example?a=b", "/?a=b"),
            ("http://a.example//other.example/x?a", "//other.example/x?a"),
        ] {
            let request = Request::get(uri)
                .header(HOST, hosts)
                .header(CONNECTION, "keep-alive");
            let request = addressed(request).expect(uri);
            assert_eq!(request.uri(), path, "{uri}");
            assert_eq!(request.headers()[HOST], "a.example");
            assert_eq!(request.headers()[CONNECTION], "close");
        }
    }

    #[test]
    fn what_no_host_is_asked_is_refused() {
        let long = format!("http://a.example/{}", "a".repeat(MAX_URI_BYTES));
        let refused = addressed(Request::get(long)).unwrap_err();
        assert_eq!(refused, OutboundFault::UriTooLong);
        let refused = addressed(Request::connect("http://a.example/")).unwrap_err();
        assert_eq!(refused, OutboundFault::MethodInvalid);
    }

    #[tokio::test]
    async fn a_worker_sends_only_so_many_requests_at_once() {
        let outbound = Outbound::open(OutboundPolicy::Granted, TaskTracker::new()).unwrap();
        let allowance = Allowance::new(Arc::clone(&outbound));
        let send = || {
            let request = Request::get("http://127.0.0.1:1/").body(Empty::new()).unwrap();
            allowance.send(&granted(), request, Timeouts::within(None, None, None))
        };
        let others: Vec<_> = (0..MAX_UNDER_WAY).map(|_| outbound.permit().unwrap()).collect();
        assert_eq!(send().await.err(), Some(OutboundFault::TooManyAtOnce));
        drop(others);
        assert_eq!(send().await.err(), Some(OutboundFault::Refused));
        assert_eq!(outbound.under_way(), 0);
    }
}
