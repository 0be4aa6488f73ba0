//! Records: what is asked of workers, and that their JSON comes back as it was. Bytes: verified on their way out.

use serde_json::{Value, json as value};
use wess_schemas::ErrorCode;
use wess_service::objects;

use crate::http::{get, send};
use crate::support::{House, Workers, digest, golden, json, noise};

#[tokio::test]
async fn each_question_reaches_its_subject_and_its_answer_comes_back_as_it_was() {
    let cases = [
        (
            "GET",
            "/v1/modules",
            "",
            "wess.modules.list",
            value!({}),
            "module-list",
        ),
        (
            "GET",
            "/v1/modules?prefix=up&after=upper&limit=7",
            "",
            "wess.modules.list",
            value!({"prefix": "up", "after": "upper", "limit": 7}),
            "module-list",
        ),
        (
            "GET",
            "/v1/modules/upper@2",
            "",
            "wess.modules.get.upper@2",
            Value::Null,
            "module",
        ),
        (
            "DELETE",
            "/v1/modules/upper@stable",
            "",
            "wess.modules.delete.upper@stable",
            Value::Null,
            "deleted",
        ),
        (
            "PUT",
            "/v1/modules/upper/tags/stable",
            r#"{"version":3}"#,
            "wess.modules.tag.upper",
            value!({"tag": "stable", "version": 3}),
            "module",
        ),
        (
            "PUT",
            "/v1/modules/upper/tags/stable?version=4",
            "",
            "wess.modules.tag.upper",
            value!({"tag": "stable", "version": 4}),
            "module",
        ),
        (
            "DELETE",
            "/v1/modules/upper/tags/stable",
            "",
            "wess.modules.tag.upper",
            value!({"tag": "stable", "version": null}),
            "module",
        ),
    ];
    for (method, path, body, subject, sent, reply) in cases {
        let workers = Workers::answering(move |_| Ok(json(&golden(reply))));
        let house = House::start(workers.clone()).await;
        let answer = send(house.address, method, path, &[], body).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("application/json")),
            "{path}"
        );
        assert_eq!(answer.json::<Value>(), golden(reply));
        let request = workers.asked();
        assert_eq!(request.subject, subject);
        let payload = if request.payload.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&request.payload).unwrap()
        };
        assert_eq!(payload, sent, "{path}");
    }
}

/// A gateway whose workers say that `named` lies in the object store, where `stored` lies.
async fn serving(stored: Vec<u8>, named: &[u8]) -> House {
    let (digest, size) = (digest(named), named.len());
    let location = value!({ "bucket": "wess-blobs", "object": "blob", "digest": digest, "size": size });
    let house = House::start(Workers::answering(move |_| Ok(json(&location)))).await;
    objects::put(&house.assets.blobs, "blob", stored.as_slice(), u64::MAX)
        .await
        .unwrap();
    house
}

const WASM: &str = "/v1/modules/upper/wasm";

#[tokio::test]
async fn a_module_comes_back_whole_with_its_digest_as_its_tag() {
    for size in [1, 5 * 1024 * 1024] {
        let wasm = noise(size);
        let house = serving(wasm.clone(), &wasm).await;
        let answer = get(house.address, WASM).await;
        assert!(answer.is_whole() && answer.body == wasm, "{size}");
        assert_eq!(answer.header("content-type"), Some("application/wasm"));
        assert_eq!(answer.header("etag").unwrap(), format!("\"{}\"", digest(&wasm)));
    }
}

#[tokio::test]
async fn a_chain_comes_back_as_the_json_that_it_is() {
    let chain = br#" {"steps":["upper"]}"#;
    let house = serving(chain.to_vec(), chain).await;
    let answer = get(house.address, WASM).await;
    assert!(answer.is_whole() && answer.body == chain);
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn a_client_that_has_the_bytes_is_told_so() {
    let house = serving(b"wasm".to_vec(), b"wasm").await;
    let etag = format!("\"{}\"", digest(b"wasm"));
    let answer = send(house.address, "GET", WASM, &[("If-None-Match", &etag)], "").await;
    assert_eq!(
        (answer.status, answer.header("etag"), answer.body.len()),
        (304, Some(etag.as_str()), 0)
    );
    let other = format!("\"{}\"", digest(b"other"));
    let answer = send(house.address, "GET", WASM, &[("If-None-Match", &other)], "").await;
    assert_eq!((answer.status, answer.text()), (200, "wasm"));
}

#[tokio::test]
async fn a_small_module_with_wrong_bytes_is_a_problem() {
    for stored in [&b"wess"[..], b"was", b"wasms"] {
        let house = serving(stored.to_vec(), b"wasm").await;
        let answer = get(house.address, WASM).await;
        assert_eq!((answer.status, answer.problem().code), (500, ErrorCode::Internal));
    }
}

#[tokio::test]
async fn a_large_module_with_wrong_bytes_is_broken_off() {
    let wasm = noise(5 * 1024 * 1024);
    let mut wrong = wasm.clone();
    *wrong.last_mut().unwrap() ^= 1;
    let house = serving(wrong, &wasm).await;
    let answer = get(house.address, WASM).await;
    assert_eq!(answer.status, 200);
    assert!(!answer.is_whole() && answer.body.len() < wasm.len());
    for of_other_size in [wasm[..wasm.len() - 1].to_vec(), [&wasm[..], b"x"].concat()] {
        let house = serving(of_other_size, &wasm).await;
        let answer = get(house.address, WASM).await;
        assert_eq!((answer.status, answer.problem().code), (500, ErrorCode::Internal));
    }
}

#[tokio::test]
async fn a_module_whose_bytes_are_gone_is_a_problem() {
    let house = serving(b"wasm".to_vec(), b"wasm").await;
    objects::delete(&house.assets.blobs, "blob").await.unwrap();
    assert_eq!(get(house.address, WASM).await.problem().code, ErrorCode::Internal);
}
