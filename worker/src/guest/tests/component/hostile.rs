//! Components that mean harm: each ends with a code, and the next call works.

use super::*;

#[tokio::test]
async fn a_trap_a_loop_and_an_eater_of_memory_are_told_apart() {
    let trapping = Guest::new(&giving("(unreachable)", "u32"));
    assert_eq!(trapping.trap(nothing()).await.0, "unreachable");
    let looping = Guest::new(&giving("(loop $l (br $l)) (i32.const 0)", "u32")).timeout_ms(30);
    assert_eq!(looping.code(nothing()).await, ErrorCode::DeadlineExceeded);
    let eating = Guest::new(&giving(
        "(loop $l (br_if $l (i32.ne (i32.const -1) (memory.grow (i32.const 16))))) (unreachable)",
        "u32",
    ));
    assert_eq!(
        eating.memory_bytes(MIB).code(nothing()).await,
        ErrorCode::MemoryExceeded
    );
    let starting = Guest::wat(
        r#"(component (core module $m (func $s (unreachable)) (start $s) (func (export "f")))
            (core instance $m (instantiate $m)) (func (export "f") (canon lift (core func $m "f"))))"#,
    );
    assert_eq!(starting.trap(nothing()).await.0, "unreachable");
}

#[tokio::test]
async fn lists_too_long_to_hold_are_refused_before_they_are_made() {
    // The same 60000 bytes of zeros over and over: half a billion of them in a guest of two pages.
    let body = "(local i32) (drop (memory.grow (i32.const 1)))
        (i32.store (i32.const 8) (i32.const 64)) (i32.store (i32.const 12) (i32.const 8000))
        (local.set 0 (i32.const 64))
        (loop $l
            (i32.store (local.get 0) (i32.const 65536)) (i32.store offset=4 (local.get 0) (i32.const 60000))
            (local.set 0 (i32.add (local.get 0) (i32.const 8)))
            (br_if $l (i32.lt_u (local.get 0) (i32.const 64064))))
        (i32.const 8)";
    for ty in ["(list (list u8))", "(list string)"] {
        let huge = Guest::new(&giving(body, ty)).output_bytes(10 * MIB);
        assert_eq!(huge.code(nothing()).await, ErrorCode::OutputTooLarge, "{ty}");
    }
    // Longer than memory is.
    let outside = "(i32.store (i32.const 8) (i32.const 0)) (i32.store (i32.const 12) (i32.const 0x7fffffff)) (i32.const 8)";
    for ty in ["(list u32)", "string", "(list u8)"] {
        let outside = Guest::new(&giving(outside, ty));
        assert_eq!(outside.trap(nothing()).await.0, "invalid_value", "{ty}");
    }
}

#[tokio::test]
async fn an_answer_past_the_output_limit_is_refused_in_json_and_in_bytes() {
    for (ty, count) in [("(list u8)", 60_000), ("string", 60_000), ("(list u16)", 20_000)] {
        let body = format!(
            "(i32.store (i32.const 8) (i32.const 100)) (i32.store (i32.const 12) (i32.const {count})) (i32.const 8)"
        );
        let wasm = giving(&body, ty);
        assert_eq!(
            Guest::new(&wasm).output_bytes(10_000).code(nothing()).await,
            ErrorCode::OutputTooLarge,
            "{ty}"
        );
        assert!(Guest::new(&wasm).run(nothing()).await.result.is_ok(), "{ty}");
    }
    let echo = Guest::new(&component(
        r#"(func (export "f") (param i32 i32) (result i32)
            (i32.store (i32.const 8) (i32.const 0)) (i32.store (i32.const 12) (i32.const 60000)) (i32.const 8))"#,
        "",
        &[],
        r#"(param "x" string) (result (list u8))"#,
    ));
    assert_eq!(
        echo.output_bytes(10_000).code(input("x")).await,
        ErrorCode::OutputTooLarge
    );
}

#[tokio::test]
async fn values_that_are_none_of_their_type_are_a_trap() {
    for (ty, value) in [("bool", 2), ("char", 0xd800), ("u8", 256)] {
        let guest = Guest::new(&giving(&format!("(i32.const {value})"), ty));
        let ending = guest.run(nothing()).await.result;
        match ending {
            // The canonical ABI ignores the upper bits of small integers and takes any truth but zero.
            Ok(answer) => assert_ne!(ty, "char", "{answer:?}"),
            Err(fault) => assert_eq!((ty, fault.to_error().code()), ("char", ErrorCode::GuestTrapped)),
        }
    }
    let unaligned =
        "(i32.store (i32.const 8) (i32.const 1)) (i32.store (i32.const 12) (i32.const 1)) (i32.const 8)";
    assert_eq!(
        Guest::new(&giving(unaligned, "(list u32)"))
            .trap(nothing())
            .await
            .0,
        "invalid_value"
    );
    let not_utf8 = "(i32.store (i32.const 100) (i32.const -1))
        (i32.store (i32.const 8) (i32.const 100)) (i32.store (i32.const 12) (i32.const 4)) (i32.const 8)";
    assert_eq!(
        Guest::new(&giving(not_utf8, "string")).trap(nothing()).await.0,
        "invalid_value"
    );
}

