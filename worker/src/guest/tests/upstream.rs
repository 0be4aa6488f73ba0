//! A server that tests' guests send requests to: the path of a request says what it does with it.
//!
//! What it saw, and which connections are over, is told to the test, so that nothing is waited for by time.

use std::convert::Infallible;
use std::io::Error as Broken;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

type Body = UnsyncBoxBody<Bytes, Broken>;

/// A running server; it ends with the test.
pub struct Upstream {
    pub address: SocketAddr,
    /// The head of every request, as it came.
    pub seen: Arc<Mutex<Vec<::http::request::Parts>>>,
    begun: mpsc::UnboundedReceiver<()>,
    over: mpsc::UnboundedReceiver<()>,
    _tasks: JoinSet<()>,
}

impl Upstream {
    /// In the clear.
    pub async fn start() -> Self {
        Self::with(None, "/").await
    }

    /// Through TLS.
    pub async fn tls(acceptor: TlsAcceptor) -> Self {
        Self::with(Some(acceptor), "/").await
    }

    /// Answers every connection with these bytes, whatever comes, and closes it.
    pub async fn saying(bytes: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio_util::task::TaskTracker::new().spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                // As much of a request as comes at once is enough: these are short.
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(bytes).await;
            }
        });
        address
    }

    /// In the clear; redirects lead to this place.
    pub async fn leading_to(place: &str) -> Self {
        Self::with(None, place).await
    }

    async fn with(tls: Option<TlsAcceptor>, place: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ((began, begun), (ended, over)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let (seen, place): (Arc<Mutex<Vec<_>>>, Arc<str>) = (Arc::default(), place.into());
        let noted = Arc::clone(&seen);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, place, seen) = (tls.clone(), Arc::clone(&place), Arc::clone(&noted));
                let (began, ended) = (began.clone(), ended.clone());
                connections.spawn(async move {
                    match tls {
                        None => serve(stream, seen, place, began).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, seen, place, began).await;
                            }
                        }
                    }
                    let _ = ended.send(());
                });
            }
        });
        Self {
            address,
            seen,
            begun,
            over,
            _tasks: tasks,
        }
    }

    /// Returns once a request has come.
    pub async fn request(&mut self) {
        self.begun.recv().await.unwrap();
    }

    /// Returns once so many connections are over.
    pub async fn connections_over(&mut self, count: usize) {
        for _ in 0..count {
            self.over.recv().await.unwrap();
        }
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    seen: Arc<Mutex<Vec<::http::request::Parts>>>,
    place: Arc<str>,
    began: mpsc::UnboundedSender<()>,
) {
    let answer = service_fn(|request: ::http::Request<Incoming>| {
        let (head, body) = request.into_parts();
        seen.lock().unwrap().push(head.clone());
        let _ = began.send(());
        let place = Arc::clone(&place);
        async move { Ok::<_, Infallible>(answer(head.uri.path(), &place, body).await) }
    });
    // How it ended is the client's to say.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}

async fn answer(path: &str, place: &str, body: Incoming) -> ::http::Response<Body> {
    let response = ::http::Response::builder();
    match path {
        "/echo" => response.body(body.map_err(Broken::other).boxed_unsync()),
        "/sink" => {
            let mut body = body;
            while let Some(Ok(_)) = body.frame().await {}
            response.body(whole("taken"))
        }
        "/redirect" => response.status(302).header("location", place).body(whole("")),
        "/never" => std::future::pending().await,
        "/announced" => response.header("content-length", u64::MAX / 2).body(for_ever()),
        "/forever" => response.body(for_ever()),
        "/stalls" => {
            let first = stream::iter([Ok(Frame::data(Bytes::from_static(b"some")))]);
            response.body(streamed(first.chain(stream::pending())))
        }
        "/midway" => {
            let pieces = [
                Ok(Frame::data(Bytes::from_static(b"some"))),
                Err(Broken::other("closed midway")),
            ];
            response
                .header("content-length", 100)
                .body(streamed(stream::iter(pieces)))
        }
        _ => response.header("x-from", "upstream").body(whole("hello")),
    }
    .unwrap()
}

fn whole(text: &'static str) -> Body {
    Full::from(text).map_err(|never| match never {}).boxed_unsync()
}

fn streamed(pieces: impl stream::Stream<Item = Result<Frame<Bytes>, Broken>> + Send + 'static) -> Body {
    StreamBody::new(pieces).boxed_unsync()
}

fn for_ever() -> Body {
    static ZEROS: [u8; 32 << 10] = [0; 32 << 10];
    streamed(stream::repeat_with(|| {
        Ok(Frame::data(Bytes::from_static(&ZEROS)))
    }))
}
