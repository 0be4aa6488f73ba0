//! Arguments that do not fit are refused before a guest runs, each with the path of what is wrong.

use super::*;

/// One of each: `order` has every kind of type in it.
fn order() -> Guest {
    let types = r#"
        (type $size (enum "s" "m"))
        (type $perms (flags "read" "write"))
        (type $item (record (field "qty" u32) (field "note" (option string)) (field "deep" (option (option u8)))))
        (type $pay (variant (case "cash") (case "card" string)))
        (type $order (record
            (field "items" (list $item)) (field "size" $size) (field "perms" $perms) (field "pay" $pay)
            (field "pair" (tuple s8 char)) (field "big" u64) (field "ratio" f32) (field "raw" (list u8))
            (field "done" (result u8 (error string))) (field "yes" bool)))"#;
    let names = ["size", "perms", "item", "pay", "order"].map(String::from);
    Guest::new(&echo(types, &names, "$order"))
}

fn fitting() -> Value {
    json!({
        "items": [{"qty": 1}, {"qty": 2, "note": "n", "deep": {"some": null}}, {"qty": 3, "deep": {"some": 4}}],
        "size": "m", "perms": ["write"], "pay": {"card": "4242"}, "pair": [-1, "ß"], "big": "18446744073709551615",
        "ratio": 0.5, "raw": [1, 2, 255], "done": {"ok": 1}, "yes": true
    })
}

#[tokio::test]
async fn what_fits_comes_back_in_its_plainest_form() {
    let mut expected = fitting();
    expected["raw"] = json!({"base64": "AQL/"});
    expected["items"] = json!([
        {"qty": 1, "note": null, "deep": null},
        {"qty": 2, "note": "n", "deep": {"some": null}},
        {"qty": 3, "note": null, "deep": {"some": 4}},
    ]);
    let order = order();
    assert_eq!(order.results(echoed(&fitting())).await, json!([[expected, 7]]));
    assert_eq!(order.results(echoed(&expected)).await, json!([[expected, 7]]));
}

