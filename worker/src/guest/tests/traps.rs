//! Every way a guest can trap has its word, a sentence, and a backtrace that names the function.

use super::*;

#[tokio::test]
async fn every_trap_has_its_word_and_names_its_function() {
    let guest = Guest::file("hostile/traps.wat");
    for (function_name, word) in [
        ("unreachable", "unreachable"),
        ("divide_by_zero", "integer_division_by_zero"),
        ("remainder_by_zero", "integer_division_by_zero"),
        ("integer_overflow", "integer_overflow"),
        ("bad_conversion", "invalid_conversion_to_integer"),
        ("conversion_overflow", "integer_overflow"),
        ("load_out_of_bounds", "memory_out_of_bounds"),
        ("store_out_of_bounds", "memory_out_of_bounds"),
        ("fill_out_of_bounds", "memory_out_of_bounds"),
        ("table_out_of_bounds", "table_out_of_bounds"),
        ("indirect_out_of_bounds", "table_out_of_bounds"),
        ("indirect_call_to_null", "indirect_call_to_null"),
        ("bad_signature", "indirect_call_type_mismatch"),
        ("stack_overflow", "stack_overflow"),
    ] {
        let (kind, backtrace) = guest.trap(function(function_name)).await;
        assert_eq!(kind, word, "{function_name}");
        assert!(!backtrace.is_empty(), "{function_name}");
    }
}

#[tokio::test]
async fn a_backtrace_goes_from_the_innermost_function_outwards() {
    let guest = Guest::wat(
        r#"(module
            (func $inner (unreachable))
            (func $middle (call $inner))
            (func $outer (export "outer") (call $middle)))"#,
    );
    assert_eq!(guest.trap(nothing()).await.1, ["inner", "middle", "outer"]);
}

#[tokio::test]
async fn a_function_without_a_name_is_named_by_its_number_and_place() {
    let unnamed = Guest::wat(r#"(module (func (export "f") (unreachable)))"#);
    let (_, backtrace) = unnamed.trap(nothing()).await;
    assert!(backtrace[0].starts_with("function 0 at 0x"), "{backtrace:?}");
}

#[tokio::test]
async fn a_backtrace_and_its_names_are_bounded() {
    let name = "n".repeat(10_000);
    let guest = Guest::wat(&format!(r#"(module (func ${name} (export "f") (call ${name})))"#));
    let (kind, backtrace) = guest.trap(nothing()).await;
    assert_eq!(kind, "stack_overflow");
    assert_eq!(backtrace.len(), 20);
    assert!(backtrace.iter().all(|frame| frame.len() == 200));
}

#[tokio::test]
async fn the_caller_is_told_the_word_and_the_backtrace() {
    let error = Guest::file("hostile/traps.wat")
        .fault(function("unreachable"))
        .await
        .to_error();
    assert_eq!(error.code(), ErrorCode::GuestTrapped);
    assert_eq!(error.error.detail["trap"], "unreachable");
    assert_eq!(error.error.detail["backtrace"].as_array().unwrap().len(), 1);
    assert!(
        error.error.message.contains("the guest trapped: "),
        "{}",
        error.error.message
    );
}

#[tokio::test]
async fn a_trap_in_the_start_function_is_the_guest_s() {
    assert_eq!(
        Guest::file("hostile/start_trap.wat").trap(nothing()).await.0,
        "unreachable"
    );
}

#[tokio::test]
async fn data_or_elements_that_do_not_fit_are_a_trap_at_the_start() {
    let data = Guest::wat(r#"(module (memory 1) (data (i32.const 65536) "x") (func (export "f")))"#);
    assert_eq!(data.trap(nothing()).await.0, "memory_out_of_bounds");
    let elements = Guest::wat(r#"(module (table 1 funcref) (elem (i32.const 1) $f) (func $f (export "f")))"#);
    assert_eq!(elements.trap(nothing()).await.0, "table_out_of_bounds");
}

#[tokio::test]
async fn a_clean_guest_runs_right_after_a_hostile_one() {
    let engines = engines();
    let clean = Guest::load(&wasm_of("typed/add.wat"), &engines, Metering::Off);
    let traps = Guest::load(&wasm_of("hostile/traps.wat"), &engines, Metering::Off);
    for name in [
        "stack_overflow",
        "unreachable",
        "load_out_of_bounds",
        "indirect_call_to_null",
    ] {
        traps.trap(function(name)).await;
        assert_eq!(
            clean.results(args(json!([2, 3]))).await,
            json!([5]),
            "after {name}"
        );
    }
}
