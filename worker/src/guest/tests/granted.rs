//! What settings give components: configuration, lines of the log, and state within its bounds, each error in the guest's hands.

use super::*;
use crate::guest::component::granted::{MAX_BATCH, MAX_BATCH_BYTES, PAGE};
use crate::guest::log::DROPPED;

fn guest(settings: Settings) -> Guest {
    let mut guest = Guest::file("component/granted.wat");
    guest.host = Arc::new(MemoryHost {
        settings,
        ..MemoryHost::default()
    });
    guest
}

/// One that may have state.
fn keeper() -> Guest {
    let mut settings = Settings::default();
    settings.grants.keyvalue = true;
    guest(settings)
}

async fn call(guest: &Guest, name: &str, given: Value) -> Value {
    guest.results(named(name, args(given))).await[0].clone()
}

/// What an interface says of an error that is none of its own cases.
#[track_caller]
fn assert_other(answer: &Value, words: &str) {
    let text = answer["err"]["other"].as_str();
    assert!(
        text.is_some_and(|text| text.contains(words)),
        "{answer} is no other error with {words:?}"
    );
}

fn bytes(text: &str) -> Value {
    json!(text.as_bytes())
}

/// A guest whose state has this many keys, their names in order.
fn with_keys(count: usize) -> Guest {
    let guest = keeper();
    let keys = (0..count).map(|at| (format!("{at:05}").into_bytes(), Bytes::new()));
    guest.host.state.lock().unwrap().extend(keys);
    guest
}

#[tokio::test]
async fn configuration_is_read_by_name_or_whole_in_both_drafts() {
    let mut settings = Settings::default();
    for (name, value) in [("size.max", "9"), ("a", "")] {
        settings.config.insert(name.into(), value.into());
    }
    let guest = guest(settings);
    for function in ["config", "runtime"] {
        assert_eq!(
            call(&guest, function, json!(["size.max"])).await,
            json!({"ok": "9"})
        );
        assert_eq!(
            call(&guest, function, json!(["size.min"])).await,
            json!({"ok": null})
        );
    }
    let all = call(&guest, "config-all", json!([])).await;
    assert_eq!(all, json!({"ok": [["a", ""], ["size.max", "9"]]}));
}

#[tokio::test]
async fn lines_come_from_both_names_of_logging_with_level_and_context() {
    let guest = guest(Settings::default());
    guest.answer(named("log", args(json!(["one\ntwo"])))).await;
    guest.answer(named("note", args(json!(["db", "slow"])))).await;
    guest.answer(named("note", args(json!(["", "fast"])))).await;
    let log = |text: &str| (LogStream::Log, text.to_owned());
    let expected = ["warn: one", "two", "info db: slow", "info: fast"].map(log);
    assert_eq!(guest.host.lines(), expected);
}

#[tokio::test]
async fn a_message_of_any_size_is_logged_as_far_as_a_run_may_log() {
    let mut guest = guest(Settings::default()).memory_bytes(128 * MIB);
    guest.host = Arc::new(MemoryHost {
        secrets: Secrets::known(&[("A", "\0\0\0\0\0\0")]),
        ..MemoryHost::default()
    });
    guest.answer(named("log-zeros", args(json!([60 << 20])))).await;
    // A secret that begins within what is read is one however far it goes.
    assert_eq!(guest.host.texts(), ["warn: [secret]", DROPPED]);
    let (kind, _) = guest.trap(named("log-zeros", args(json!([65 << 20])))).await;
    assert_eq!(kind, "host_call");
}

#[tokio::test]
async fn every_function_of_a_store_is_denied_where_it_is_not_granted() {
    let guest = guest(Settings::default());
    for (function, given) in [
        ("open", json!([""])),
        ("get", json!(["a"])),
        ("set", json!(["a", [1]])),
        ("delete", json!(["a"])),
        ("exists", json!(["a"])),
        ("keys", json!([null])),
        ("increment", json!(["a", 1])),
        ("get-many", json!([["a"]])),
        ("set-many", json!([[["a", [1]]]])),
        ("delete-many", json!([["a"]])),
    ] {
        let answer = call(&guest, function, given).await;
        assert_eq!(answer, json!({"err": "access-denied"}), "{function}");
    }
    assert!(guest.host.state.lock().unwrap().is_empty());
}

