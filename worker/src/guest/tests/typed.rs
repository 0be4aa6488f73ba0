//! Typed functions: JSON arguments in, JSON results out, and every misfit named before a guest runs.

use super::*;

fn math() -> Guest {
    Guest::file("typed/math.wat")
}

/// What a call is refused with before it runs.
fn refusal(guest: &Guest, call: CallInput) -> (ErrorCode, String) {
    let error = guest.plan(call).unwrap_err();
    (error.code(), error.error.message)
}

#[tokio::test]
async fn all_four_types_go_in_and_come_out() {
    let math = math();
    for (name, given, expected) in [
        ("add_i32", json!([2, -3]), json!([-1])),
        ("add_i64", json!([2, 40]), json!([42])),
        ("add_f32", json!([0.5, 0.25]), json!([0.75])),
        ("add_f64", json!([0.1, 0.2]), json!([0.30000000000000004])),
    ] {
        assert_eq!(math.results(named(name, args(given))).await, expected, "{name}");
    }
}

#[tokio::test]
async fn several_results_come_in_order_and_none_is_an_empty_list() {
    let math = math();
    assert_eq!(
        math.results(named("divmod", args(json!([17, 5])))).await,
        json!([3, 2])
    );
    let reversed = math
        .results(named("reverse", args(json!([1, 2, 3.5, 4.25]))))
        .await;
    assert_eq!(reversed, json!([4.25, 3.5, 2, 1]));
    assert_eq!(math.results(function("nothing")).await, json!([]));
}

#[tokio::test]
async fn integers_beyond_2_to_the_53_are_strings_in_both_directions() {
    let math = math();
    let echo = |value: Value| named("echo_i64", args(json!([value])));
    for exact in [
        json!(9_007_199_254_740_992i64),
        json!(-9_007_199_254_740_992i64),
        json!(0),
    ] {
        assert_eq!(math.results(echo(exact.clone())).await, json!([exact]));
    }
    for wide in ["9223372036854775807", "-9223372036854775808", "9007199254740993"] {
        assert_eq!(math.results(echo(json!(wide))).await, json!([wide]));
    }
    assert_eq!(math.results(echo(json!("7"))).await, json!([7]));
    assert_eq!(
        math.results(named("factorial", args(json!([20])))).await,
        json!(["2432902008176640000"])
    );
    let (code, message) = refusal(&math, echo(json!(9_007_199_254_740_993i64)));
    assert_eq!(code, ErrorCode::InvalidArguments);
    assert!(
        message.contains("args[0]") && message.contains("as a string"),
        "{message}"
    );
}

#[tokio::test]
async fn nan_and_the_infinities_are_strings_in_both_directions() {
    let math = math();
    for echo in ["echo_f32", "echo_f64"] {
        for special in ["NaN", "Infinity", "-Infinity"] {
            assert_eq!(
                math.results(named(echo, args(json!([special])))).await,
                json!([special])
            );
        }
    }
    let divide = |by: Value| named("div_f64", args(by));
    assert_eq!(math.results(divide(json!([1, 0]))).await, json!(["Infinity"]));
    assert_eq!(math.results(divide(json!([0, 0]))).await, json!(["NaN"]));
}

#[test]
fn a_wrong_number_of_arguments_is_named_with_the_signature() {
    let (code, message) = refusal(&math(), named("divmod", args(json!([1]))));
    assert_eq!(code, ErrorCode::InvalidArguments);
    assert!(
        message.contains("takes 2 arguments (i64, i64), but 1 were given"),
        "{message}"
    );
}

