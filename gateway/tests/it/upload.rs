//! Taking modules in: small ones in the message, large ones through the object store, none that was cut short.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json as value};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use wess_schemas::ErrorCode;
use wess_schemas::payload::{PayloadBucket, PayloadRef};
use wess_schemas::store::STORE_TIMEOUT;
use wess_service::bus::{BusError, Request};
use wess_service::payloads::Payloads;

use crate::http::{head, post, read_to_end};
use crate::support::{House, Workers, digest, golden, json, noise, raw, refusal};

fn module(stored: bool) -> Value {
    let mut module = golden("module");
    module["name"] = value!("upper");
    module["version"] = value!(2);
    module["stored"] = value!(stored);
    module
}

#[tokio::test]
async fn a_small_module_travels_in_the_message_and_a_new_version_is_201() {
    let workers = Workers::answering(|_| Ok(json(&module(true))));
    let house = House::start(workers.clone()).await;
    let answer = post(house.address, "/v1/modules?name=upper", "wasm").await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (201, Some("/v1/modules/upper@2"))
    );
    assert_eq!(answer.json::<Value>(), module(true));
    let request = workers.asked();
    assert_eq!(
        (request.subject.as_str(), &request.payload[..]),
        ("wess.store", &b"wasm"[..])
    );
    assert_eq!(request.headers.get("Wess-Module").unwrap().as_str(), "upper");
}

#[tokio::test]
async fn bytes_that_are_the_newest_version_are_200() {
    let house = House::start(Workers::answering(|_| Ok(json(&module(false))))).await;
    let answer = post(house.address, "/v1/modules?name=upper", "wasm").await;
    assert_eq!((answer.status, answer.header("location")), (200, None));
}

#[tokio::test]
async fn limits_go_along() {
    let workers = Workers::answering(|_| Ok(json(&module(true))));
    let house = House::start(workers.clone()).await;
    let path = "/v1/modules?name=upper&timeout_ms=1&memory_mb=2&fuel=3&output_bytes=4";
    assert_eq!(post(house.address, path, "wasm").await.status, 201);
    let limits = value!({ "timeout_ms": 1, "memory_mb": 2, "fuel": 3, "output_bytes": 4 });
    let sent: Value = serde_json::from_slice(&workers.asked().payload).unwrap();
    assert_eq!(
        sent,
        value!({ "name": "upper", "wasm_base64": "d2FzbQ==", "limits": limits })
    );
}

/// Workers that fetch what they are to store, as real ones do, and keep its size and digest.
#[derive(Clone, Default)]
struct Fetching {
    payloads: Arc<Mutex<Option<Payloads>>>,
    fetched: Arc<Mutex<Vec<(PayloadRef, u64)>>>,
}

impl Fetching {
    async fn house(&self, refuse: bool) -> House {
        let this = self.clone();
        let workers = Workers::new(move |request| {
            let this = this.clone();
            Box::pin(async move {
                let sent: Value = serde_json::from_slice(&request.payload).unwrap();
                let (object, digest) = (
                    sent["object"].as_str().unwrap().to_owned(),
                    sent["digest"].clone(),
                );
                this.fetch(object, serde_json::from_value(digest).unwrap()).await;
                let refused = wess_schemas::ErrorBody::new(ErrorCode::InvalidModule, "no Wasm");
                Ok(if refuse {
                    refusal(&refused)
                } else {
                    json(&module(true))
                })
            })
        });
        let house = House::start(workers).await;
        *self.payloads.lock().unwrap() = Some(house.payloads());
        house
    }

    /// The size is not told: it is looked for, as a worker does that bounds it by its own limit.
    async fn fetch(&self, object: String, digest: wess_schemas::Digest) {
        let payloads = self.payloads.lock().unwrap().clone().unwrap();
        for size in [64 * 1024 * 1024, 600_000, 3] {
            let reference = PayloadRef {
                bucket: PayloadBucket::default(),
                object: object.clone(),
                digest,
                size,
            };
            let mut count = Counting(0);
            if payloads.copy(&reference, u64::MAX, &mut count).await.is_ok() {
                self.fetched.lock().unwrap().push((reference, count.0));
            }
        }
    }

    fn only(&self) -> (PayloadRef, u64) {
        let fetched = self.fetched.lock().unwrap();
        assert_eq!(fetched.len(), 1, "{fetched:?}");
        fetched[0].clone()
    }
}

/// Counts what is written to it.
struct Counting(u64);

impl tokio::io::AsyncWrite for Counting {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        self.0 += buf.len() as u64;
        std::task::Poll::Ready(Ok(buf.len()))
    }
    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_module_of_64_mib_streams_through_the_object_store() {
    let workers = Fetching::default();
    let house = workers.house(false).await;
    let wasm = noise(64 * 1024 * 1024);
    let answer = post(house.address, "/v1/modules?name=upper", &wasm).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let (reference, size) = workers.only();
    assert_eq!((reference.digest, size), (digest(&wasm), wasm.len() as u64));
    assert!(
        house.payloads().get(&reference, u64::MAX).await.is_err(),
        "the upload was kept"
    );
}

