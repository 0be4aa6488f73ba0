//! Plugins: bytes in linear memory, in and out by every way the ABI has; a wrong pointer is a trap.

use super::*;

/// A plugin with two pages of memory whose parts are these.
fn plugin(parts: &str) -> Guest {
    Guest::wat(&format!(r#"(module {parts} (memory (export "memory") 2))"#))
}

const SET_OUTPUT: &str = r#"(import "host" "set_output" (func $set_output (param i32 i32)))"#;

#[tokio::test]
async fn without_alloc_the_input_lies_in_grown_memory_and_is_the_answer_in_place() {
    let reverse = Guest::file("plugin/in_place.wat");
    assert_eq!(reverse.output(input("hello")).await, ("olleh".into(), 0));
    let long: String = ('a'..='z').cycle().take(200_000).collect();
    assert_eq!(
        reverse.output(input(long.clone())).await.0,
        long.chars().rev().collect::<String>()
    );
    assert_eq!(reverse.output(nothing()).await, (String::new(), 0));
}

#[tokio::test]
async fn with_alloc_the_input_lies_where_it_says_and_getters_find_the_output() {
    let brackets = Guest::file("plugin/get_output.wat");
    assert_eq!(brackets.output(input("hello")).await, ("[hello]".into(), 0));
    let long = "x".repeat(300_000);
    assert_eq!(brackets.output(input(long.clone())).await.0, format!("[{long}]"));
}

#[tokio::test]
async fn the_last_set_output_wins_over_getters_and_the_input() {
    let guest = plugin(&format!(
        r#"{SET_OUTPUT}
        (data (i32.const 0) "first second")
        (func (export "process") (param i32 i32) (result i32)
            (call $set_output (i32.const 0) (i32.const 5))
            (call $set_output (i32.const 6) (i32.const 6))
            (i32.const 0))
        (func (export "get_output_ptr") (result i32) (unreachable))
        (func (export "get_output_len") (result i32) (unreachable))"#
    ));
    assert_eq!(guest.output(input("input")).await, ("second".into(), 0));
}

#[tokio::test]
async fn an_output_may_be_set_to_nothing() {
    let guest = plugin(&format!(
        r#"{SET_OUTPUT}
        (func (export "process") (param i32 i32) (result i32)
            (call $set_output (i32.const 131072) (i32.const 0))
            (i32.const 0))"#
    ));
    assert_eq!(guest.output(input("input")).await, (String::new(), 0));
}

#[tokio::test]
async fn the_return_value_is_the_exit_code_and_not_an_error() {
    for code in [0, 1, 255, -1, i32::MIN] {
        let guest = plugin(&format!(
            r#"(func (export "process") (param i32 i32) (result i32) (i32.const {code}))"#
        ));
        assert_eq!(guest.output(input("x")).await, ("x".into(), code));
    }
}

#[tokio::test]
async fn a_function_of_four_parameters_gets_the_environment_as_json() {
    let guest = plugin(&format!(
        r#"{SET_OUTPUT}
        (func (export "process") (param i32 i32 i32 i32) (result i32)
            (call $set_output (local.get 2) (local.get 3))
            (local.get 1))"#
    ));
    assert_eq!(guest.output(input("hello")).await, ("{}".into(), 5));
    let call = with_env(input("hello"), &[("LANG", "C"), ("NAME", "a \"b\"")]);
    assert_eq!(guest.output(call).await.0, r#"{"LANG":"C","NAME":"a \"b\""}"#);
}

#[tokio::test]
async fn any_function_of_the_right_signature_can_be_named() {
    let guest = plugin(
        r#"(func (export "process") (param i32 i32) (result i32) (i32.const 0))
        (func (export "other") (param i32 i32) (result i32) (i32.const 7))
        (func (export "typed") (param i64) (result i64) (local.get 0))"#,
    );
    assert_eq!(guest.output(named("other", input("x"))).await, ("x".into(), 7));
    assert_eq!(guest.results(named("typed", args(json!([7])))).await, json!([7]));
    assert_eq!(
        guest.plan(function("absent")).unwrap_err().code(),
        ErrorCode::FunctionNotFound
    );
}

#[tokio::test]
async fn a_reactor_is_initialized_before_alloc_and_process() {
    let guest = plugin(
        r#"(global $ready (mut i32) (i32.const 0))
        (func $check (if (i32.eqz (global.get $ready)) (then (unreachable))))
        (func (export "_initialize") (global.set $ready (i32.const 1)))
        (func (export "alloc") (param i32) (result i32) (call $check) (i32.const 64))
        (func (export "process") (param i32 i32) (result i32) (call $check) (i32.const 0))"#,
    );
    assert_eq!(guest.output(input("hello")).await, ("hello".into(), 0));
}

#[tokio::test]
async fn an_alloc_that_points_outside_is_a_trap() {
    let guest = Guest::file("hostile/alloc_outside.wat");
    assert_eq!(guest.trap(input("x")).await.0, "host_call_out_of_bounds");
    let (kind, backtrace) = Guest::file("hostile/alloc_traps.wat").trap(input("x")).await;
    assert_eq!(kind, "unreachable");
    assert_eq!(backtrace.len(), 1);
}

#[tokio::test]
async fn an_alloc_that_answers_null_after_a_refused_growth_has_exceeded_its_memory() {
    let guest = plugin(
        r#"(func (export "alloc") (param i32) (result i32)
            (drop (memory.grow (i32.const 1000)))
            (i32.const 0))
        (func (export "process") (param i32 i32) (result i32) (i32.const 0))"#,
    );
    assert_eq!(
        guest.output(input("x")).await.0,
        "x",
        "address 0 is one like any other"
    );
    let guest = guest.memory_bytes(MIB);
    assert_eq!(guest.code(input("x")).await, ErrorCode::MemoryExceeded);
}

#[tokio::test]
async fn output_getters_that_point_outside_are_a_trap_however_much_they_claim() {
    let getters = |ptr: u32, len: u32| {
        plugin(&format!(
            r#"(func (export "process") (param i32 i32) (result i32) (i32.const 0))
            (func (export "get_output_ptr") (result i32) (i32.const {ptr}))
            (func (export "get_output_len") (result i32) (i32.const {len}))"#
        ))
    };
    for (ptr, len) in [
        (131_072, 1),
        (u32::MAX, 1),
        (131_000, 73),
        (0, u32::MAX),
        (u32::MAX, u32::MAX),
    ] {
        assert_eq!(
            getters(ptr, len).trap(nothing()).await.0,
            "host_call_out_of_bounds",
            "{ptr} {len}"
        );
    }
    assert_eq!(
        getters(131_000, 72).answer(nothing()).await.output.unwrap().len(),
        72
    );
    assert_eq!(
        Guest::file("hostile/output_outside.wat").trap(nothing()).await.0,
        "host_call_out_of_bounds"
    );
}

#[tokio::test]
async fn a_plugin_that_ends_itself_by_proc_exit_has_trapped() {
    let guest = plugin(
        r#"(import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
        (func $process (export "process") (param i32 i32) (result i32)
            (call $proc_exit (i32.const 3)) (i32.const 0))"#,
    );
    let fault = guest.fault(input("x")).await;
    assert!(fault.to_string().contains("proc_exit(3)"), "{fault}");
    assert_eq!(guest.trap(input("x")).await, ("exit", vec!["process".to_owned()]));
}

#[tokio::test]
async fn a_plugin_may_use_wasi_and_its_stderr_is_logged() {
    let guest = plugin(
        r#"(import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (data (i32.const 8) "\10\00\00\00\06\00\00\00oh dear")
        (func (export "process") (param i32 i32) (result i32)
            (call $write (i32.const 2) (i32.const 8) (i32.const 1) (i32.const 0)))"#,
    );
    assert_eq!(guest.output(input("x")).await, ("x".into(), 0));
    assert_eq!(guest.host.lines(), [(LogStream::Stderr, "oh dea".to_owned())]);
}