#[tokio::test]
async fn a_guest_that_cannot_make_room_for_its_arguments_exceeds_its_memory() {
    let echo = Guest::new(&echo("", &[], "string")).memory_bytes(MIB);
    let call = echoed(&json!("x".repeat(2 << 20)));
    assert_eq!(echo.code(call).await, ErrorCode::MemoryExceeded);
    assert!(echo.run(echoed(&json!("x"))).await.result.is_ok());
}

#[tokio::test]
async fn handles_that_a_guest_never_gives_back_are_bounded() {
    let leaking = Guest::wat(
        r#"(component
            (type $r (resource (rep i32)))
            (core func $new (canon resource.new $r))
            (core module $m (import "" "new" (func $new (param i32) (result i32)))
                (func (export "f") (loop $l (drop (call $new (i32.const 1))) (br $l))))
            (core instance $m (instantiate $m (with "" (instance (export "new" (func $new))))))
            (func (export "f") (canon lift (core func $m "f"))))"#,
    );
    assert_eq!(leaking.code(nothing()).await, ErrorCode::GuestTrapped);
}

/// Asks for a socket, and gives what came of it: 256 if none did, and the error's number.
fn socket(protocol: &str) -> Vec<u8> {
    wasm(&format!(
        r#"(component
            (import "wasi:sockets/network@0.2.0" (instance $network
                (type $error (enum "unknown" "access-denied" "not-supported" "invalid-argument" "out-of-memory" "timeout"
                    "concurrency-conflict" "not-in-progress" "would-block" "invalid-state" "new-socket-limit"
                    "address-not-bindable" "address-in-use" "remote-unreachable" "connection-refused" "connection-reset"
                    "connection-aborted" "datagram-too-large" "name-unresolvable" "temporary-resolver-failure"
                    "permanent-resolver-failure"))
                (export "error-code" (type (eq $error)))
                (type $family (enum "ipv4" "ipv6"))
                (export "ip-address-family" (type (eq $family)))))
            (alias export $network "error-code" (type $error))
            (alias export $network "ip-address-family" (type $family))
            (import "wasi:sockets/{protocol}@0.2.0" (instance $sockets (export "{protocol}-socket" (type (sub resource)))))
            (alias export $sockets "{protocol}-socket" (type $socket))
            (import "wasi:sockets/{protocol}-create-socket@0.2.0" (instance $create
                (alias outer 1 $error (type $error0)) (export "error-code" (type $error (eq $error0)))
                (alias outer 1 $family (type $family0)) (export "ip-address-family" (type $family (eq $family0)))
                (alias outer 1 $socket (type $socket0)) (export "{protocol}-socket" (type $socket (eq $socket0)))
                (export "create-{protocol}-socket"
                    (func (param "address-family" $family) (result (result (own $socket) (error $error)))))))
            (core module $room (memory (export "memory") 1))
            (core instance $room (instantiate $room))
            (core func $create
                (canon lower (func $create "create-{protocol}-socket") (memory (core memory $room "memory"))))
            (core module $m
                (import "host" "create" (func $create (param i32 i32)))
                (import "host" "memory" (memory 1))
                (func (export "f") (result i32)
                    (call $create (i32.const 0) (i32.const 64))
                    (i32.add
                        (i32.mul (i32.load8_u (i32.const 64)) (i32.const 256))
                        (i32.load8_u (i32.const 68)))))
            (core instance $m (instantiate $m
                (with "host" (instance (export "create" (func $create)) (export "memory" (memory $room "memory"))))))
            (func (export "f") (result u32) (canon lift (core func $m "f"))))"#
    ))
}

#[tokio::test]
async fn who_asks_for_a_socket_has_no_access() {
    const ACCESS_DENIED: u32 = 1;
    for protocol in ["tcp", "udp"] {
        let asked = Guest::new(&socket(protocol)).results(nothing()).await;
        assert_eq!(asked, json!([256 + ACCESS_DENIED]), "{protocol}");
    }
}
