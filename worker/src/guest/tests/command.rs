//! Commands: stdin to stdout through WASI, arguments and environment, exit codes; nothing of the machine is reachable.

use super::*;

/// A command that imports all that these tests need and starts with this body; 0..1024 of its memory is its own.
fn command(body: &str) -> Guest {
    let import =
        |name: &str, ty: &str| format!(r#"(import "wasi_snapshot_preview1" "{name}" (func ${name} {ty}))"#);
    let two = "(param i32 i32) (result i32)";
    let four = "(param i32 i32 i32 i32) (result i32)";
    Guest::wat(&format!(
        r#"(module {} {} {} {} {} {} {} {} {} {} {}
            (memory (export "memory") 4)
            (func $iovec (param $ptr i32) (param $len i32)
                (i32.store (i32.const 0) (local.get $ptr))
                (i32.store (i32.const 4) (local.get $len)))
            (func $print (param $fd i32) (param $ptr i32) (param $len i32)
                (call $iovec (local.get $ptr) (local.get $len))
                (if (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 12)) (then (unreachable))))
            (func (export "_start") {body}))"#,
        import("args_get", two),
        import("args_sizes_get", two),
        import("environ_get", two),
        import("environ_sizes_get", two),
        import("fd_prestat_get", two),
        import("random_get", two),
        import("fd_read", four),
        import("fd_write", four),
        import("poll_oneoff", four),
        import("sock_accept", "(param i32 i32 i32) (result i32)"),
        import("proc_exit", "(param i32)"),
    ))
}

/// Prints everything that a pair of WASI functions tells, NULs and all.
fn listing(get: &str) -> Guest {
    command(&format!(
        "(drop (call ${get}_sizes_get (i32.const 16) (i32.const 20)))
        (drop (call ${get}_get (i32.const 1024) (i32.const 65536)))
        (call $print (i32.const 1) (i32.const 65536) (i32.load (i32.const 20)))"
    ))
}

const READ_STDIN: &str = "(call $iovec (i32.const 1024) (i32.const 65536))
    (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))";

#[tokio::test]
async fn stdin_goes_to_stdout() {
    let cat = command(&format!(
        "{READ_STDIN} (call $print (i32.const 1) (i32.const 1024) (i32.load (i32.const 8)))"
    ));
    assert_eq!(cat.output(input("hello")).await, ("hello".into(), 0));
    assert_eq!(cat.output(nothing()).await, (String::new(), 0));
}

#[tokio::test]
async fn arguments_follow_the_module_s_name_as_text() {
    let guest = listing("args");
    assert_eq!(guest.output(nothing()).await.0, "guest\0");
    let call = args(json!(["-e", "", 7, 1.5, true, "ü"]));
    assert_eq!(guest.output(call).await.0, "guest\0-e\0\x007\x001.5\0true\0ü\0");
    for (bad, at) in [(json!(["a\0b"]), 0), (json!(["a", null]), 1), (json!([{}]), 0)] {
        let error = guest.plan(args(bad)).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArguments);
        assert!(
            error.error.message.starts_with(&format!("args[{at}]")),
            "{}",
            error.error.message
        );
    }
}

#[tokio::test]
async fn the_environment_is_the_caller_s_and_nothing_else() {
    let guest = listing("environ");
    assert_eq!(guest.output(nothing()).await.0, "");
    assert_eq!(
        guest
            .output(with_env(nothing(), &[("LANG", "C"), ("X", "")]))
            .await
            .0,
        "LANG=C\0X=\0"
    );
}

#[tokio::test]
async fn stderr_goes_to_the_log_line_by_line_with_the_last_one_unfinished() {
    let guest = command(&format!(
        "{READ_STDIN}
        (call $print (i32.const 2) (i32.const 1024) (i32.const 3))
        (call $print (i32.const 2) (i32.const 1027) (i32.sub (i32.load (i32.const 8)) (i32.const 3)))"
    ));
    guest.output(input("one\ntwo\n\nthree")).await;
    let lines = guest.host.lines();
    assert!(lines.iter().all(|(stream, _)| *stream == LogStream::Stderr));
    assert_eq!(guest.host.texts(), ["one", "two", "three"]);
}

#[tokio::test]
async fn an_unfinished_line_is_logged_even_when_the_guest_is_stopped() {
    let guest = command(
        "(i32.store (i32.const 1024) (i32.const 0x656d6f73))
        (call $print (i32.const 2) (i32.const 1024) (i32.const 4))
        (loop $again (br $again))",
    )
    .timeout_ms(50);
    assert_eq!(guest.code(nothing()).await, ErrorCode::DeadlineExceeded);
    assert_eq!(guest.host.texts(), ["some"]);
}

#[tokio::test]
async fn every_exit_code_is_an_answer() {
    let guest = Guest::file("hostile/exit_code.wat");
    for code in [0, 1, 125, 126, 255, 256, 70_000] {
        assert_eq!(guest.output(input(code.to_string())).await, (String::new(), code));
    }
    let negative = command("(call $proc_exit (i32.const -1))");
    assert_eq!(negative.output(nothing()).await.1, -1);
    assert_eq!(command("").output(nothing()).await.1, 0);
}

