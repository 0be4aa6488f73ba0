//! What is stored is durable, found by every worker at once, and numbered without a gap in trust.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use serde_json::json;
use wess_harness::NatsServer;
use wess_schemas::module::Abi;
use wess_schemas::settings::Settings;
use wess_schemas::subject::BLOBS_BUCKET;
use wess_schemas::{ErrorCode, Limits, ModuleName, Reference};
use wess_worker::guest::Metering;
use wess_worker::registry::{NewModule, Resolved, Terms};

use crate::support::{Node, assets, digest_of, new_module, reference_of, wasm};

#[tokio::test]
async fn a_call_right_after_a_store_on_another_worker_finds_the_module() {
    let server = NatsServer::start();
    let (here, there) = (Node::start(&server).await, Node::start(&server).await);
    for number in 1..=20 {
        let published = here.store("hello", &wasm(number)).await;
        assert_eq!((published.version, published.stored), (number, true));
        let version = format!("hello@{number}");
        assert_eq!(there.digest_of(&version).await, Some(digest_of(&wasm(number))));
    }
    let resolved = there.registry.resolve(&reference_of("hello@20")).await.unwrap();
    assert_eq!(
        (resolved.abi, resolved.exports[0].name.as_str()),
        (Abi::Typed, "number")
    );
    assert!(
        there
            .registry
            .artifact(resolved.digest, Metering::Off)
            .await
            .is_ok()
    );
}

/// The ways to name what was stored as `name`, once it is known as `stored` where it was.
const FORMS: [fn(&str, &Resolved) -> Reference; 5] = [
    |name, _| reference_of(name),
    |name, _| reference_of(&format!("{name}@1")),
    |name, _| reference_of(&format!("{name}@{TAG}")),
    |_, stored| Reference::Digest(stored.digest),
    |_, stored| Reference::Id(stored.id.unwrap()),
];
const TAG: &str = "stable";

#[tokio::test]
async fn each_way_to_name_a_module_finds_it_as_the_first_question_about_it_on_another_worker() {
    /// Of each form; the mirror over there is fast, but not every time.
    const FIRST_QUESTIONS: u32 = 5;
    const MODULES: u32 = 200;
    let server = NatsServer::start();
    let (here, there) = (Node::start(&server).await, Node::start(&server).await);
    for (form, reference_to) in FORMS.into_iter().enumerate() {
        let mut first_questions = 0;
        for number in 0..MODULES {
            let (name, wasm) = (format!("m{form}-{number}"), wasm(form as u32 * MODULES + number));
            here.store(&name, &wasm).await;
            let reference = reference_to(&name, &here.registry.lookup(&reference_of(&name)).unwrap());
            if let Reference::Tag(name, tag) = &reference {
                here.registry.tag(name, tag, Some(1)).await.unwrap();
            }
            first_questions += u32::from(there.registry.lookup(&reference).is_none());
            let found = there.registry.resolve(&reference).await.unwrap();
            assert_eq!((found.digest, found.abi), (digest_of(&wasm), Abi::Typed));
            if first_questions == FIRST_QUESTIONS {
                break;
            }
        }
        assert_eq!(first_questions, FIRST_QUESTIONS, "of form {form}");
    }
}

#[tokio::test]
async fn twenty_stores_at_once_under_one_name_make_twenty_versions() {
    let server = NatsServer::start();
    let nodes = join_all((0..3).map(|_| Node::start(&server))).await;
    let stores = (0..20).map(|number| {
        let node = &nodes[number as usize % nodes.len()];
        async move { (node.store("hello", &wasm(number)).await, digest_of(&wasm(number))) }
    });
    let stored = join_all(stores).await;
    let last = stored.iter().map(|(published, _)| published.revision).max();
    nodes[0].has_seen(last.unwrap()).await;
    let stored: BTreeMap<_, _> = stored
        .into_iter()
        .map(|(published, digest)| (published.version, digest))
        .collect();
    assert_eq!(stored.len(), 20);
    let module = nodes[0].registry.describe(&reference_of("hello")).await.unwrap();
    let listed: BTreeMap<_, _> = module
        .versions
        .iter()
        .map(|version| (version.version, version.digest))
        .collect();
    assert_eq!(listed, stored);
    for (version, digest) in stored {
        assert_eq!(
            nodes[1].digest_of(&format!("hello@{version}")).await,
            Some(digest)
        );
    }
}

