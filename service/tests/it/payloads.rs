//! Large payloads by reference: bounded by the reader, verified before use.

use wess_harness::NatsServer;
use wess_schemas::ErrorCode;
use wess_schemas::payload::PayloadRef;
use wess_service::payloads::Payloads;

use crate::support::assets;

async fn payloads(server: &NatsServer) -> Payloads {
    assets(server).await.payloads()
}

#[tokio::test]
async fn a_payload_comes_back_whole_and_every_put_has_its_own_name() {
    let server = NatsServer::start();
    let payloads = payloads(&server).await;
    let bytes = vec![7; 3_000_000];
    let (first, second) = (
        payloads.put(&bytes).await.unwrap(),
        payloads.put(&bytes).await.unwrap(),
    );
    assert_ne!(first.object, second.object);
    assert_eq!((first.digest, first.size), (second.digest, 3_000_000));
    assert!(payloads.get(&second, 3_000_000).await.unwrap() == bytes);
}

#[tokio::test]
async fn a_reference_past_the_readers_limit_is_refused_unread() {
    let server = NatsServer::start();
    let payloads = payloads(&server).await;
    let reference = payloads.put(b"hello").await.unwrap();
    assert_eq!(
        payloads.get(&reference, 4).await.unwrap_err().code(),
        ErrorCode::PayloadTooLarge
    );
    assert_eq!(payloads.get(&reference, 5).await.unwrap(), "hello");
}

#[tokio::test]
async fn an_upload_past_its_limit_is_too_large() {
    let server = NatsServer::start();
    let payloads = payloads(&server).await;
    assert_eq!(payloads.put_stream(&b"hello"[..], 5).await.unwrap().size, 5);
    assert_eq!(
        payloads.put_stream(&b"hello!"[..], 5).await.unwrap_err().code(),
        ErrorCode::PayloadTooLarge
    );
}

#[tokio::test]
async fn a_reference_that_lies_or_leads_nowhere_is_an_invalid_request() {
    let server = NatsServer::start();
    let payloads = payloads(&server).await;
    let (good, other) = (
        payloads.put(b"hello").await.unwrap(),
        payloads.put(b"other").await.unwrap(),
    );
    let named = |object: &str| PayloadRef {
        object: object.into(),
        ..good.clone()
    };
    let names = [
        "",
        "no-such-object",
        "../../etc/passwd",
        "a.*.>",
        "sp ace\r\n",
        &"x".repeat(200),
    ]
    .map(named);
    let lies = [
        named(&other.object),
        PayloadRef {
            size: 4,
            ..good.clone()
        },
        PayloadRef {
            size: 9,
            ..good.clone()
        },
    ];
    for reference in names.iter().chain(&lies) {
        let error = payloads.get(reference, 100).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidRequest, "{reference:?}: {error}");
    }
}

#[tokio::test]
async fn a_used_payload_is_gone() {
    let server = NatsServer::start();
    let payloads = payloads(&server).await;
    let reference = payloads.put(b"hello").await.unwrap();
    payloads.discard(&reference).await;
    payloads.discard(&reference).await;
    assert!(payloads.get(&reference, 5).await.is_err());
}
