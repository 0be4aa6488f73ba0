//! The imports of the module `host`: what they answer, where they stop, and that no pointer gets past them.

use super::*;
use crate::guest::log::{DROPPED, MAX_LOG_BYTES, MAX_LOG_LINE_BYTES};

const IMPORTS: &str = r#"
    (import "host" "log" (func $log (param i32 i32)))
    (import "host" "set_output" (func $set_output (param i32 i32)))
    (import "host" "get_state" (func $get (param i32 i32) (result i32)))
    (import "host" "read_state" (func $read (param i32 i32) (result i32)))
    (import "host" "set_state" (func $set (param i32 i32 i32 i32)))
    (import "host" "delete_state" (func $delete (param i32 i32)))
    (memory (export "memory") 17)
    (data (i32.const 0) "ab")"#;

/// A plugin with all imports whose memory begins with "ab", the names of two keys, and that runs this body.
fn plugin(body: &str) -> Guest {
    let process = format!(r#"(func (export "process") (param i32 i32) (result i32) {body})"#);
    Guest::wat(&format!("(module {IMPORTS} {process})"))
}

const KEY_A: &str = "(i32.const 0) (i32.const 1)";
const KEY_B: &str = "(i32.const 1) (i32.const 1)";
const BUFFER: u32 = 1024;

#[tokio::test]
async fn get_state_answers_the_length_or_minus_one() {
    let guest = plugin(&format!("(call $get {KEY_A})"));
    assert_eq!(guest.output(nothing()).await.1, -1);
    guest
        .host
        .set_state(b"a", Bytes::from_static(b"value"))
        .await
        .unwrap();
    assert_eq!(guest.output(nothing()).await.1, 5);
    guest.host.set_state(b"a", Bytes::new()).await.unwrap();
    assert_eq!(guest.output(nothing()).await.1, 0);
}

#[tokio::test]
async fn read_state_copies_at_most_its_capacity_of_the_last_get() {
    let read = |capacity: u32| {
        plugin(&format!(
            "(local $read i32)
            (drop (call $get {KEY_B})) (drop (call $get {KEY_A}))
            (i64.store (i32.const {BUFFER}) (i64.const -1))
            (local.set $read (call $read (i32.const {BUFFER}) (i32.const {capacity})))
            (call $set_output (i32.const {BUFFER}) (i32.const 8))
            (local.get $read)"
        ))
    };
    for (capacity, expected) in [(0, &b""[..]), (3, b"val"), (5, b"value"), (100, b"value")] {
        let guest = read(capacity);
        guest
            .host
            .set_state(b"a", Bytes::from_static(b"value"))
            .await
            .unwrap();
        guest
            .host
            .set_state(b"b", Bytes::from_static(b"another value"))
            .await
            .unwrap();
        let answer = guest.answer(nothing()).await;
        assert_eq!(answer.exit_code, Some(expected.len() as i32));
        let output = answer.output.unwrap();
        assert_eq!(&output[..expected.len()], expected);
        assert!(
            output[expected.len()..].iter().all(|byte| *byte == 0xff),
            "{output:?}"
        );
    }
}

#[tokio::test]
async fn read_state_before_any_get_or_after_a_missing_key_reads_nothing() {
    let read = format!("(call $read (i32.const {BUFFER}) (i32.const 100))");
    assert_eq!(plugin(&read).output(nothing()).await.1, 0);
    let guest = plugin(&format!(
        "(drop (call $get {KEY_A})) (drop (call $get {KEY_B})) {read}"
    ));
    guest
        .host
        .set_state(b"a", Bytes::from_static(b"value"))
        .await
        .unwrap();
    assert_eq!(guest.output(nothing()).await.1, 0);
}

#[tokio::test]
async fn what_was_set_is_there_for_the_next_call_until_it_is_deleted() {
    let guest = plugin(&format!(
        "(call $set {KEY_A} (local.get 0) (local.get 1)) (call $get {KEY_A})"
    ));
    assert_eq!(guest.output(input("kept")).await.1, 4);
    assert_eq!(guest.host.value("a").unwrap(), "kept");
    let mut other = plugin(&format!(
        "(call $delete {KEY_A}) (call $delete {KEY_B}) (call $get {KEY_A})"
    ));
    other.host = Arc::clone(&guest.host);
    assert_eq!(other.output(nothing()).await.1, -1);
    assert_eq!(guest.host.value("a"), None);
}

#[tokio::test]
async fn keys_and_values_have_bounds_and_past_them_nothing_is_set() {
    let set = |key: usize, value: usize| {
        plugin(&format!(
            "(call $set (i32.const 0) (i32.const {key}) (i32.const 0) (i32.const {value})) (i32.const 0)"
        ))
    };
    let largest = set(MAX_STATE_KEY_BYTES, MAX_STATE_VALUE_BYTES);
    assert_eq!(largest.output(nothing()).await.1, 0);
    for (key, value) in [(MAX_STATE_KEY_BYTES + 1, 1), (1, MAX_STATE_VALUE_BYTES + 1)] {
        let guest = set(key, value);
        assert_eq!(guest.trap(nothing()).await.0, "state_too_large");
        assert!(guest.host.state.lock().unwrap().is_empty());
    }
    for call in [
        "(drop (call $get (i32.const 0) (i32.const 257)))",
        "(call $delete (i32.const 0) (i32.const 257))",
    ] {
        assert_eq!(
            plugin(&format!("{call} (i32.const 0)")).trap(nothing()).await.0,
            "state_too_large"
        );
    }
    assert_eq!(
        Guest::file("hostile/state_flood.wat").trap(nothing()).await.0,
        "state_too_large"
    );
}

#[tokio::test]
async fn every_import_refuses_every_pointer_outside_memory() {
    let guest = Guest::file("hostile/hostile_pointers.wat");
    for import in "logrkvd".chars() {
        for range in '0'..='4' {
            let (kind, backtrace) = guest.trap(input(format!("{import}{range}"))).await;
            assert_eq!(kind, "host_call_out_of_bounds", "{import}{range}");
            assert_eq!(backtrace.len(), 1, "the guest's own function is named");
        }
    }
    assert_eq!(guest.output(input("x0")).await.1, 99);
    assert_eq!(
        guest.host.value("key").as_deref(),
        Some(&b"key"[..]),
        "only the good pointers went through"
    );
}

#[tokio::test]
async fn a_pointer_may_reach_the_very_end_of_memory() {
    let end = 17 * 65536;
    let guest = plugin(&format!(
        "(call $set_output (i32.const {}) (i32.const 4)) (i32.const 0)",
        end - 4
    ));
    assert_eq!(guest.answer(nothing()).await.output.unwrap(), [0; 4]);
    let empty = plugin(&format!(
        "(call $set_output (i32.const {end}) (i32.const 0)) (i32.const 0)"
    ));
    assert_eq!(empty.answer(nothing()).await.output.unwrap(), [0; 0]);
}

#[tokio::test]
async fn a_module_without_memory_traps_in_host_calls() {
    let guest = Guest::wat(
        r#"(module
            (import "host" "log" (func $log (param i32 i32)))
            (func (export "log") (call $log (i32.const 0) (i32.const 0))))"#,
    );
    assert_eq!(guest.trap(nothing()).await.0, "host_call_out_of_bounds");
}