#[tokio::test]
async fn what_was_written_before_proc_exit_is_the_output() {
    let guest = command(&format!(
        "{READ_STDIN} (call $print (i32.const 1) (i32.const 1024) (i32.load (i32.const 8))) (call $proc_exit (i32.const 4))"
    ));
    assert_eq!(guest.output(input("so far")).await, ("so far".into(), 4));
}

#[tokio::test]
async fn proc_exit_in_the_start_function_is_an_exit_too() {
    let guest = Guest::wat(
        r#"(module
            (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
            (memory (export "memory") 1)
            (func $start (call $proc_exit (i32.const 9)))
            (start $start)
            (func (export "_start") (unreachable)))"#,
    );
    assert_eq!(guest.output(nothing()).await.1, 9);
}

#[tokio::test]
async fn no_folder_no_file_and_no_socket_is_open() {
    let errno = |call: &str| command(&format!("(call $proc_exit {call})"));
    const BADF: i32 = 8;
    const NOTSOCK: i32 = 57;
    let prestat = errno("(call $fd_prestat_get (i32.const 3) (i32.const 16))");
    assert_eq!(prestat.output(nothing()).await.1, BADF);
    assert_eq!(
        Guest::file("hostile/open_file.wat").output(nothing()).await.1,
        BADF
    );
    let accept = errno("(call $sock_accept (i32.const 0) (i32.const 0) (i32.const 16))");
    assert_eq!(accept.output(nothing()).await.1, NOTSOCK);
}

#[tokio::test]
async fn stdout_past_the_limit_is_output_too_large() {
    let guest = Guest::file("hostile/stdout_flood.wat").output_bytes(100_000);
    let error = guest.fault(nothing()).await.to_error();
    assert_eq!(error.code(), ErrorCode::OutputTooLarge);
    assert_eq!(error.error.detail["limit_bytes"], 100_000);
    let exact = command(&format!(
        "{READ_STDIN} (call $print (i32.const 1) (i32.const 1024) (i32.load (i32.const 8)))"
    ));
    let exact = exact.output_bytes(5);
    assert_eq!(exact.output(input("12345")).await.0, "12345");
    assert_eq!(exact.code(input("123456")).await, ErrorCode::OutputTooLarge);
}

#[tokio::test]
async fn an_hour_s_sleep_is_stopped_by_the_deadline() {
    let guest = Guest::file("hostile/sleep_hour.wat").timeout_ms(50);
    let ending = guest.run(nothing()).await;
    assert!(
        matches!(ending.result, Err(GuestFault::DeadlineExceeded(50))),
        "{:?}",
        ending.result
    );
    assert!((50_000..5_000_000).contains(&ending.run_us), "{}", ending.run_us);
}

#[tokio::test]
async fn reading_stdin_for_ever_is_stopped_by_the_deadline() {
    let guest = Guest::file("hostile/read_stdin.wat").timeout_ms(50);
    assert_eq!(guest.code(input("some")).await, ErrorCode::DeadlineExceeded);
}

#[tokio::test]
async fn a_pointer_outside_memory_is_a_trap_in_wasi_too() {
    let guest = command("(drop (call $fd_write (i32.const 1) (i32.const -8) (i32.const 1) (i32.const 8)))");
    let (kind, backtrace) = guest.trap(nothing()).await;
    assert_eq!((kind, backtrace.len()), ("host_call", 1));
    let guest = command("(drop (call $random_get (i32.const 0) (i32.const 0x7fffffff)))");
    assert_eq!(guest.trap(nothing()).await.0, "host_call");
}

#[tokio::test]
async fn one_poll_waits_for_a_thousand_things_and_no_more() {
    let poll = |count: u32| {
        command(&format!(
            "(call $proc_exit (call $poll_oneoff (i32.const 1024) (i32.const 131072) (i32.const {count}) (i32.const 8)))"
        ))
    };
    assert_eq!(poll(1000).output(nothing()).await.1, 0);
    assert_eq!(poll(1100).trap(nothing()).await.0, "host_call");
}

#[tokio::test]
async fn a_command_without_wasi_runs_too() {
    let guest = Guest::wat(r#"(module (func (export "_start")))"#);
    assert_eq!(guest.output(input("unread")).await, (String::new(), 0));
    assert_eq!(
        guest.plan(function("other")).unwrap_err().code(),
        ErrorCode::FunctionNotFound
    );
}

#[tokio::test]
async fn a_command_that_exports_no_memory_traps_in_wasi_and_not_in_us() {
    let guest = Guest::wat(
        r#"(module
            (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
            (func (export "_start") (drop (call $random_get (i32.const 0) (i32.const 8)))))"#,
    );
    assert_eq!(guest.trap(nothing()).await.0, "host_call");
}
