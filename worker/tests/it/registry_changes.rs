//! Tags move, versions and modules go, and no number or id ever comes back as something else.

use futures_util::future::join_all;
use wess_harness::NatsServer;
use wess_schemas::{ErrorCode, Tag};

use crate::support::{Node, assets, digest_of, reference_of, wasm};

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

/// `hello` with three versions.
async fn hello(server: &NatsServer) -> Node {
    let node = Node::start(server).await;
    for number in 1..=3 {
        node.store("hello", &wasm(number)).await;
    }
    node
}

#[tokio::test]
async fn a_tag_moves_and_is_taken_away_for_every_worker() {
    let server = NatsServer::start();
    let (node, other) = (hello(&server).await, Node::start(&server).await);
    let name = "hello".parse().unwrap();
    node.registry.tag(&name, &tag("stable"), Some(1)).await.unwrap();
    other.shows("hello@stable").await;
    assert_eq!(other.digest_of("hello@stable").await, Some(digest_of(&wasm(1))));
    node.registry.tag(&name, &tag("stable"), Some(2)).await.unwrap();
    assert_eq!(node.digest_of("hello@stable").await, Some(digest_of(&wasm(2))));
    assert_eq!(node.digest_of("hello").await, Some(digest_of(&wasm(3))));
    node.registry.tag(&name, &tag("stable"), None).await.unwrap();
    other.forgets("hello@stable").await;
    let codes = [
        (
            node.registry.tag(&name, &tag("stable"), Some(4)).await,
            ErrorCode::ModuleNotFound,
        ),
        (
            node.registry.tag(&name, &tag("latest"), Some(1)).await,
            ErrorCode::InvalidRequest,
        ),
        (
            node.registry
                .tag(&"nobody".parse().unwrap(), &tag("a"), Some(1))
                .await,
            ErrorCode::ModuleNotFound,
        ),
    ];
    for (result, code) in codes {
        assert_eq!(result.unwrap_err().code(), code);
    }
}

#[tokio::test]
async fn tags_set_at_once_are_all_kept() {
    let server = NatsServer::start();
    let (node, other) = (hello(&server).await, Node::start(&server).await);
    let name = "hello".parse().unwrap();
    let tags: Vec<_> = (0..16).map(|at| tag(&format!("tag-{at}"))).collect();
    let set = tags.iter().enumerate().map(|(at, tag)| {
        let node = if at % 2 == 0 { &node } else { &other };
        node.registry.tag(&name, tag, Some(1))
    });
    let set = join_all(set).await.into_iter().map(|set| set.unwrap().revision);
    node.has_seen(set.max().unwrap()).await;
    let module = node.registry.describe(&reference_of("hello")).await.unwrap();
    assert_eq!(module.tags.len(), 17, "with latest");
}

#[tokio::test]
async fn a_deleted_version_is_gone_and_its_number_never_names_other_bytes() {
    let server = NatsServer::start();
    let (node, other) = (hello(&server).await, Node::start(&server).await);
    node.registry
        .tag(&"hello".parse().unwrap(), &tag("stable"), Some(2))
        .await
        .unwrap();
    let kept = node.registry.delete(&reference_of("hello@2")).await.unwrap_err();
    assert_eq!(kept.code(), ErrorCode::Conflict);
    let removed = node.registry.delete(&reference_of("hello@3")).await.unwrap();
    assert_eq!((removed.versions, removed.tags), (vec![3], vec![]));
    other.forgets("hello@3").await;
    assert_eq!(other.digest_of("hello").await, Some(digest_of(&wasm(2))));
    assert_eq!(node.store("hello", &wasm(9)).await.version, 4);
    assert_eq!(node.digest_of("hello@3").await, None);
    let again = node.registry.delete(&reference_of("hello@3")).await.unwrap_err();
    assert_eq!(again.code(), ErrorCode::ModuleNotFound);
}