#[tokio::test]
async fn there_is_one_store_under_two_names() {
    let guest = keeper();
    for name in ["", "default"] {
        assert_eq!(call(&guest, "open", json!([name])).await, json!({"ok": null}));
    }
    let other = call(&guest, "open", json!(["Default"])).await;
    assert_eq!(other, json!({"err": "no-such-store"}));
}

#[tokio::test]
async fn a_key_is_there_from_its_setting_until_its_deletion() {
    let guest = keeper();
    let ok = |value: Value| json!({"ok": value});
    assert_eq!(call(&guest, "exists", json!(["a"])).await, ok(json!(false)));
    assert_eq!(call(&guest, "get", json!(["a"])).await, ok(Value::Null));
    assert_eq!(call(&guest, "set", json!(["a", []])).await, ok(Value::Null));
    assert_eq!(call(&guest, "exists", json!(["a"])).await, ok(json!(true)));
    assert_eq!(call(&guest, "get", json!(["a"])).await, ok(json!({"base64": ""})));
    for _ in 0..2 {
        assert_eq!(call(&guest, "delete", json!(["a"])).await, ok(Value::Null));
        assert_eq!(call(&guest, "exists", json!(["a"])).await, ok(json!(false)));
    }
    assert_eq!(call(&guest, "increment", json!(["n", 2])).await, ok(json!(2)));
    assert_eq!(call(&guest, "increment", json!(["n", 3])).await, ok(json!(5)));
}