#[tokio::test]
async fn a_refused_upload_is_deleted_too() {
    let workers = Fetching::default();
    let house = workers.house(true).await;
    let answer = post(house.address, "/v1/modules?name=upper", noise(600_000)).await;
    assert_eq!(
        (answer.status, answer.problem().code),
        (422, ErrorCode::InvalidModule)
    );
    assert!(house.payloads().get(&workers.only().0, u64::MAX).await.is_err());
}

async fn chunked(house: &House, chunks: &[u8], ends: bool) -> TcpStream {
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    let headers = [("Transfer-Encoding", "chunked"), ("Connection", "close")];
    stream
        .write_all(head("POST", "/v1/modules?name=upper", &headers).as_bytes())
        .await
        .unwrap();
    stream.write_all(chunks).await.unwrap();
    if ends {
        stream.write_all(b"0\r\n\r\n").await.unwrap();
    }
    stream
}

#[tokio::test]
async fn a_module_of_unknown_length_streams_whatever_its_size() {
    let workers = Fetching::default();
    let house = workers.house(false).await;
    let mut stream = chunked(&house, b"2\r\nwa\r\n1\r\ns\r\n", true).await;
    assert_eq!(read_to_end(&mut stream).await.status, 201);
    assert_eq!(workers.only().0.digest, digest(b"was"));
}

#[tokio::test]
async fn a_module_of_unknown_length_that_is_too_large_is_413() {
    let house = House::with_options(Workers::none(), &["--http-max-module-mb", "1"]).await;
    let piece = [b"10000\r\n".as_slice(), &[0; 65536], b"\r\n"].concat();
    let mut stream = chunked(&house, &piece.repeat(17), true).await;
    let answer = read_to_end(&mut stream).await;
    assert_eq!(
        (answer.status, answer.problem().code),
        (413, ErrorCode::PayloadTooLarge)
    );
}

#[tokio::test]
async fn a_module_that_is_cut_short_is_not_stored() {
    let workers = Workers::none();
    let house = House::start(workers.clone()).await;
    let mut stream = chunked(&house, b"2\r\nwa\r\n", false).await;
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await;
    assert_eq!(workers.times_asked(), 0);
}

#[tokio::test]
async fn a_module_that_does_not_come_in_time_is_refused() {
    let house = House::with_options(Workers::none(), &["--http-upload-timeout-s", "1"]).await;
    let mut stream = chunked(&house, b"2\r\nwa\r\n", false).await;
    let answer = read_to_end(&mut stream).await;
    assert_eq!(answer.status, 400);
    assert!(answer.problem().detail.contains("within 1s"), "{}", answer.text());
}

#[tokio::test]
async fn a_client_that_waits_to_be_asked_for_the_body_is_asked() {
    let house = House::start(Workers::answering(|_| Ok(raw("ok", &[])))).await;
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    let headers = [
        ("Expect", "100-continue"),
        ("Content-Length", "1"),
        ("Connection", "close"),
    ];
    stream
        .write_all(head("POST", "/v1/modules/a/invoke", &headers).as_bytes())
        .await
        .unwrap();
    let mut line = [0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut line)
        .await
        .unwrap();
    assert_eq!(&line, b"HTTP/1.1 100");
    stream.write_all(b"x").await.unwrap();
    let mut rest = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut rest)
        .await
        .unwrap();
    assert!(rest.contains("HTTP/1.1 200"), "{rest}");
}

#[tokio::test]
async fn an_upload_stays_while_a_worker_may_still_be_at_it() {
    type Way = fn(Request) -> BusError;
    let ways: [(Way, bool); 2] = [
        (
            |request| BusError::TimedOut {
                subject: request.subject,
                timeout: request.timeout,
            },
            true,
        ),
        (
            |request| BusError::NoWorkers {
                subject: request.subject,
            },
            false,
        ),
    ];
    for (way, stays) in ways {
        let workers = Workers::answering(move |request| Err(way(request)));
        let house = House::start(workers.clone()).await;
        let wasm = noise(2 * 1024 * 1024);
        assert!(post(house.address, "/v1/modules?name=a", &wasm).await.status >= 500);
        let request = workers.asked();
        assert_eq!(request.timeout, STORE_TIMEOUT);
        let sent: Value = serde_json::from_slice(&request.payload).unwrap();
        let reference = PayloadRef {
            bucket: PayloadBucket::default(),
            object: sent["object"].as_str().unwrap().into(),
            digest: digest(&wasm),
            size: wasm.len() as u64,
        };
        let found = house.payloads().get(&reference, u64::MAX).await;
        assert_eq!(found.is_ok(), stays);
    }
}