#[test]
fn an_argument_of_the_wrong_type_or_range_is_named_by_its_place() {
    let math = math();
    for (name, given, words) in [
        ("add_i32", json!([1, "2"]), "args[1] is a string"),
        (
            "add_i32",
            json!([1, 2_147_483_648i64]),
            "args[1] is 2147483648, which does not fit into 32 bits",
        ),
        ("add_i32", json!([1.5, 1]), "args[0] is a number of another kind"),
        (
            "add_i64",
            json!([1, "9223372036854775808"]),
            "args[1] is a string",
        ),
        ("add_f32", json!([1e300, 1]), "args[0] is 1"),
        ("add_f64", json!([null, 1]), "args[0] is null"),
        ("add_f64", json!([[1], 1]), "args[0] is an array"),
        ("add_f64", json!([{}, true]), "args[0] is an object"),
    ] {
        let (code, message) = refusal(&math, named(name, args(given)));
        assert_eq!(code, ErrorCode::InvalidArguments);
        assert!(message.starts_with(words), "{message}");
    }
}

#[test]
fn a_vector_or_a_reference_in_the_signature_is_unsupported_by_name() {
    let guest = Guest::wat(
        r#"(module
            (func (export "vector") (param v128))
            (func (export "reference") (result funcref) (ref.null func)))"#,
    );
    for (name, ty) in [("vector", "v128"), ("reference", "ref")] {
        let (code, message) = refusal(&guest, named(name, args(json!([]))));
        assert_eq!(code, ErrorCode::Unsupported);
        assert!(message.contains(name) && message.contains(ty), "{message}");
    }
}

#[tokio::test]
async fn raw_input_is_json_where_an_array_is_all_arguments_and_anything_else_the_only_one() {
    let math = math();
    assert_eq!(
        math.results(named("divmod", input("[17, 5]"))).await,
        json!([3, 2])
    );
    assert_eq!(
        math.results(named("factorial", input(" 5\n"))).await,
        json!([120])
    );
    assert_eq!(
        math.results(named("echo_i64", input(r#""9223372036854775807""#)))
            .await,
        json!(["9223372036854775807"])
    );
    assert_eq!(math.results(named("nothing", input(""))).await, json!([]));
    let (code, message) = refusal(&math, named("factorial", input("five")));
    assert_eq!(code, ErrorCode::InvalidArguments);
    assert!(message.contains("must be JSON"), "{message}");
    let both = CallInput {
        input: Some("1".into()),
        ..args(json!([1]))
    };
    assert_eq!(
        refusal(&math, named("factorial", both)).0,
        ErrorCode::InvalidRequest
    );
}

#[test]
fn several_functions_need_a_name_and_an_unknown_one_is_not_found() {
    let math = math();
    let (code, message) = refusal(&math, args(json!([1, 2])));
    assert_eq!(code, ErrorCode::InvalidRequest);
    assert!(
        message.contains("several functions") && message.contains("add_i32"),
        "{message}"
    );
    let (code, message) = refusal(&math, function("subtract"));
    assert_eq!(code, ErrorCode::FunctionNotFound);
    assert!(
        message.contains("subtract") && message.contains("add_i32"),
        "{message}"
    );
}

#[tokio::test]
async fn the_only_function_needs_no_name_even_beside_an_initializer() {
    assert_eq!(
        Guest::file("typed/add.wat").results(args(json!([2, 3]))).await,
        json!([5])
    );
    let reactor = Guest::wat(
        r#"(module
            (global $ready (mut i32) (i32.const 0))
            (func (export "_initialize") (global.set $ready (i32.const 1)))
            (func (export "is_ready") (result i32) (global.get $ready)))"#,
    );
    assert_eq!(reactor.results(nothing()).await, json!([1]));
}

#[tokio::test]
async fn nothing_stays_in_a_guest_between_two_calls() {
    let counter = Guest::wat(
        r#"(module
            (memory (export "memory") 1)
            (global $calls (mut i32) (i32.const 0))
            (func (export "count") (result i32 i32)
                (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
                (i32.store (i32.const 40000) (i32.add (i32.load (i32.const 40000)) (i32.const 1)))
                (global.get $calls) (i32.load (i32.const 40000))))"#,
    );
    for _ in 0..2 * SLOTS {
        assert_eq!(counter.results(nothing()).await, json!([1, 1]));
    }
}