#[tokio::test]
async fn a_state_store_that_fails_is_no_fault_of_the_guest_s() {
    for call in [
        format!("(drop (call $get {KEY_A}))"),
        format!("(call $set {KEY_A} {KEY_A})"),
        format!("(call $delete {KEY_A})"),
    ] {
        let guest = plugin(&format!("{call} (i32.const 0)"));
        *guest.host.failing.lock().unwrap() = Some(StateError::Unavailable);
        let error = guest.fault(nothing()).await.to_error();
        assert_eq!(error.code(), ErrorCode::Internal);
        assert_eq!(error.error.message, "guest state is unavailable");
        *guest.host.failing.lock().unwrap() = Some(StateError::Nameless);
        assert_eq!(guest.trap(nothing()).await.0, "no_state");
    }
}

/// A plugin that logs its input.
fn logger() -> Guest {
    plugin("(call $log (local.get 0) (local.get 1)) (i32.const 0)")
}

#[tokio::test]
async fn a_log_call_is_cut_into_lines_and_empty_ones_are_left_out() {
    let guest = logger();
    guest.output(input("one\n\ntwo\n")).await;
    let log = |text: &str| (LogStream::Log, text.to_owned());
    assert_eq!(guest.host.lines(), [log("one"), log("two")]);
}

#[tokio::test]
async fn a_long_line_is_cut_and_not_through_a_character() {
    let guest = logger();
    guest.output(input("x".repeat(MAX_LOG_LINE_BYTES + 1))).await;
    guest.output(input("ü".repeat(MAX_LOG_LINE_BYTES))).await;
    guest
        .output(input(format!("x{}", "ü".repeat(MAX_LOG_LINE_BYTES))))
        .await;
    let texts = guest.host.texts();
    assert_eq!(
        texts.iter().map(String::len).collect::<Vec<_>>(),
        [8192, 8192, 8191]
    );
    assert!(
        texts
            .iter()
            .all(|text| !text.contains(char::REPLACEMENT_CHARACTER))
    );
}

#[tokio::test]
async fn what_is_not_text_is_logged_as_well_as_can_be() {
    let guest = logger();
    guest.answer(input(&b"caf\xe9 \xff"[..])).await;
    assert_eq!(guest.host.texts(), ["caf\u{fffd} \u{fffd}"]);
}

