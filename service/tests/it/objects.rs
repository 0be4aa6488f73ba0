//! Objects whose metadata lie: whoever may upload may also write those.

use async_nats::jetstream::object_store::ObjectMetadata;
use wess_harness::NatsServer;
use wess_schemas::Digest;
use wess_service::objects::{self, Bucket, ObjectError, Stored};

use crate::support::{assets, jetstream};

async fn store(server: &NatsServer) -> Bucket {
    assets(server).await.blobs
}

async fn copy(store: &Bucket, object: &str, expected: Stored) -> Result<Vec<u8>, ObjectError> {
    let mut bytes = Vec::new();
    objects::copy(store, object, expected, &mut bytes)
        .await
        .map(|()| bytes)
}

#[tokio::test]
async fn bytes_of_every_size_around_a_chunk_come_back() {
    let server = NatsServer::start();
    let store = store(&server).await;
    for size in [0, 1, 131_071, 131_072, 131_073, 1_500_000] {
        let bytes: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        let stored = objects::put(&store, "object", bytes.as_slice(), size as u64)
            .await
            .unwrap();
        assert_eq!(stored.size, size as u64);
        assert!(copy(&store, "object", stored).await.unwrap() == bytes, "{size}");
    }
}

#[tokio::test]
async fn other_bytes_than_those_asked_for_are_a_mismatch() {
    let server = NatsServer::start();
    let store = store(&server).await;
    let stored = objects::put(&store, "object", &b"hello"[..], 5).await.unwrap();
    let wrong = [
        Stored { size: 4, ..stored },
        Stored { size: 6, ..stored },
        Stored {
            digest: Digest::from_bytes([0; 32]),
            ..stored
        },
    ];
    for expected in wrong {
        let error = copy(&store, "object", expected).await.unwrap_err();
        assert!(
            matches!(error, ObjectError::Mismatch { .. }),
            "{expected:?}: {error}"
        );
    }
}

#[tokio::test]
async fn a_link_is_not_followed_even_in_circles() {
    let server = NatsServer::start();
    let store = store(&server).await;
    let stored = objects::put(&store, "target", &b"hello"[..], 5).await.unwrap();
    store
        .store
        .add_link("link", &store.store.info("target").await.unwrap())
        .await
        .unwrap();
    let error = copy(&store, "link", stored).await.unwrap_err();
    assert!(matches!(error, ObjectError::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn a_source_past_the_limit_leaves_no_object() {
    let server = NatsServer::start();
    let store = store(&server).await;
    let error = objects::put(&store, "object", &b"hello"[..], 4)
        .await
        .unwrap_err();
    assert!(matches!(error, ObjectError::TooLarge { limit: 4, .. }), "{error}");
    assert!(store.store.info("object").await.is_err());
}

#[tokio::test]
async fn an_object_that_is_not_there_is_not_found_and_counts_as_deleted() {
    let server = NatsServer::start();
    let store = store(&server).await;
    let stored = objects::put(&store, "object", &b"hello"[..], 5).await.unwrap();
    objects::delete(&store, "object").await.unwrap();
    objects::delete(&store, "object").await.unwrap();
    for object in ["object", "never"] {
        let error = copy(&store, object, stored).await.unwrap_err();
        assert!(matches!(error, ObjectError::NotFound { .. }), "{object}: {error}");
    }
}

#[tokio::test]
async fn an_object_put_by_another_client_is_read() {
    let server = NatsServer::start();
    let store = store(&server).await;
    let expected = objects::put(&store, "ours", &b"hello"[..], 5).await.unwrap();
    let metadata = ObjectMetadata {
        name: "theirs".into(),
        chunk_size: Some(2),
        ..Default::default()
    };
    store.store.put(metadata, &mut &b"hello"[..]).await.unwrap();
    assert_eq!(copy(&store, "theirs", expected).await.unwrap(), b"hello");
}

#[tokio::test]
async fn an_object_of_countless_tiny_chunks_is_given_up() {
    let server = NatsServer::start();
    let store = store(&server).await;
    let jetstream = jetstream(&server).await;
    let stream = jetstream.get_stream("OBJ_wess-blobs").await.unwrap();
    for (chunks, is_read) in [(64, true), (65, false)] {
        let expected = objects::put(&store, "crumbs", &*vec![7; chunks], 100)
            .await
            .unwrap();
        let subject = format!(
            "$O.wess-blobs.C.{}",
            store.store.info("crumbs").await.unwrap().nuid
        );
        stream.purge().filter(&subject).await.unwrap();
        for _ in 0..chunks {
            let published = jetstream.publish(subject.clone(), vec![7].into()).await;
            published.unwrap().await.unwrap();
        }
        match copy(&store, "crumbs", expected).await {
            Ok(read) => assert!(is_read && read == vec![7; chunks]),
            Err(error) => assert!(
                !is_read && matches!(error, ObjectError::Mismatch { .. }),
                "{error}"
            ),
        }
    }
}

#[tokio::test]
async fn a_store_that_is_away_is_unavailable() {
    let mut server = NatsServer::start();
    let store = store(&server).await;
    let stored = objects::put(&store, "object", &b"hello"[..], 5).await.unwrap();
    server.kill();
    let error = copy(&store, "object", stored).await.unwrap_err();
    assert!(matches!(error, ObjectError::Unavailable { .. }), "{error}");
}
