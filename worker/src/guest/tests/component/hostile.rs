//! Components that mean harm: each ends with a code, and the next call works.

use super::super::http;
use super::*;
use crate::guest::component::MAX_VALUE_BYTES;
use wess_schemas::module::Abi;

/// Engines that all guests of one test run in.
struct House(EnginePool);

impl House {
    fn new() -> Self {
        Self(engines())
    }

    fn guest(&self, wasm: &[u8]) -> Guest {
        Guest::load(wasm, &self.0, Metering::Off)
    }

    fn wat(&self, text: &str) -> Guest {
        self.guest(&wasm(text))
    }

    /// The next call works, in as many slots as there are.
    async fn is_unharmed(&self) {
        let clean = self.guest(&giving("(i32.const 7)", "u32"));
        for _ in 0..SLOTS {
            assert_eq!(clean.results(nothing()).await, json!([7]));
        }
    }
}

#[tokio::test]
async fn a_trap_a_loop_and_an_eater_of_memory_are_told_apart() {
    let house = House::new();
    let trapping = house.guest(&giving("(unreachable)", "u32"));
    assert_eq!(trapping.trap(nothing()).await.0, "unreachable");
    let looping = house
        .guest(&giving("(loop $l (br $l)) (i32.const 0)", "u32"))
        .timeout_ms(30);
    assert_eq!(looping.code(nothing()).await, ErrorCode::DeadlineExceeded);
    let eating = house.guest(&giving(
        "(loop $l (br_if $l (i32.ne (i32.const -1) (memory.grow (i32.const 16))))) (unreachable)",
        "u32",
    ));
    assert_eq!(
        eating.memory_bytes(MIB).code(nothing()).await,
        ErrorCode::MemoryExceeded
    );
    let starting = house.wat(
        r#"(component (core module $m (func $s (unreachable)) (start $s) (func (export "f")))
            (core instance $m (instantiate $m)) (func (export "f") (canon lift (core func $m "f"))))"#,
    );
    assert_eq!(starting.trap(nothing()).await.0, "unreachable");
    house.is_unharmed().await;
}

#[tokio::test]
async fn lists_too_long_to_hold_are_refused_before_they_are_made() {
    let house = House::new();
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
        let huge = house.guest(&giving(body, ty)).output_bytes(10 * MIB);
        assert_eq!(huge.code(nothing()).await, ErrorCode::OutputTooLarge, "{ty}");
    }
    // Longer than memory is.
    let outside = "(i32.store (i32.const 8) (i32.const 0)) (i32.store (i32.const 12) (i32.const 0x7fffffff)) (i32.const 8)";
    for ty in ["(list u32)", "string", "(list u8)"] {
        let outside = house.guest(&giving(outside, ty));
        assert_eq!(outside.trap(nothing()).await.0, "invalid_value", "{ty}");
    }
    house.is_unharmed().await;
}