#[tokio::test]
async fn the_same_bytes_at_once_make_one_version() {
    let server = NatsServer::start();
    let (here, there) = (Node::start(&server).await, Node::start(&server).await);
    let wasm = wasm(1);
    let stores = (0..10).map(|at| {
        if at % 2 == 0 {
            here.store("hello", &wasm)
        } else {
            there.store("hello", &wasm)
        }
    });
    let stored = join_all(stores).await;
    let versions: BTreeSet<_> = stored.iter().map(|published| published.version).collect();
    assert_eq!(
        (
            versions.len(),
            stored.iter().filter(|published| published.stored).count()
        ),
        (1, 1)
    );
    let module = here.registry.describe(&reference_of("hello")).await.unwrap();
    assert_eq!(module.versions.len(), 1);
}

#[tokio::test]
async fn the_newest_bytes_again_make_no_version_and_older_ones_do() {
    let server = NatsServer::start();
    let node = Node::start(&server).await;
    let id = async || node.registry.describe(&reference_of("hello")).await.unwrap().id;
    node.store("hello", &wasm(1)).await;
    let first = id().await;
    assert!(!node.store("hello", &wasm(1)).await.stored);
    assert_eq!(node.store("hello", &wasm(2)).await.version, 2);
    let again = node.store("hello", &wasm(1)).await;
    assert_eq!((again.version, again.stored), (3, true));
    assert_eq!(node.digest_of("hello").await, Some(digest_of(&wasm(1))));
    assert_eq!(id().await, first);
}

#[tokio::test]
async fn terms_stay_unless_given_and_others_are_another_version_that_a_tag_leads_back_from() {
    let server = NatsServer::start();
    let node = Node::start(&server).await;
    let limits = |fuel| {
        Some(Limits {
            fuel,
            ..Limits::default()
        })
    };
    let store = async |number, limits| {
        node.registry
            .store(NewModule {
                terms: Terms {
                    limits,
                    settings: None,
                },
                ..new_module("hello", &wasm(number))
            })
            .await
            .unwrap()
            .stored
    };
    let fuel = async || {
        node.registry
            .resolve(&reference_of("hello"))
            .await
            .unwrap()
            .limits
            .fuel
    };
    assert!(store(1, limits(Some(500))).await);
    assert!(store(2, None).await);
    assert_eq!(fuel().await, Some(500));
    assert!(store(2, limits(Some(700))).await);
    assert!(!store(2, limits(Some(700))).await);
    assert!(!store(2, None).await);
    assert_eq!(fuel().await, Some(700));
    assert!(store(2, limits(None)).await);
    assert_eq!(fuel().await, None);
    let described = json!({"description": "counts", "env": {"A": "1"}});
    let settings: Settings = serde_json::from_value(described).unwrap();
    let terms = Terms {
        limits: None,
        settings: Some(settings.clone()),
    };
    let module = NewModule {
        terms,
        ..new_module("hello", &wasm(2))
    };
    let settled = node.registry.store(module).await.unwrap();
    assert_eq!((settled.version, settled.stored), (5, true));
    let stored = node.registry.resolve(&reference_of("hello")).await.unwrap();
    assert_eq!((&stored.settings, stored.limits), (&settings, Limits::default()));
    let (name, tag) = ("hello".parse().unwrap(), "stable".parse().unwrap());
    node.registry.tag(&name, &tag, Some(3)).await.unwrap();
    let before = node
        .registry
        .resolve(&reference_of("hello@stable"))
        .await
        .unwrap();
    assert_eq!(
        (before.limits.fuel, before.settings.is_empty()),
        (Some(700), true)
    );
    let by_digest = format!("{}", stored.digest);
    let nameless = node.registry.resolve(&reference_of(&by_digest)).await.unwrap();
    assert!(nameless.settings.is_empty(), "who names bytes is granted nothing");
}