#[tokio::test]
async fn keys_and_values_are_as_large_as_they_may_be_and_no_larger() {
    let guest = keeper();
    let (key, value) = ("k".repeat(MAX_STATE_KEY_BYTES), "v".repeat(MAX_STATE_VALUE_BYTES));
    let set = call(&guest, "set", json!([key, bytes(&value)])).await;
    assert_eq!(set, json!({"ok": null}));
    assert_eq!(guest.host.value(&key).unwrap(), value);
    let large = call(&guest, "set", json!(["a", bytes(&format!("{value}v"))])).await;
    assert_other(&large, "at most 524288 bytes, not 524289");
    let long = format!("{key}k");
    for (function, given) in [
        ("get", json!([long])),
        ("set", json!([long, []])),
        ("delete", json!([long])),
        ("exists", json!([long])),
        ("increment", json!([long, 1])),
        ("get-many", json!([[long]])),
        ("set-many", json!([[[long, []]]])),
        ("delete-many", json!([[long]])),
    ] {
        let answer = call(&guest, function, given).await;
        assert_other(&answer, "at most 256 bytes, not 257");
    }
    assert_eq!(guest.host.state.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn what_a_call_may_answer_is_no_bound_on_what_it_stores() {
    let guest = keeper().output_bytes(10_000);
    let value = "v".repeat(MAX_STATE_VALUE_BYTES);
    let set = call(&guest, "set", json!(["a", bytes(&value)])).await;
    assert_eq!(set, json!({"ok": null}));
    let code = guest.code(named("get", args(json!(["a"])))).await;
    assert_eq!(code, ErrorCode::OutputTooLarge);
}

#[tokio::test]
async fn a_batch_gives_and_takes_in_the_order_of_its_keys() {
    let guest = keeper();
    let values = json!([[["a", bytes("1")], ["b", bytes("2")], ["c", []]]]);
    assert_eq!(call(&guest, "set-many", values).await, json!({"ok": null}));
    let found = call(&guest, "get-many", json!([["c", "x", "a"]])).await;
    let expected = json!({"ok": [["c", {"base64": ""}], null, ["a", {"base64": "MQ=="}]]});
    assert_eq!(found, expected);
    let deleted = call(&guest, "delete-many", json!([["c", "x", "a"]])).await;
    assert_eq!(deleted, json!({"ok": null}));
    assert_eq!(guest.host.state.lock().unwrap().len(), 1);
    assert_eq!(guest.host.value("b").unwrap(), "2");
}

#[tokio::test]
async fn a_batch_has_at_most_128_keys() {
    let guest = keeper();
    let names = |count: usize| -> Vec<String> { (0..count).map(|at| at.to_string()).collect() };
    let pairs = |count: usize| {
        json!([names(count)
            .iter()
            .map(|name| json!([name, []]))
            .collect::<Value>()])
    };
    assert_eq!(
        call(&guest, "set-many", pairs(MAX_BATCH)).await,
        json!({"ok": null})
    );
    let most = json!([names(MAX_BATCH)]);
    let found = call(&guest, "get-many", most.clone()).await;
    assert_eq!(found["ok"].as_array().unwrap().len(), MAX_BATCH);
    let more = json!([names(MAX_BATCH + 1)]);
    for (function, given) in [
        ("get-many", more.clone()),
        ("set-many", pairs(MAX_BATCH + 1)),
        ("delete-many", more),
    ] {
        let answer = call(&guest, function, given).await;
        assert_other(&answer, "at most 128 keys, not 129");
        assert_eq!(guest.host.state.lock().unwrap().len(), MAX_BATCH, "{function}");
    }
    assert_eq!(call(&guest, "delete-many", most).await, json!({"ok": null}));
}

#[tokio::test]
async fn the_values_that_a_batch_gives_have_their_bound_together() {
    let guest = keeper();
    let value = Bytes::from(vec![b'v'; MAX_STATE_VALUE_BYTES]);
    let fit = MAX_BATCH_BYTES / MAX_STATE_VALUE_BYTES;
    let names: Vec<String> = (0..=fit).map(|at| format!("{at:03}")).collect();
    for name in &names[..fit] {
        let set = guest.host.set_state(name.as_bytes(), value.clone());
        set.await.unwrap();
    }
    let found = call(&guest, "count-many", json!([names])).await;
    assert_eq!(found, json!({"ok": fit + 1}));
    let one_more = guest
        .host
        .set_state(names[fit].as_bytes(), Bytes::from_static(b"v"));
    one_more.await.unwrap();
    let answer = call(&guest, "count-many", json!([names])).await;
    assert_other(&answer, "at most 8388608 bytes together");
}

#[tokio::test]
async fn a_listing_comes_in_pages() {
    let guest = with_keys(2 * PAGE);
    let first = call(&guest, "keys", json!([null])).await["ok"].clone();
    assert_eq!(first["cursor"], json!(PAGE));
    assert_eq!(first["keys"].as_array().unwrap().len(), PAGE);
    assert_eq!(first["keys"][PAGE - 1], "00999");
    let second = call(&guest, "keys", json!([first["cursor"]])).await["ok"].clone();
    assert_eq!(
        second["cursor"],
        Value::Null,
        "the last page is full, and the last"
    );
    assert_eq!(second["keys"].as_array().unwrap().len(), PAGE);
    assert_eq!(second["keys"][0], "01000");
    *guest.host.failing.lock().unwrap() = Some(StateError::TooManyKeys);
    let answer = call(&guest, "keys", json!([null])).await;
    assert_other(&answer, "more keys than can be listed");
}

#[tokio::test]
async fn a_cursor_past_every_key_lists_nothing() {
    let guest = with_keys(PAGE + 1);
    for cursor in [PAGE as u64 + 1, u64::MAX - PAGE as u64, u64::MAX] {
        let answer = call(&guest, "keys", json!([cursor.to_string()])).await;
        assert_eq!(answer, json!({"ok": {"keys": [], "cursor": null}}), "{cursor}");
    }
}

#[tokio::test]
async fn what_the_store_cannot_do_now_is_the_guests_to_know() {
    let guest = keeper();
    *guest.host.failing.lock().unwrap() = Some(StateError::Unavailable);
    for (function, given) in [
        ("get", json!(["a"])),
        ("set-many", json!([[["a", [1]]]])),
        ("increment", json!(["a", 1])),
    ] {
        assert_other(&call(&guest, function, given).await, "unavailable");
    }
}