#[tokio::test]
async fn a_run_that_logs_too_much_is_cut_and_says_so_once() {
    for (path, stream) in [
        ("hostile/log_flood.wat", LogStream::Log),
        ("hostile/stderr_flood.wat", LogStream::Stderr),
    ] {
        let guest = Guest::file(path).timeout_ms(200);
        // The flood on stderr has no end but the deadline; the one of `log` has.
        let _ = guest.run(nothing()).await;
        let lines = guest.host.lines();
        assert_eq!(lines.last(), Some(&(stream, DROPPED.to_owned())), "{path}");
        assert_eq!(
            lines.iter().filter(|(_, text)| text == DROPPED).count(),
            1,
            "{path}"
        );
        let bytes: usize = lines.iter().map(|(_, text)| text.len()).sum();
        assert!(
            (MAX_LOG_BYTES / 2..=MAX_LOG_BYTES + DROPPED.len()).contains(&bytes),
            "{path}: {bytes}"
        );
    }
}

/// A key as it is mounted, in lines.
const KEY: &str = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0\n-----END KEY-----\n";

fn with_secrets(mut guest: Guest, values: &[(&str, &str)]) -> Guest {
    guest.host = Arc::new(MemoryHost {
        secrets: Secrets::known(values),
        ..MemoryHost::default()
    });
    guest
}

/// A command that writes its stdin to its standard error, as many bytes at once.
fn complainer(at_once: u32) -> Guest {
    Guest::wat(&format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 3)
            (func (export "_start")
                (i32.store (i32.const 0) (i32.const 1024))
                (loop $again
                    (i32.store (i32.const 4) (i32.const {at_once}))
                    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 4)))
                    (if (i32.load (i32.const 4))
                        (then
                            (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
                            (br $again))))))"#
    ))
}

#[tokio::test]
async fn a_secret_of_several_lines_is_masked_as_a_whole_and_line_by_line() {
    for guest in [logger(), complainer(1000)] {
        let guest = with_secrets(guest, &[("KEY", KEY)]);
        guest
            .answer(input(format!("a {KEY} b\nMIIEvQIBADANBgkqhkiG9w0!")))
            .await;
        assert_eq!(guest.host.texts(), ["a [secret] b", "[secret]!"]);
    }
    // Lines that come one by one are masked one by one.
    let guest = with_secrets(complainer(20), &[("KEY", KEY)]);
    guest.answer(input(format!("a {KEY}b"))).await;
    assert_eq!(guest.host.texts(), ["a [secret]", "[secret]", "[secret]", "b"]);
}

#[tokio::test]
async fn a_secret_that_holds_another_is_masked_whole() {
    for guest in [logger(), complainer(3)] {
        let guest = with_secrets(guest, &[("A", "hunt"), ("B", "hunter2")]);
        guest.answer(input("hunter2, hunted")).await;
        assert_eq!(guest.host.texts(), ["[secret], [secret]ed"]);
    }
}

#[tokio::test]
async fn no_cut_shows_a_part_of_a_secret() {
    const SECRET: &str = "correct horse battery staple";
    let around = SECRET.len() * 2;
    for make in [logger as fn() -> Guest, || complainer(4096), || complainer(65536)] {
        for before in (0..around).map(|at| MAX_LOG_LINE_BYTES - around + at) {
            let guest = with_secrets(make(), &[("A", SECRET)]);
            let text = format!("{}{SECRET}{}", "x".repeat(before), "y".repeat(9000));
            guest.answer(input(text)).await;
            let [line] = &guest.host.texts()[..] else {
                panic!("one line was written at {before}")
            };
            let left = line.trim_start_matches('x').trim_end_matches('y');
            assert!("[secret]".starts_with(left), "{left:?} is left at {before}");
        }
    }
    // One call is read no further than a run may log; its lines are short, and the last one has a secret in it.
    for before in (0..around).map(|at| MAX_LOG_BYTES - around + at) {
        let guest = with_secrets(logger(), &[("A", SECRET)]);
        guest
            .answer(input(format!("{}{SECRET}", "\n".repeat(before))))
            .await;
        let shown = guest.host.texts().concat();
        let left = shown.trim_end_matches(DROPPED);
        assert!(
            left.is_empty() || left == "[secret]",
            "{left:?} is left at {before}"
        );
    }
}

#[tokio::test]
async fn what_is_written_without_an_end_of_line_is_one_line_that_is_cut() {
    let guest = complainer(4096);
    let long = "x".repeat(3 * MAX_LOG_LINE_BYTES);
    guest.answer(input(format!("{long}\nnext\n{long}"))).await;
    let lengths: Vec<_> = guest.host.texts().iter().map(String::len).collect();
    assert_eq!(lengths, [MAX_LOG_LINE_BYTES, 4, MAX_LOG_LINE_BYTES]);
}

#[tokio::test]
async fn one_log_call_is_read_no_further_than_a_run_may_log() {
    let guest = logger();
    let mut text = "\n".repeat(MAX_LOG_BYTES);
    text.push_str("never read");
    guest.output(input(text)).await;
    assert_eq!(guest.host.texts(), [DROPPED]);
}