#[tokio::test]
async fn a_deleted_tag_leaves_its_version() {
    let server = NatsServer::start();
    let node = hello(&server).await;
    node.registry
        .tag(&"hello".parse().unwrap(), &tag("stable"), Some(2))
        .await
        .unwrap();
    let removed = node.registry.delete(&reference_of("hello@stable")).await.unwrap();
    assert_eq!((removed.versions, removed.tags), (vec![], vec![tag("stable")]));
    assert_eq!(node.digest_of("hello@stable").await, None);
    assert_eq!(node.digest_of("hello@2").await, Some(digest_of(&wasm(2))));
    let again = node
        .registry
        .delete(&reference_of("hello@stable"))
        .await
        .unwrap_err();
    assert_eq!(again.code(), ErrorCode::ModuleNotFound);
}

#[tokio::test]
async fn a_deleted_module_is_gone_for_every_worker_and_one_stored_after_it_is_another() {
    let server = NatsServer::start();
    let (node, other) = (hello(&server).await, Node::start(&server).await);
    let before = node.registry.describe(&reference_of("hello")).await.unwrap();
    let removed = node
        .registry
        .delete(&reference_of(&before.id.to_string()))
        .await
        .unwrap();
    assert_eq!(removed.versions, [1, 2, 3]);
    other.forgets("hello").await;
    for reference in [
        "hello",
        "hello@1",
        &before.id.to_string(),
        &before.digest.to_string(),
    ] {
        let gone = other
            .registry
            .resolve(&reference_of(reference))
            .await
            .unwrap_err();
        assert_eq!(gone.code(), ErrorCode::ModuleNotFound, "{reference}");
    }
    assert_eq!(other.store("hello", &wasm(7)).await.version, 1);
    let after = node.registry.describe(&reference_of("hello@1")).await.unwrap();
    assert_ne!(after.id, before.id);
    assert_eq!((after.digest, after.versions.len()), (digest_of(&wasm(7)), 1));
    let versions = assets(&server).await.modules.keys().await.unwrap();
    let versions: Vec<String> = futures_util::TryStreamExt::try_collect(versions).await.unwrap();
    assert_eq!(versions.len(), 2, "{versions:?}");
}

#[tokio::test]
async fn a_digest_is_not_enough_to_delete_and_the_last_version_takes_the_module_with_it() {
    let server = NatsServer::start();
    let node = Node::start(&server).await;
    node.store("hello", &wasm(1)).await;
    let refused = node
        .registry
        .delete(&reference_of(&digest_of(&wasm(1)).to_string()))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), ErrorCode::InvalidRequest);
    node.registry.delete(&reference_of("hello@1")).await.unwrap();
    assert_eq!(node.digest_of("hello").await, None);
    assert_eq!(node.registry.modules(), 0);
}

#[tokio::test]
async fn stores_and_deletions_at_once_lose_no_module_that_was_stored_last() {
    let server = NatsServer::start();
    let (node, other) = (Node::start(&server).await, Node::start(&server).await);
    for round in 0..10 {
        let stores = join_all((0..4).map(|at| {
            let node = if at % 2 == 0 { &node } else { &other };
            async move { node.store("hello", &wasm(round * 10 + at)).await }
        }));
        let reference = reference_of("hello");
        let deletes = async {
            for _ in 0..3 {
                // There may be nothing to delete yet.
                let _ = other.registry.delete(&reference).await;
            }
        };
        tokio::join!(stores, deletes);
        let last = node.store("hello", &wasm(round * 10 + 9)).await;
        // Every version that a head lists has its record and its bytes.
        let module = other
            .registry
            .describe(&reference_of(&format!("hello@{}", last.version)))
            .await
            .unwrap();
        assert_eq!(module.digest, digest_of(&wasm(round * 10 + 9)));
        let listed = assets(&server)
            .await
            .modules
            .get("default.hello")
            .await
            .unwrap()
            .unwrap();
        let head: wess_schemas::module::ModuleHead = serde_json::from_slice(&listed).unwrap();
        assert_eq!(
            head.versions,
            module
                .versions
                .iter()
                .map(|version| version.version)
                .collect::<Vec<_>>()
        );
    }
}
