//! The JSON Schemas that clients are told of core modules, held against what their calls take and give.

use super::*;

/// One function of each type of number, which gives back what it takes.
fn numbers() -> Guest {
    let function = |ty: &str| format!(r#"(func (export "{ty}") (param {ty}) (result {ty}) (local.get 0))"#);
    let functions = ["i32", "i64", "f32", "f64"].map(function).concat();
    Guest::wat(&format!("(module {functions})"))
}

/// What fits a type of number, and what does not.
fn cases() -> [(&'static str, Value, Value); 4] {
    [
        (
            "i32",
            json!([0, -1, 3.0, i32::MAX, i32::MIN]),
            json!([2147483648i64, -2147483649i64, 1.5, "1", null, true, [1], {}]),
        ),
        (
            "i64",
            json!([
                0,
                -1,
                1i64 << 53,
                -(1i64 << 53),
                "9223372036854775807",
                "-9223372036854775808",
                "007",
                "-0"
            ]),
            json!([
                (1i64 << 53) + 1,
                -(1i64 << 53) - 1,
                1e300,
                1.5,
                "+1",
                "",
                "-",
                "1.5",
                "0x1",
                " 1",
                "1\n",
                "100000000000000000000",
                null,
                true
            ]),
        ),
        (
            "f32",
            json!([
                0,
                -1,
                0.5,
                1e-300,
                f32::MAX,
                f32::MIN,
                "NaN",
                "Infinity",
                "-Infinity"
            ]),
            json!([1e300, -3.5e38, "inf", "1", "nan", null, false]),
        ),
        (
            "f64",
            json!([0, -1, 0.5, f64::MAX, f64::MIN, "NaN", "Infinity", "-Infinity"]),
            json!(["inf", "1", "nan", null, false]),
        ),
    ]
}

#[tokio::test]
async fn a_number_fits_its_schema_where_a_call_takes_it_and_so_does_the_answer() {
    let guest = numbers();
    for (function, fitting, others) in cases() {
        let export = guest.export(function);
        let (takes, gives) = (validator(export.args_schema), validator(export.results_schema));
        for fit in fitting.as_array().unwrap() {
            assert!(takes.is_valid(&json!([fit])), "{function} {fit}");
            let results = guest.results(named(function, args(json!([fit])))).await;
            assert!(gives.is_valid(&results), "{function} {results}");
        }
        for other in others.as_array().unwrap() {
            assert!(!takes.is_valid(&json!([other])), "{function} {other}");
            let refused = guest.plan(named(function, args(json!([other]))));
            assert!(refused.is_err(), "{function} {other}");
        }
        for other in [json!([]), json!([0, 0])] {
            assert!(!takes.is_valid(&other), "{function} {other}");
            assert!(guest.plan(named(function, args(other))).is_err(), "{function}");
        }
    }
}

#[test]
fn digits_past_64_bits_are_what_a_schema_cannot_refuse() {
    let guest = numbers();
    let schema = validator(guest.export("i64").args_schema);
    for beyond in ["9223372036854775808", "-9223372036854775809"] {
        assert!(schema.is_valid(&json!([beyond])));
        assert!(guest.plan(named("i64", args(json!([beyond])))).is_err());
    }
}

#[tokio::test]
async fn a_plugin_called_with_arguments_fits_its_schemas() {
    let guest = Guest::wat(
        r#"(module (memory (export "memory") 1)
            (func (export "process") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))"#,
    );
    let export = guest.export("process");
    let (takes, gives) = (validator(export.args_schema), validator(export.results_schema));
    assert!(takes.is_valid(&json!([2, 3])));
    let results = guest.results(args(json!([2, 3]))).await;
    assert_eq!((gives.is_valid(&results), results), (true, json!([5])));
    for wrong in [json!([2]), json!(["2", 3]), json!([2, 3, 4])] {
        assert!(!takes.is_valid(&wrong), "{wrong}");
        assert!(guest.plan(args(wrong)).is_err());
    }
}

#[test]
fn what_becomes_an_argument_of_a_command_fits_its_schema() {
    let guest = Guest::wat(r#"(module (memory (export "memory") 1) (func (export "_start")))"#);
    let export = guest.export("_start");
    assert_eq!(export.results_schema, None);
    let schema = validator(export.args_schema);
    for (given, fits) in [
        (json!([]), true),
        (json!(["a", "", "ü\n", 1, -1.5, true]), true),
        (json!(["a\0b"]), false),
        (json!([null]), false),
        (json!([["a"]]), false),
        (json!(["a", {}]), false),
    ] {
        let planned = guest.plan(args(given.clone())).is_ok();
        assert_eq!((schema.is_valid(&given), planned), (fits, fits), "{given}");
    }
}