#[tokio::test]
async fn what_cannot_be_run_is_refused_by_name_and_leaves_nothing() {
    let server = NatsServer::start();
    let node = Node::start(&server).await;
    let gzip = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0];
    let unknown_import =
        wat::parse_str(r#"(module (import "env" "nope" (func)) (func (export "f")))"#).unwrap();
    let cases: [(&[u8], ErrorCode, &str); 5] = [
        (b"", ErrorCode::InvalidModule, ""),
        (b"hello", ErrorCode::InvalidModule, ""),
        (&gzip, ErrorCode::InvalidModule, "gzip"),
        (&wasm(1)[..20], ErrorCode::InvalidModule, ""),
        (&unknown_import, ErrorCode::UnsupportedModule, "nope"),
    ];
    for (bytes, code, text) in cases {
        let refused = node.registry.store(new_module("hello", bytes)).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.error.message.contains(text), "{refused}");
    }
    let state = |info: async_nats::jetstream::stream::Info| info.state.messages;
    let assets = assets(&server).await;
    assert_eq!(state(assets.modules.stream.get_info().await.unwrap()), 0);
    assert!(
        assets
            .blobs
            .store
            .info(digest_of(&unknown_import).to_string())
            .await
            .is_err()
    );
    assert_eq!(node.registry.modules(), 0);
}

#[tokio::test]
async fn a_version_record_that_nobody_lists_is_skipped() {
    let server = NatsServer::start();
    let node = Node::start(&server).await;
    node.store("hello", &wasm(1)).await;
    let modules = assets(&server).await.modules;
    let orphan = modules.get("default.hello.v1").await.unwrap().unwrap();
    for key in ["default.hello.v2", "default.hello.v7", "default.other.v1"] {
        modules.put(key, orphan.clone()).await.unwrap();
    }
    assert_eq!(node.store("hello", &wasm(2)).await.version, 8);
    assert_eq!(node.store("other", &wasm(3)).await.version, 2);
    assert_eq!(node.digest_of("hello@2").await, None);
}

#[tokio::test]
async fn an_object_that_lost_its_chunks_is_stored_again() {
    let server = NatsServer::start();
    let node = Node::start(&server).await;
    let (wasm, digest) = (wasm(1), digest_of(&wasm(1)));
    node.store("hello", &wasm).await;
    let jetstream = async_nats::jetstream::new(node.connection.client.clone());
    let stream = jetstream.get_stream(format!("OBJ_{BLOBS_BUCKET}")).await.unwrap();
    stream
        .purge()
        .filter(format!("$O.{BLOBS_BUCKET}.C.>"))
        .await
        .unwrap();
    node.store("hello", &wasm).await;
    let fresh = Node::start(&server).await;
    assert!(fresh.registry.artifact(digest, Metering::Off).await.is_ok());
}

#[tokio::test]
async fn a_list_is_paged_by_name() {
    let server = NatsServer::start();
    let node = Node::start(&server).await;
    for name in ["b", "a-1", "c", "a-2"] {
        node.store(name, &wasm(1)).await;
    }
    let page = |after: Option<ModuleName>, limit| {
        let request = wess_schemas::module::ListRequest {
            prefix: None,
            after,
            limit: Some(limit),
        };
        let page = node.registry.list(&request).unwrap();
        (
            page.modules
                .into_iter()
                .map(|module| module.name.to_string())
                .collect::<Vec<_>>(),
            page.next,
        )
    };
    let (first, next) = page(None, 3);
    assert_eq!(first, ["a-1", "a-2", "b"]);
    assert_eq!(page(next, 3), (vec!["c".to_owned()], None));
    let too_many = wess_schemas::module::ListRequest {
        limit: Some(1001),
        ..Default::default()
    };
    assert_eq!(
        node.registry.list(&too_many).unwrap_err().code(),
        ErrorCode::InvalidRequest
    );
}
