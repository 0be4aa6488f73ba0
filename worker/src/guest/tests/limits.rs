//! Each limit stops a guest with its own code, gives back what was held, and says what was used.

use super::*;
use crate::guest::engine::MAX_MEMORY_BYTES;
use crate::guest::limits::MAX_TABLE_ELEMENTS;

const PAGE: u64 = 65_536;

fn bomb() -> Guest {
    Guest::file("hostile/memory_bomb.wat")
}

#[tokio::test]
async fn a_guest_that_computes_is_stopped_at_its_deadline() {
    let guest = Guest::file("typed/spin.wat").timeout_ms(50);
    let ending = guest.run(function("spin")).await;
    let error = ending.result.unwrap_err().to_error();
    assert_eq!(error.code(), ErrorCode::DeadlineExceeded);
    assert_eq!(error.error.detail["timeout_ms"], 50);
    assert!((50_000..5_000_000).contains(&ending.run_us), "{}", ending.run_us);
}

#[tokio::test]
async fn the_deadline_counts_from_before_the_start_function_and_alloc() {
    let start = Guest::file("hostile/start_loop.wat").timeout_ms(50);
    assert_eq!(start.code(nothing()).await, ErrorCode::DeadlineExceeded);
    let alloc = Guest::file("hostile/alloc_spins.wat").timeout_ms(50);
    assert_eq!(alloc.code(input("x")).await, ErrorCode::DeadlineExceeded);
}

#[tokio::test]
async fn a_guest_that_waits_for_its_host_is_stopped_at_its_deadline() {
    let guest = Guest::wat(
        r#"(module
            (import "host" "delete_state" (func $delete (param i32 i32)))
            (memory (export "memory") 1)
            (func (export "wait") (call $delete (i32.const 0) (i32.const 1))))"#,
    )
    .timeout_ms(50);
    *guest.host.waiting.lock().unwrap() = Some(Arc::default());
    assert_eq!(guest.code(nothing()).await, ErrorCode::DeadlineExceeded);
}

#[tokio::test]
async fn growth_past_the_limit_is_refused_to_the_guest_which_may_cope() {
    let guest = bomb().memory_bytes(10 * PAGE);
    let ending = guest.run(function("grow_until_refused")).await;
    assert_eq!(ending.result.unwrap().results.unwrap(), [json!(10)]);
    assert_eq!(ending.memory_peak_bytes, 10 * PAGE);
    let at_once = |pages: u64| named("grow_at_once", args(json!([pages])));
    assert_eq!(guest.results(at_once(9)).await, json!([1]));
    assert_eq!(guest.results(at_once(10)).await, json!([-1]));
    assert_eq!(guest.results(at_once(65_535)).await, json!([-1]));
}

#[tokio::test]
async fn a_guest_that_traps_after_a_refused_growth_has_exceeded_its_memory() {
    let guest = bomb().memory_bytes(10 * PAGE);
    assert_eq!(
        guest.code(function("grow_or_trap")).await,
        ErrorCode::MemoryExceeded
    );
    let greedy = Guest::wat(
        r#"(module (memory 1) (func (export "f")
            (if (i32.lt_s (memory.grow (i32.const 65536)) (i32.const 0)) (then (unreachable)))))"#,
    );
    assert_eq!(
        greedy.code(nothing()).await,
        ErrorCode::MemoryExceeded,
        "even where no 32-bit memory could grow to"
    );
}

#[tokio::test]
async fn a_guest_that_asks_for_memory_for_ever_is_stopped_at_its_deadline() {
    let guest = bomb().memory_bytes(10 * PAGE).timeout_ms(50);
    assert_eq!(
        guest.code(function("grow_for_ever")).await,
        ErrorCode::DeadlineExceeded
    );
}

#[tokio::test]
async fn a_trap_after_the_module_s_own_maximum_said_no_is_just_a_trap() {
    let guest = Guest::wat(
        r#"(module (memory 1 2) (func (export "f")
            (if (i32.lt_s (memory.grow (i32.const 2)) (i32.const 0)) (then (unreachable)))))"#,
    );
    assert_eq!(guest.trap(nothing()).await.0, "unreachable");
}

