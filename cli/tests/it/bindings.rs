//! Bindings by the command line: what is asked, and what is made of each answer. A test plays the worker.

use serde_json::{Value, json};

use crate::jobs::{Played, golden};
use crate::wess::{code, stderr};

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

#[test]
fn a_binding_is_asked_for_as_it_was_said() {
    let played = Played::with(&[("bindings.put.shout", golden("binding"))]);
    let line = "bind --stream ORDERS upper.process --filter orders.> --publish-to out --name shout --retry 2";
    let said = played.must(&words(line));
    assert_eq!(
        said,
        "shout: upper@2 runs for each message of stream ORDERS on orders.*.new\n"
    );
    let expected = json!({"module": "upper", "function": "process", "stream": "ORDERS", "filter": "orders.>",
        "publish_to": "out", "retry": {"max_attempts": 2}});
    assert_eq!(played.asked(), [("wess.bindings.put.shout".to_owned(), expected)]);
}

#[test]
fn who_gives_no_name_gets_one_that_takes_nobodys_place() {
    let mut binding = golden("binding-list")["bindings"][0].clone();
    binding["name"] = "upper-texts".into();
    let played = Played::with(&[
        ("bindings.list", json!({"bindings": [binding]})),
        ("bindings.put.upper-texts", binding.clone()),
        ("bindings.put.upper-others", binding.clone()),
    ]);
    played.must(&["bind", "others", "upper"]);
    played.must(&["bind", "texts.>", "upper"]);
    let asked: Vec<_> = played.asked().into_iter().map(|(subject, _)| subject).collect();
    let put = |name: &str| format!("wess.bindings.put.{name}");
    assert_eq!(
        asked,
        [
            "wess.bindings.list",
            &put("upper-others"),
            "wess.bindings.list",
            &put("upper-texts")
        ]
    );
    let taken = played.ask(&["bind", "texts", "upper"]);
    assert_eq!(code(&taken), 73, "{}", stderr(&taken));
    assert!(stderr(&taken).contains("--name"), "{}", stderr(&taken));
}

#[test]
fn bindings_are_listed_and_taken_away() {
    let played = Played::with(&[
        ("bindings.list", golden("binding-list")),
        ("bindings.delete.shout", golden("unbound")),
    ]);
    let list = played.must(&["bindings"]);
    assert_eq!(list.lines().count(), 3, "{list}");
    let list: Value = serde_json::from_str(&played.must(&["bindings", "-o", "json"])).unwrap();
    assert_eq!(list, golden("binding-list"));
    assert_eq!(played.must(&["unbind", "shout"]), "removed shout\n");
    let failure = json!({"error": {"code": "binding_not_found", "message": "there is no binding shout",
        "retryable": false, "guest_ran": false, "detail": {}}});
    let played = Played::with(&[("bindings.delete.shout", failure)]);
    let refused = played.ask(&["unbind", "shout"]);
    assert_eq!(code(&refused), 66);
    assert!(stderr(&refused).contains("wess bindings"), "{}", stderr(&refused));
}