/// Where, what, and how the refusal begins.
const MISFITS: &[(&str, &str, &str)] = &[
    (
        "/items/2/qty",
        r#"-1"#,
        "args[0].items[2].qty: expected u32, got -1",
    ),
    (
        "/items/0/qty",
        r#"4294967296"#,
        "args[0].items[0].qty: expected u32, got 4294967296",
    ),
    (
        "/items/0/qty",
        r#"1.5"#,
        "args[0].items[0].qty: expected u32, got 1.5",
    ),
    (
        "/items/1/note",
        r#"1"#,
        "args[0].items[1].note: expected string, got 1",
    ),
    (
        "/items/1/deep",
        r#"4"#,
        r#"args[0].items[1].deep: expected null or {"some": …}, got 4"#,
    ),
    (
        "/items/1/deep",
        r#"{"some": 400}"#,
        "args[0].items[1].deep.some: expected u8, got 400",
    ),
    (
        "/items/1",
        r#"[]"#,
        "args[0].items[1]: expected item, got an array of 0",
    ),
    (
        "/items/1",
        r#"{}"#,
        "args[0].items[1].qty: expected u32, got nothing",
    ),
    (
        "/items/1",
        r#"{"qyt": 1}"#,
        "args[0].items[1].qyt: no such field; item has qty, note, deep",
    ),
    (
        "/items",
        r#"{"base64": ""}"#,
        "args[0].items: expected list<item>, got an object",
    ),
    (
        "/size",
        r#""xl""#,
        r#"args[0].size: expected one of s, m, got "xl""#,
    ),
    ("/size", r#"0"#, "args[0].size: expected size, got 0"),
    (
        "/perms",
        r#""read""#,
        r#"args[0].perms: expected perms, got "read""#,
    ),
    (
        "/perms",
        r#"["read", "fly"]"#,
        r#"args[0].perms[1]: expected one of read, write, got "fly""#,
    ),
    (
        "/pay",
        r#""card""#,
        r#"args[0].pay: the case card needs its payload: expected {"card": string}"#,
    ),
    (
        "/pay",
        r#"{"cash": 1}"#,
        r#"args[0].pay: the case cash has no payload: expected "cash""#,
    ),
    (
        "/pay",
        r#"{"cheque": 1}"#,
        "args[0].pay: expected one of cash, card, got an object",
    ),
    (
        "/pay",
        r#"{"card": 1}"#,
        "args[0].pay.card: expected string, got 1",
    ),
    ("/pay", r#"{}"#, "args[0].pay: expected pay, got an object"),
    (
        "/pair",
        r#"[1]"#,
        "args[0].pair: expected tuple<s8, char>, got an array of 1",
    ),
    ("/pair/0", r#"128"#, "args[0].pair[0]: expected s8, got 128"),
    (
        "/pair/1",
        r#""ab""#,
        r#"args[0].pair[1]: expected char, got "ab""#,
    ),
    ("/pair/1", r#""""#, r#"args[0].pair[1]: expected char, got """#),
    (
        "/big",
        r#""18446744073709551616""#,
        r#"args[0].big: expected u64, got "18446744073709551616""#,
    ),
    (
        "/big",
        r#"9007199254740993"#,
        "args[0].big: 9007199254740993 is beyond 2^53",
    ),
    ("/big", r#""+1""#, r#"args[0].big: expected u64, got "+1""#),
    ("/ratio", r#""inf""#, r#"args[0].ratio: expected f32, got "inf""#),
    ("/ratio", r#"1e300"#, "args[0].ratio: expected f32, got 1e"),
    (
        "/raw",
        r#""AQI=""#,
        r#"args[0].raw: expected list<u8>, got "AQI=""#,
    ),
    ("/raw", r#"{"base64": "?"}"#, "args[0].raw: invalid base64"),
    ("/raw", r#"[256]"#, "args[0].raw[0]: expected u8, got 256"),
    (
        "/done",
        r#"{"ok": "x"}"#,
        r#"args[0].done.ok: expected u8, got "x""#,
    ),
    (
        "/done",
        r#"1"#,
        r#"args[0].done: expected result<u8, string> as {"ok": …} or {"err": …}, got 1"#,
    ),
    ("/yes", r#"null"#, "args[0].yes: expected bool, got null"),
    ("", r#"null"#, "args[0]: expected order, got null"),
];

#[test]
fn each_kind_of_misfit_is_named_by_its_path() {
    let order = order();
    for (path, wrong, text) in MISFITS {
        let mut given = fitting();
        *given.pointer_mut(path).unwrap() = serde_json::from_str(wrong).unwrap();
        let (code, message) = refusal(&order, echoed(&given));
        assert_eq!(code, ErrorCode::InvalidArguments, "{message}");
        assert!(message.starts_with(text), "{message:?} is not {text:?}");
    }
}

/// What a schema cannot say of an argument: which digits are beyond 64 bits.
const PAST_THE_SCHEMA: &[&str] = &[r#""18446744073709551616""#];

#[tokio::test]
async fn each_kind_of_misfit_is_one_to_the_schema_too() {
    let order = order();
    let export = order.export(FUNCTION);
    let (takes, gives) = (validator(export.args_schema), validator(export.results_schema));
    let fits = |value: &Value| takes.is_valid(&Value::Array(echoed(value).args.unwrap()));
    assert!(fits(&fitting()));
    assert!(gives.is_valid(&order.results(echoed(&fitting())).await));
    for (path, wrong, text) in MISFITS {
        let mut given = fitting();
        *given.pointer_mut(path).unwrap() = serde_json::from_str(wrong).unwrap();
        assert_eq!(fits(&given), PAST_THE_SCHEMA.contains(wrong), "{text}");
    }
}

#[test]
fn bytes_are_base64_to_the_schema_where_they_are_to_a_call() {
    let bytes = Guest::new(&echo("", &[], "(list u8)"));
    let schema = validator(bytes.export(FUNCTION).args_schema);
    for (text, fits) in [
        ("", true),
        ("AQ==", true),
        ("AQI=", true),
        ("AQID", true),
        ("+/+/", true),
        ("AQIDBA==", true),
        ("A", false),
        ("AQ", false),
        ("AQ=", false),
        ("AQI", false),
        ("AQ===", false),
        ("====", false),
        ("AR==", false),
        ("AQJ=", false),
        ("A-_A", false),
        ("AQ==AQ==", false),
        (" AQ==", false),
        ("AQ==\n", false),
    ] {
        let call = echoed(&json!({"base64": text}));
        let given = Value::Array(call.args.clone().unwrap());
        assert_eq!(
            (schema.is_valid(&given), bytes.plan(call).is_ok()),
            (fits, fits),
            "{text:?}"
        );
    }
}

#[test]
fn a_wrong_number_of_arguments_is_refused_with_the_signature() {
    let greet = Guest::file("component/greeter.wat");
    let (code, text) = refusal(&greet, named("greet", args(json!([{"name": "Bo"}]))));
    assert_eq!(code, ErrorCode::InvalidArguments);
    assert_names(
        &text,
        &[
            "(who: person, tone: tone) -> result<greeting, string>",
            "1 arguments",
        ],
    );
}

#[test]
fn arguments_that_would_take_too_much_memory_are_refused() {
    let bytes = Guest::new(&echo("", &[], "(list u8)"));
    let large = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, vec![0; 8 << 20]);
    let (code, _) = refusal(&bytes, echoed(&json!({"base64": large})));
    assert_eq!(code, ErrorCode::PayloadTooLarge);
    // A few bytes of JSON each, a hundred values each.
    let fields: String = (0..100)
        .map(|at| format!(r#"(field "f{at}" (option u8))"#))
        .collect();
    let wide = Guest::new(&echo(
        &format!("(type $wide (record {fields}))"),
        &["wide".into()],
        "(list $wide)",
    ));
    let (code, _) = refusal(&wide, echoed(&json!(vec![json!({}); 100_000])));
    assert_eq!(code, ErrorCode::PayloadTooLarge);
}