#[tokio::test]
async fn initial_memory_above_the_limit_is_exceeded_before_the_start_whatever_the_abi() {
    for export in ["(func (export \"f\"))", "(func (export \"_start\"))"] {
        let guest = Guest::wat(&format!("(module (memory (export \"memory\") 11) {export})"));
        assert_eq!(
            guest.memory_bytes(10 * PAGE).code(nothing()).await,
            ErrorCode::MemoryExceeded
        );
    }
}

#[tokio::test]
async fn no_limit_reaches_past_what_a_pool_slot_holds() {
    let guest = bomb().memory_bytes(u64::MAX);
    let all = MAX_MEMORY_BYTES as u64 / PAGE;
    assert_eq!(
        guest.results(named("grow_at_once", args(json!([all - 1])))).await,
        json!([1])
    );
    assert_eq!(
        guest.results(named("grow_at_once", args(json!([all])))).await,
        json!([-1])
    );
}

#[tokio::test]
async fn a_process_without_memory_is_full_before_the_start_and_says_so_later() {
    let budget = MemoryBudget::new(10 * PAGE);
    let engines = engines();
    let holder = Guest::load(&wasm_of("hostile/memory_bomb.wat"), &engines, Metering::Off).budget(&budget);
    let mut held = Box::pin(holder.start(function("grow_for_ever")));
    while budget.used_bytes() < 10 * PAGE {
        assert!(futures_util::poll!(held.as_mut()).is_pending());
    }
    for export in ["(func (export \"f\"))", "(func (export \"_start\"))"] {
        let text = format!("(module (memory (export \"memory\") 1) {export})");
        let late = Guest::load(&wasm(&text), &engines, Metering::Off).budget(&budget);
        let error = late.fault(nothing()).await.to_error();
        assert_eq!(
            (error.code(), error.error.guest_ran),
            (ErrorCode::Overloaded, false),
            "{export}"
        );
    }
    drop(held);
    assert_eq!(budget.used_bytes(), 0, "a dropped run gives back what it held");
}

#[tokio::test]
async fn growth_that_the_process_refuses_says_that_it_was_not_the_guest_s_limit() {
    let guest = bomb().budget(&MemoryBudget::new(5 * PAGE));
    assert_eq!(guest.results(function("grow_until_refused")).await, json!([5]));
    let error = guest.fault(function("grow_or_trap")).await.to_error();
    assert_eq!(error.code(), ErrorCode::MemoryExceeded);
    assert_eq!(error.error.detail["reason"], "worker_memory_budget");
    let plugin = Guest::file("plugin/in_place.wat").budget(&MemoryBudget::new(PAGE));
    let error = plugin.fault(input("no room for it")).await.to_error();
    assert_eq!(error.error.detail["reason"], "worker_memory_budget");
}

#[tokio::test]
async fn an_input_that_does_not_fit_into_the_guest_s_memory_exceeds_it() {
    let guest = Guest::file("plugin/in_place.wat").memory_bytes(2 * PAGE);
    assert_eq!(guest.output(input("x".repeat(PAGE as usize))).await.1, 0);
    assert_eq!(
        guest.code(input("x".repeat(PAGE as usize + 1))).await,
        ErrorCode::MemoryExceeded
    );
}

#[tokio::test]
async fn a_table_grows_to_its_bound_and_no_further() {
    let guest = Guest::file("hostile/table_bomb.wat");
    let elements = guest.results(function("grow_until_refused")).await[0]
        .as_u64()
        .unwrap();
    assert!(
        (MAX_TABLE_ELEMENTS as u64 - 1000..=MAX_TABLE_ELEMENTS as u64).contains(&elements),
        "{elements}"
    );
    assert_eq!(guest.trap(function("grow_or_trap")).await.0, "unreachable");
    let at_once = |elements: usize| named("grow_at_once", args(json!([elements])));
    assert_eq!(guest.results(at_once(MAX_TABLE_ELEMENTS - 1)).await, json!([1]));
    assert_eq!(guest.results(at_once(MAX_TABLE_ELEMENTS)).await, json!([-1]));
}

#[tokio::test]
async fn deep_recursion_is_a_stack_overflow_and_a_thousand_frames_are_not() {
    let guest = Guest::file("hostile/deep_recursion.wat");
    let (kind, backtrace) = guest.trap(named("for_ever", args(json!([0])))).await;
    assert_eq!((kind, backtrace[0].as_str()), ("stack_overflow", "for_ever"));
    assert_eq!(
        guest.results(named("down", args(json!([1000])))).await,
        json!([1000])
    );
}

