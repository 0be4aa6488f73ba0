//! Guests that do harm: each gets its own code in time, and the next good call finds the worker as it was.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::{Value, json};
use wess_schemas::{ErrorCode, header};

use crate::rig::{Rig, fact, refused, refused_naming};

/// How much later than its timeout a guest may be told of, on a machine that does other things too.
const LATE: Duration = Duration::from_secs(1);
/// What one run may log, in bytes.
const MAX_LOG_BYTES: usize = 64 << 10;

#[tokio::test]
async fn every_kind_of_trap_is_told_by_its_name_with_a_backtrace() {
    let rig = Rig::start(&[
        "traps",
        "start_trap",
        "alloc_traps",
        "alloc_outside",
        "output_outside",
        "state_flood",
    ])
    .await;
    for (target, kind) in [
        ("traps.unreachable", "unreachable"),
        ("traps.divide_by_zero", "integer_division_by_zero"),
        ("traps.remainder_by_zero", "integer_division_by_zero"),
        ("traps.integer_overflow", "integer_overflow"),
        ("traps.bad_conversion", "invalid_conversion_to_integer"),
        ("traps.conversion_overflow", "integer_overflow"),
        ("traps.load_out_of_bounds", "memory_out_of_bounds"),
        ("traps.store_out_of_bounds", "memory_out_of_bounds"),
        ("traps.fill_out_of_bounds", "memory_out_of_bounds"),
        ("traps.table_out_of_bounds", "table_out_of_bounds"),
        ("traps.indirect_out_of_bounds", "table_out_of_bounds"),
        ("traps.indirect_call_to_null", "indirect_call_to_null"),
        ("traps.bad_signature", "indirect_call_type_mismatch"),
        ("traps.stack_overflow", "stack_overflow"),
        ("start-trap", "unreachable"),
        ("state-flood", "state_too_large"),
    ] {
        let error = refused(ErrorCode::GuestTrapped, rig.caller.raw(target, "").await);
        assert_eq!(error.error.detail["trap"], kind, "{target}");
        assert!(
            !error.error.detail["backtrace"].as_array().unwrap().is_empty(),
            "{target}"
        );
    }
    for (target, kind) in [
        ("alloc-traps", "unreachable"),
        ("alloc-outside", "host_call_out_of_bounds"),
        ("output-outside", "host_call_out_of_bounds"),
    ] {
        let error = refused(ErrorCode::GuestTrapped, rig.caller.raw(target, "a").await);
        assert_eq!(error.error.detail["trap"], kind, "{target}");
    }
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_guest_that_never_ends_is_stopped_near_its_timeout() {
    let rig = Rig::start(&[
        "spin",
        "start_loop",
        "alloc_spins",
        "sleep_hour",
        "read_stdin",
        "memory_bomb",
    ])
    .await;
    let timeout = Duration::from_millis(300);
    for (module, function) in [
        ("spin", Some("spin")),
        ("start-loop", None),
        ("alloc-spins", None),
        ("sleep-hour", None),
        ("read-stdin", None),
        ("memory-bomb", Some("grow_for_ever")),
    ] {
        let limits = json!({"timeout_ms": timeout.as_millis() as u64});
        let mut request = json!({"module": module, "limits": limits});
        if let Some(function) = function {
            request["function"] = function.into();
        }
        if module == "alloc-spins" {
            request["input"] = "a".into();
        }
        let started = Instant::now();
        let error = refused_naming(
            ErrorCode::DeadlineExceeded,
            "300 ms",
            rig.caller.invoke(request).await,
        );
        let took = started.elapsed();
        assert!(timeout <= took && took < timeout + LATE, "{module} took {took:?}");
        assert_eq!(error.error.detail["timeout_ms"], 300, "{module}");
        rig.is_unharmed().await;
    }
}

#[tokio::test]
async fn memory_past_the_limit_is_refused_to_the_guest_and_told_when_it_traps() {
    let rig = Rig::start(&["memory_bomb", "table_bomb"]).await;
    let call = async |module: &str, function: &str, args: Value| {
        let limits = json!({"memory_mb": 1});
        rig.caller
            .invoke(json!({"module": module, "function": function, "args": args, "limits": limits}))
            .await
    };
    let stopped = call("memory-bomb", "grow_until_refused", json!([]))
        .await
        .unwrap();
    assert_eq!(
        (stopped.results, stopped.stats.memory_peak_bytes),
        (Some(vec![json!(16)]), Some(1 << 20))
    );
    let refusal = call("memory-bomb", "grow_at_once", json!([65_535]))
        .await
        .unwrap();
    assert_eq!(refusal.results, Some(vec![json!(-1)]));
    refused(
        ErrorCode::MemoryExceeded,
        call("memory-bomb", "grow_or_trap", json!([])).await,
    );
    assert_eq!(
        call("table-bomb", "grow_at_once", json!([10_000_000]))
            .await
            .unwrap()
            .results,
        Some(vec![json!(-1)])
    );
    let table = refused(
        ErrorCode::GuestTrapped,
        call("table-bomb", "grow_or_trap", json!([])).await,
    );
    assert_eq!(table.error.detail["trap"], "unreachable");
    rig.is_unharmed().await;
}

#[tokio::test]
async fn deep_recursion_ends_in_a_trap_and_honest_recursion_does_not() {
    let rig = Rig::start(&["deep_recursion"]).await;
    let call = async |function: &str, arg: i64| {
        rig.caller
            .invoke(json!({"module": "deep-recursion", "function": function, "args": [arg]}))
            .await
    };
    let error = refused(ErrorCode::GuestTrapped, call("for_ever", 0).await);
    assert_eq!(error.error.detail["trap"], "stack_overflow");
    assert_eq!(call("down", 5000).await.unwrap().results, Some(vec![json!(5000)]));
    rig.is_unharmed().await;
}

#[tokio::test]
async fn fuel_that_was_asked_for_runs_out() {
    let rig = Rig::start(&["spin"]).await;
    let call = async |fuel: u64| {
        let request =
            json!({"module": "spin", "function": "spin_times", "args": [1000], "limits": {"fuel": fuel}});
        rig.caller.invoke(request).await
    };
    refused(ErrorCode::OutOfFuel, call(1000).await);
    let used = call(100_000).await.unwrap().stats.fuel.unwrap();
    refused(ErrorCode::OutOfFuel, call(used / 2).await);
    assert_eq!(call(used).await.unwrap().stats.fuel, Some(used));
    rig.is_unharmed().await;
}

#[tokio::test]
async fn an_output_past_its_limit_is_too_large() {
    let rig = Rig::start(&["output_flood", "stdout_flood", "in_place"]).await;
    for module in ["output-flood", "stdout-flood"] {
        let error = refused(ErrorCode::OutputTooLarge, rig.caller.raw(module, "").await);
        assert_eq!(error.error.detail["limit_bytes"], 10 << 20, "{module}");
    }
    let call = async |most: u64| {
        rig.caller
            .invoke(json!({"module": "in-place", "input": "hello", "limits": {"output_bytes": most}}))
            .await
    };
    assert_eq!(
        refused(ErrorCode::OutputTooLarge, call(4).await).error.detail["limit_bytes"],
        4
    );
    assert_eq!(call(5).await.unwrap().output.as_deref(), Some("olleh"));
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_flood_of_log_lines_is_bounded_and_the_last_one_says_so() {
    let rig = Rig::start(&["log_flood", "stderr_flood"]).await;
    for (module, stream) in [("log-flood", "log"), ("stderr-flood", "stderr")] {
        let mut lines = rig
            .caller
            .client
            .subscribe(format!("wess.logs.{module}"))
            .await
            .unwrap();
        let run = rig
            .caller
            .invoke(json!({"module": module, "limits": {"timeout_ms": 300}}))
            .await;
        assert!(run.is_ok() || refused(ErrorCode::DeadlineExceeded, run).error.guest_ran);
        let (mut bytes, mut last) = (0, lines.next().await.unwrap());
        while !last.payload.starts_with(b"(this run has logged too much") {
            assert_eq!(fact(&last, header::LOG_STREAM), Some(stream));
            bytes += last.payload.len();
            last = lines.next().await.unwrap();
        }
        assert!(
            (1..=MAX_LOG_BYTES).contains(&bytes),
            "{module} logged {bytes} bytes"
        );
        rig.is_unharmed().await;
    }
}

#[tokio::test]
async fn every_host_import_takes_no_pointer_outside_the_guests_memory() {
    let rig = Rig::start(&["hostile_pointers"]).await;
    for import in ["l", "o", "g", "r", "k", "v", "d"] {
        for range in 0..5 {
            let input = format!("{import}{range}");
            let error = refused(
                ErrorCode::GuestTrapped,
                rig.caller.raw("hostile-pointers", input.clone()).await,
            );
            assert_eq!(error.error.detail["trap"], "host_call_out_of_bounds", "{input}");
        }
    }
    let harmless = rig.caller.raw("hostile-pointers", "x0").await.unwrap();
    assert_eq!(fact(&harmless, header::EXIT_CODE), Some("99"));
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_guest_has_no_files_and_its_own_exit_code() {
    let rig = Rig::start(&["open_file", "exit_code"]).await;
    let bad_descriptor = rig.caller.raw("open-file", "").await.unwrap();
    assert_eq!(fact(&bad_descriptor, header::EXIT_CODE), Some("8"));
    for code in ["0", "1", "125", "255", "256", "2147483647"] {
        let all_facts = [(header::FACTS, "all")];
        let exited = rig
            .caller
            .ask("wess.invoke.exit-code", &all_facts, code)
            .await
            .unwrap();
        assert_eq!(fact(&exited, header::EXIT_CODE), Some(code));
    }
    rig.is_unharmed().await;
}