#[tokio::test]
async fn an_answer_past_the_output_limit_is_refused_in_json_and_in_bytes() {
    let house = House::new();
    for (ty, count) in [("(list u8)", 60_000), ("string", 60_000), ("(list u16)", 20_000)] {
        let body = format!(
            "(i32.store (i32.const 8) (i32.const 100)) (i32.store (i32.const 12) (i32.const {count})) (i32.const 8)"
        );
        let wasm = giving(&body, ty);
        assert_eq!(
            house.guest(&wasm).output_bytes(10_000).code(nothing()).await,
            ErrorCode::OutputTooLarge,
            "{ty}"
        );
        assert!(house.guest(&wasm).run(nothing()).await.result.is_ok(), "{ty}");
    }
    let echo = house.guest(&component(
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
    house.is_unharmed().await;
}

#[tokio::test]
async fn values_that_are_none_of_their_type_are_a_trap() {
    let house = House::new();
    for (ty, value) in [("bool", 2), ("char", 0xd800), ("u8", 256)] {
        let guest = house.guest(&giving(&format!("(i32.const {value})"), ty));
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
        house
            .guest(&giving(unaligned, "(list u32)"))
            .trap(nothing())
            .await
            .0,
        "invalid_value"
    );
    let not_utf8 = "(i32.store (i32.const 100) (i32.const -1))
        (i32.store (i32.const 8) (i32.const 100)) (i32.store (i32.const 12) (i32.const 4)) (i32.const 8)";
    assert_eq!(
        house.guest(&giving(not_utf8, "string")).trap(nothing()).await.0,
        "invalid_value"
    );
    house.is_unharmed().await;
}

#[tokio::test]
async fn a_guest_that_cannot_make_room_for_its_arguments_exceeds_its_memory() {
    let house = House::new();
    let echo = house.guest(&echo("", &[], "string")).memory_bytes(MIB);
    let call = echoed(&json!("x".repeat(2 << 20)));
    assert_eq!(echo.code(call).await, ErrorCode::MemoryExceeded);
    assert!(echo.run(echoed(&json!("x"))).await.result.is_ok());
    house.is_unharmed().await;
}

#[tokio::test]
async fn handles_that_a_guest_never_gives_back_are_bounded() {
    let house = House::new();
    let leaking = house.wat(
        r#"(component
            (type $r (resource (rep i32)))
            (core func $new (canon resource.new $r))
            (core module $m (import "" "new" (func $new (param i32) (result i32)))
                (func (export "f") (loop $l (drop (call $new (i32.const 1))) (br $l))))
            (core instance $m (instantiate $m (with "" (instance (export "new" (func $new))))))
            (func (export "f") (canon lift (core func $m "f"))))"#,
    );
    assert_eq!(leaking.code(nothing()).await, ErrorCode::GuestTrapped);
    house.is_unharmed().await;
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
    let house = House::new();
    const ACCESS_DENIED: u32 = 1;
    for protocol in ["tcp", "udp"] {
        let asked = house.guest(&socket(protocol)).results(nothing()).await;
        assert_eq!(asked, json!([256 + ACCESS_DENIED]), "{protocol}");
    }
    house.is_unharmed().await;
}

/// A component that hands a message of this many zeros to the log, and exports that as what an ABI calls.
fn logging(bytes: usize, params: &str, result: &str, exported: &str) -> Vec<u8> {
    wasm(&format!(
        r#"(component
            (import "wasi:logging/logging" (instance $logging
                (type $level' (enum "trace" "debug" "info" "warn" "error" "critical"))
                (export "level" (type $level (eq $level')))
                (export "log" (func (param "level" $level) (param "context" string) (param "message" string)))))
            (import "wasi:http/types@0.2.0" (instance $types
                (export "incoming-request" (type (sub resource)))
                (export "response-outparam" (type (sub resource)))))
            (alias export $types "incoming-request" (type $request))
            (alias export $types "response-outparam" (type $outparam))
            (core module $room (memory (export "memory") 1100))
            (core instance $room (instantiate $room))
            (core func $log (canon lower (func $logging "log") (memory (core memory $room "memory"))))
            (core module $m
                (import "" "log" (func $log (param i32 i32 i32 i32 i32)))
                (func (export "f") {params} {result}
                    (call $log (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const {bytes}))
                    {given}))
            (core instance $m (instantiate $m (with "" (instance (export "log" (func $log))))))
            {exported})"#,
        given = if result.is_empty() { "" } else { "(i32.const 0)" },
    ))
}

/// The ABIs of components: the core function's signature, and what is made of it.
const ABIS: [(&str, &str, &str); 3] = [
    ("", "", r#"(func (export "f") (canon lift (core func $m "f")))"#),
    (
        "",
        "(result i32)",
        r#"(func $run (result (result)) (canon lift (core func $m "f")))
            (instance $run (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $run))"#,
    ),
    (
        "(param i32 i32)",
        "",
        r#"(func $handle (param "request" (own $request)) (param "response-out" (own $outparam))
                (canon lift (core func $m "f")))
            (instance $handler (export "handle" (func $handle)))
            (export "wasi:http/incoming-handler@0.2.0" (instance $handler))"#,
    ),
];

#[tokio::test]
async fn a_huge_message_to_the_log_is_refused_in_every_abi() {
    let house = House::new();
    for (params, result, exported) in ABIS {
        for (bytes, fits) in [(MAX_VALUE_BYTES, true), (MAX_VALUE_BYTES + 1, false)] {
            let guest = house.guest(&logging(bytes, params, result, exported));
            let guest = guest.memory_bytes(128 * MIB);
            let ending = match guest.inspection.abi {
                Abi::Http => http::serve(&guest, http::get("/")).0.await,
                _ => guest.run(nothing()).await,
            };
            let told = ending.result.err().map(|fault| fault.to_error());
            let refused = told
                .as_ref()
                .is_some_and(|error| error.error.message.contains("too much data"));
            assert_eq!(refused, !fits, "{:?}: {told:?}", guest.inspection.abi);
            let code = told.map(|error| error.code());
            assert!(fits || code == Some(ErrorCode::GuestTrapped), "{code:?}");
            assert_eq!(guest.host.lines().len(), if fits { 2 } else { 0 });
        }
    }
    house.is_unharmed().await;
}

#[tokio::test]
async fn more_random_bytes_than_there_may_be_are_a_trap() {
    let house = House::new();
    for name in ["random", "insecure"] {
        let function = if name == "random" {
            "get-random-bytes"
        } else {
            "get-insecure-random-bytes"
        };
        let asking = |len: i64| {
            house.wat(&format!(
                r#"(component
                    (import "wasi:random/{name}@0.2.0" (instance $random
                        (export "{function}" (func (param "len" u64) (result (list u8))))))
                    (core module $room (memory (export "memory") 1) {REALLOC})
                    (core instance $room (instantiate $room))
                    (core func $get (canon lower (func $random "{function}")
                        (memory (core memory $room "memory")) (realloc (core func $room "realloc"))))
                    (core module $m
                        (import "" "get" (func $get (param i64 i32)))
                        (func (export "f") (call $get (i64.const {len}) (i32.const 8))))
                    (core instance $m (instantiate $m (with "" (instance (export "get" (func $get))))))
                    (func (export "f") (canon lift (core func $m "f"))))"#
            ))
        };
        asking(1 << 20).answer(nothing()).await;
        for len in [(1 << 20) + 1, i64::MAX, -1] {
            assert_eq!(asking(len).trap(nothing()).await.0, "host_call", "{name} {len}");
        }
    }
    house.is_unharmed().await;
}

#[tokio::test]
async fn more_pollables_than_a_guest_may_hold_are_a_trap() {
    let house = House::new();
    let waiting = |count: u32| {
        house.wat(&format!(
            r#"(component
                (import "wasi:io/poll@0.2.0" (instance $poll (export "pollable" (type (sub resource)))))
                (alias export $poll "pollable" (type $pollable))
                (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
                    (alias outer 1 $pollable (type $pollable))
                    (export "subscribe-duration" (func (param "when" u64) (result (own $pollable))))))
                (core func $wait (canon lower (func $clock "subscribe-duration")))
                (core module $m
                    (import "" "wait" (func $wait (param i64) (result i32)))
                    (func (export "f") (local $left i32)
                        (local.set $left (i32.const {count}))
                        (loop $more
                            (drop (call $wait (i64.const 3600000000000)))
                            (br_if $more (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))))
                (core instance $m (instantiate $m (with "" (instance (export "wait" (func $wait))))))
                (func (export "f") (canon lift (core func $m "f"))))"#
        ))
    };
    // Each is one of the host's things, and what it waits for another.
    waiting(1000).answer(nothing()).await;
    assert_eq!(waiting(5000).trap(nothing()).await.0, "host_call");
    house.is_unharmed().await;
}