#[tokio::test]
async fn a_host_call_at_the_end_of_the_stack_ends_the_guest_and_not_the_worker() {
    let guest = Guest::wat(
        r#"(module
            (import "host" "log" (func $log (param i32 i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 8) "\00\00\00\00\ff\00\00\00")
            (func $down (export "down")
                (call $log (i32.const 0) (i32.const 8))
                (drop (call $write (i32.const 2) (i32.const 8) (i32.const 1) (i32.const 0)))
                (call $down)))"#,
    );
    assert_eq!(guest.trap(nothing()).await.0, "stack_overflow");
}

#[tokio::test]
async fn fuel_is_exact_what_a_run_needs_is_enough_and_one_less_is_not() {
    let wasm = wasm_of("typed/spin.wat");
    let spin = || named("spin_times", args(json!([1000])));
    let plenty = Guest::fueled(&wasm, u64::MAX).run(spin()).await;
    let needed = plenty.fuel.unwrap();
    assert!((1000..100_000).contains(&needed), "{needed}");
    assert_eq!(plenty.result.unwrap().results.unwrap(), [json!(1000)]);
    let exact = Guest::fueled(&wasm, needed).run(spin()).await;
    assert_eq!((exact.result.is_ok(), exact.fuel), (true, Some(needed)));
    let short = Guest::fueled(&wasm, needed - 1).run(spin()).await;
    assert_eq!(short.result.unwrap_err().to_error().code(), ErrorCode::OutOfFuel);
    assert_eq!(short.fuel, Some(needed - 1));
}

#[tokio::test]
async fn a_loop_without_end_runs_out_of_fuel_and_one_that_is_not_counted_says_nothing() {
    let guest = Guest::fueled(&wasm_of("typed/spin.wat"), 100_000);
    assert_eq!(guest.code(function("spin")).await, ErrorCode::OutOfFuel);
    let start = Guest::fueled(&wasm_of("hostile/start_loop.wat"), 100_000);
    assert_eq!(start.code(nothing()).await, ErrorCode::OutOfFuel);
    let uncounted = Guest::file("typed/add.wat").run(args(json!([1, 2]))).await;
    assert_eq!(uncounted.fuel, None);
}

#[tokio::test]
async fn output_has_a_limit_whichever_way_it_is_given() {
    let way = |parts: &str| {
        Guest::wat(&format!(
            r#"(module
                (import "host" "set_output" (func $set_output (param i32 i32)))
                (memory (export "memory") 2)
                {parts})"#
        ))
        .output_bytes(1000)
    };
    let set = r#"(func (export "process") (param i32 i32) (result i32)
        (call $set_output (i32.const 0) (local.get 1)) (i32.const 0))"#;
    let getters = r#"(global $len (mut i32) (i32.const 0))
        (func (export "process") (param i32 i32) (result i32) (global.set $len (local.get 1)) (i32.const 0))
        (func (export "get_output_ptr") (result i32) (i32.const 0))
        (func (export "get_output_len") (result i32) (global.get $len))"#;
    let in_place = r#"(func (export "process") (param i32 i32) (result i32) (i32.const 0))"#;
    for parts in [set, getters, in_place] {
        let guest = way(parts);
        assert_eq!(
            guest.answer(input("x".repeat(1000))).await.output.unwrap().len(),
            1000
        );
        assert_eq!(
            guest.code(input("x".repeat(1001))).await,
            ErrorCode::OutputTooLarge
        );
    }
    let flood = Guest::file("hostile/output_flood.wat").output_bytes(10 * MIB);
    assert_eq!(flood.code(nothing()).await, ErrorCode::OutputTooLarge);
}

#[tokio::test]
async fn the_peak_of_memory_is_reported_for_guests_that_fail_too() {
    assert_eq!(
        Guest::file("typed/add.wat")
            .run(args(json!([1, 2])))
            .await
            .memory_peak_bytes,
        0
    );
    let ending = bomb().memory_bytes(7 * PAGE).run(function("grow_or_trap")).await;
    assert_eq!(ending.memory_peak_bytes, 7 * PAGE);
}
