//! Messages that components send: to which topics, with which metadata, and how many a run may hold.

use super::*;
use crate::guest::component::messaging::{
    MAX_HELD_BYTES, MAX_MESSAGE_BYTES, MAX_METADATA, MAX_METADATA_BYTES,
};

fn messenger(topics: &[&str]) -> Guest {
    let mut settings = Settings::default();
    settings.grants.publish = topics.iter().map(|topic| (*topic).to_owned()).collect();
    let mut guest = Guest::file("component/messenger.wat");
    guest.host = Arc::new(MemoryHost {
        settings,
        ..MemoryHost::default()
    });
    guest
}

async fn call(guest: &Guest, name: &str, given: Value) -> Value {
    guest.results(named(name, args(given))).await[0].clone()
}

async fn send(guest: &Guest, topic: &str, data: &str, metadata: Value) -> Value {
    let data = json!(data.as_bytes());
    call(guest, "send", json!([topic, data, null, metadata])).await
}

/// The kind of an error, and that it says why.
#[track_caller]
fn refused(kind: &str, why: &str, answer: &Value) {
    let text = answer["err"][kind].as_str();
    assert!(
        text.is_some_and(|text| text.contains(why)),
        "{answer} is no {kind} with {why}"
    );
}

#[tokio::test]
async fn a_message_goes_out_with_its_metadata_and_content_type() {
    let guest = messenger(&["orders.new"]);
    let ok = json!({"ok": null});
    assert_eq!(send(&guest, "orders.new", "plain", json!([])).await, ok);
    let given = json!(["orders.new", [104, 105], "text/plain", [["a", "1"], ["b", "ü"]]]);
    assert_eq!(call(&guest, "send", given).await, ok);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let headers = vec![pair("a", "1"), pair("b", "ü"), pair("Content-Type", "text/plain")];
    let published = guest.host.published.lock().unwrap().clone();
    let expected = [
        ("orders.new".to_owned(), vec![], Bytes::from("plain")),
        ("orders.new".to_owned(), headers, Bytes::from("hi")),
    ];
    assert_eq!(published, expected);
}

#[tokio::test]
async fn what_is_not_granted_is_denied() {
    let none = messenger(&[]);
    let answer = send(&none, "orders.new", "x", json!([])).await;
    refused("permission-denied", "granted no subject", &answer);
    let other = messenger(&["orders.new"]);
    let answer = send(&other, "orders.old", "x", json!([])).await;
    refused("permission-denied", "not granted", &answer);
    let answer = send(&other, &"t".repeat(256), "x", json!([])).await;
    refused("other", "255 bytes", &answer);
    assert!(other.host.published.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_broker_that_is_away_and_a_client_that_left_are_connection_errors() {
    let guest = messenger(&["a"]);
    let answer = call(&guest, "send-late", json!(["a"])).await;
    refused("connection", "disconnected", &answer);
    *guest.host.failing.lock().unwrap() = Some(StateError::Unavailable);
    let answer = send(&guest, "a", "x", json!([])).await;
    refused("connection", "unavailable", &answer);
    *guest.host.failing.lock().unwrap() = Some(StateError::MessageTooLarge);
    let answer = send(&guest, "a", "x", json!([])).await;
    refused("other", "larger than the NATS server takes", &answer);
}

#[tokio::test]
async fn a_core_module_whose_message_the_server_does_not_take_is_trapped() {
    let guest = Guest::wat(
        r#"(module
            (import "host" "publish" (func $publish (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (func (export "process") (param i32 i32) (result i32)
                (call $publish (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 5))))"#,
    );
    *guest.host.failing.lock().unwrap() = Some(StateError::MessageTooLarge);
    assert_eq!(guest.trap(input("")).await.0, "state_too_large");
}

#[tokio::test]
async fn no_metadata_is_a_header_that_it_should_not_be() {
    let guest = messenger(&["a"]);
    for (name, value) in [
        ("", "x"),
        ("a b", "x"),
        ("a:b", "x"),
        ("a\r\nb", "x"),
        ("ü", "x"),
        ("a", "x\r\nNats-Rollup: all"),
        ("a", "x\n"),
        ("a", "\0"),
    ] {
        let answer = send(&guest, "a", "x", json!([[name, value]])).await;
        refused("other", "cannot be a header", &answer);
    }
    for name in [
        "Nats-Rollup",
        "NATS-TRACE-DEST",
        "nats-msg-id",
        "Wess-Hops",
        "wess-x",
    ] {
        let answer = send(&guest, "a", "x", json!([["b", ""], [name, "all"]])).await;
        refused("permission-denied", name, &answer);
    }
    let twice = json!(["a", [], "text/plain", [["content-type", "text/html"]]]);
    refused("other", "content type", &call(&guest, "send", twice).await);
    let injected = json!(["a", [], "text/plain\r\nNats-Rollup: all", []]);
    refused("other", "Content-Type", &call(&guest, "send", injected).await);
    assert!(guest.host.published.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_message_is_what_was_made_of_it() {
    let guest = messenger(&[]);
    let edited = json!([[["a", "1"], ["b", "2"], ["c", "3"]], "a", "4", "b"]);
    assert_eq!(
        call(&guest, "edit", edited).await,
        json!([["c", "3"], ["a", "4"]])
    );
    let looked = call(&guest, "look", json!([[104, 105], "text/plain"])).await;
    assert_eq!(looked, json!([{"base64": "aGk="}, "text/plain", null]));
}

#[tokio::test]
async fn messages_and_metadata_have_their_bounds() {
    let guest = messenger(&["a"]);
    let most = "x".repeat(MAX_MESSAGE_BYTES);
    assert_eq!(send(&guest, "a", &most, json!([])).await, json!({"ok": null}));
    let answer = send(&guest, "a", &most, json!([["b", ""]])).await;
    refused("other", "at most 1048576 bytes", &answer);

    let entries = |count: usize| -> Value { (0..count).map(|at| json!([format!("n{at}"), ""])).collect() };
    let fits = send(&guest, "a", "", entries(MAX_METADATA)).await;
    assert_eq!(fits, json!({"ok": null}));
    let large = |bytes: usize| json!([["n", "x".repeat(bytes - 1)]]);
    let fits = send(&guest, "a", "", large(MAX_METADATA_BYTES)).await;
    assert_eq!(fits, json!({"ok": null}));
    for metadata in [entries(MAX_METADATA + 1), large(MAX_METADATA_BYTES + 1)] {
        let given = json!(["a", [], null, metadata]);
        let (kind, _) = guest.trap(named("send", args(given))).await;
        assert_eq!(kind, "state_too_large");
    }
}

#[tokio::test]
async fn what_a_call_may_answer_is_no_bound_on_what_it_sends() {
    let guest = messenger(&["a"]).output_bytes(10_000);
    let most = "x".repeat(MAX_MESSAGE_BYTES);
    assert_eq!(send(&guest, "a", &most, json!([])).await, json!({"ok": null}));
}

#[tokio::test]
async fn a_run_holds_no_more_messages_than_it_may() {
    let guest = messenger(&["a"]);
    let (half, fits) = (MAX_HELD_BYTES / 8, json!([8, MAX_HELD_BYTES / 8, 0]));
    guest.results(named("hold", args(fits))).await;
    // What is dropped is not held.
    guest.results(named("hold", args(json!([100, half, 1])))).await;
    for too_much in [json!([9, half, 0]), json!([3000, 0, 0])] {
        let code = guest.code(named("hold", args(too_much))).await;
        assert_eq!(code, ErrorCode::GuestTrapped);
    }
}
