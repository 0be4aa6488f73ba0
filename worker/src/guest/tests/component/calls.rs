//! What callers give and get: by name, by JSON, by bytes.

use super::*;

fn greet() -> Guest {
    Guest::file("component/greeter.wat")
}

fn greeting(given: Value) -> CallInput {
    named("greet", args(given))
}

#[tokio::test]
async fn records_go_in_and_come_out_and_an_error_is_the_guests_answer() {
    let greet = greet();
    let ada = greeting(json!([{"name": "Ada", "age": 36}, "warm"]));
    let expected = json!([{"ok": {"text": "Welcome, Ada!", "adult": true}}]);
    assert_eq!(greet.results(ada).await, expected);
    let ageless = greeting(json!([{"name": "Bo"}, "plain"]));
    let expected = json!([{"ok": {"text": "Hello, Bo!", "adult": null}}]);
    assert_eq!(greet.results(ageless).await, expected);
    let nobody = greeting(json!([{"name": ""}, "plain"]));
    assert_eq!(greet.results(nobody).await, json!([{"err": "nobody to greet"}]));
}

#[tokio::test]
async fn a_function_is_called_by_its_full_name_without_a_version_or_by_its_own() {
    let greet = greet();
    for name in [
        "hello",
        "example:greet/greeter#hello",
        "example:greet/greeter@1.0.0#hello",
    ] {
        let plan = greet.plan(named(name, input("Ada"))).unwrap();
        assert_eq!(plan.function(), "example:greet/greeter@1.0.0#hello");
        let answer = greet.answer(named(name, input("Ada"))).await;
        assert_eq!(answer.output.unwrap(), b"Hello, Ada!");
    }
    for unknown in [
        "bye",
        "greeter#hello",
        "example:greet/greeter@2.0.0#hello",
        "hello#hello",
    ] {
        let (code, text) = refusal(&greet, named(unknown, input("")));
        assert_eq!(code, ErrorCode::FunctionNotFound);
        assert_names(&text, &[unknown, "example:greet/greeter@1.0.0#greet"]);
    }
    let (code, text) = refusal(&greet, input("Ada"));
    assert_eq!(code, ErrorCode::InvalidRequest);
    assert_names(&text, &["several functions", "#hello", "#greet"]);
}

#[tokio::test]
async fn a_name_that_two_functions_have_is_refused_with_both() {
    let twice = Guest::wat(
        r#"(component
            (core module $m (func (export "f") (result i32) (i32.const 5)))
            (core instance $m (instantiate $m))
            (func $f (result u32) (canon lift (core func $m "f")))
            (instance $i (export "f" (func $f)))
            (export "a:b/c@1.0.0" (instance $i))
            (export "a:b/c@2.0.0" (instance $i))
            (export "g" (func $f)))"#,
    );
    for name in ["f", "a:b/c#f"] {
        let (code, text) = refusal(&twice, function(name));
        assert_eq!(code, ErrorCode::InvalidRequest);
        assert_names(&text, &["a:b/c@1.0.0#f", "a:b/c@2.0.0#f"]);
    }
    for name in ["g", "a:b/c@2.0.0#f"] {
        assert_eq!(twice.results(function(name)).await, json!([5]));
    }
}

#[tokio::test]
async fn one_text_or_run_of_bytes_goes_in_and_out_as_it_is() {
    for (ty, bytes) in [
        ("string", &b"gr\xc3\xbc\xc3\x9fe"[..]),
        ("(list u8)", &[0xff, 0, 0xfe]),
    ] {
        let echo = Guest::new(&component(
            r#"(func (export "f") (param i32 i32) (result i32)
                (i32.store (i32.const 8) (local.get 0)) (i32.store (i32.const 12) (local.get 1)) (i32.const 8))"#,
            "",
            &[],
            &format!(r#"(param "x" {ty}) (result {ty})"#),
        ));
        let answer = echo.answer(input(bytes)).await;
        assert_eq!((answer.output.as_deref(), answer.exit_code), (Some(bytes), None));
        let large = vec![b'x'; 1 << 20];
        assert_eq!(echo.answer(input(large.clone())).await.output, Some(large));
        let empty = echo.answer(nothing()).await;
        assert_eq!(empty.output, Some(Vec::new()));
    }
}

#[tokio::test]
async fn by_raw_input_a_result_is_its_payload_and_an_exit_code() {
    for (first, exit_code) in [(0, 0), (1, 1)] {
        let fallible = Guest::new(&component(
            &format!(
                r#"(func (export "f") (param i32 i32) (result i32)
                    (i32.store8 (i32.const 8) (i32.const {first}))
                    (i32.store (i32.const 12) (local.get 0)) (i32.store (i32.const 16) (local.get 1)) (i32.const 8))"#
            ),
            "",
            &[],
            r#"(param "x" string) (result (result string (error string)))"#,
        ));
        let answer = fallible.answer(input("why")).await;
        assert_eq!(
            (answer.output.unwrap(), answer.exit_code),
            (b"why".to_vec(), Some(exit_code))
        );
        let side = if first == 0 { "ok" } else { "err" };
        assert_eq!(
            fallible.results(args(json!(["why"]))).await,
            json!([{side: "why"}])
        );
    }
}

#[tokio::test]
async fn other_raw_input_is_json_where_an_array_is_all_arguments() {
    let greet = greet();
    let call = named("greet", input(r#"[{"name": "Bo"}, "plain"]"#));
    assert_eq!(
        greet.results(call).await,
        json!([{"ok": {"text": "Hello, Bo!", "adult": null}}])
    );
    let (code, text) = refusal(&greet, named("greet", input("Bo")));
    assert_eq!(code, ErrorCode::InvalidArguments);
    assert_names(&text, &["must be JSON"]);
    let (code, text) = refusal(&greet, named("hello", input(vec![0xff])));
    assert_eq!(code, ErrorCode::InvalidArguments);
    assert_names(&text, &["UTF-8"]);
}

#[tokio::test]
async fn nothing_stays_in_a_component_between_two_calls() {
    let counter = Guest::new(&giving(
        "(i32.store (i32.const 40000) (i32.add (i32.load (i32.const 40000)) (i32.const 1)))
         (i32.load (i32.const 40000))",
        "u32",
    ));
    for _ in 0..2 * SLOTS {
        assert_eq!(counter.results(nothing()).await, json!([1]));
    }
}

#[tokio::test]
async fn a_component_counts_fuel_when_it_is_asked_to() {
    let wasm = wasm_of("component/greeter.wat");
    let guest = Guest::fueled(&wasm, 1_000_000);
    let ending = guest.run(named("hello", input("Ada"))).await;
    assert_eq!(ending.result.unwrap().output.unwrap(), b"Hello, Ada!");
    assert!(ending.fuel.unwrap() > 10, "{:?}", ending.fuel);
    assert_eq!(
        Guest::fueled(&wasm, 5).code(named("hello", input("Ada"))).await,
        ErrorCode::OutOfFuel
    );
}

/// `wasi:cli/run`, with what it imports.
fn command(body: &str) -> Guest {
    Guest::wat(&format!(
        r#"(component
            (import "wasi:cli/exit@0.2.0" (instance $exit
                (export "exit" (func (param "status" (result))))))
            (import "wasi:io/error@0.2.0" (instance $error (export "error" (type (sub resource)))))
            (alias export $error "error" (type $error-type))
            (import "wasi:io/streams@0.2.0" (instance $streams
                (alias outer 1 $error-type (type $io-error))
                (export "input-stream" (type $in (sub resource)))
                (export "output-stream" (type $out (sub resource)))
                (type $own-error (own $io-error))
                (type $stream-error' (variant (case "last-operation-failed" $own-error) (case "closed")))
                (export "stream-error" (type $stream-error (eq $stream-error')))
                (export "[method]input-stream.blocking-read" (func (param "self" (borrow $in)) (param "len" u64)
                    (result (result (list u8) (error $stream-error)))))
                (export "[method]output-stream.blocking-write-and-flush" (func (param "self" (borrow $out))
                    (param "contents" (list u8)) (result (result (error $stream-error)))))))
            (alias export $streams "input-stream" (type $in))
            (alias export $streams "output-stream" (type $out))
            (import "wasi:cli/stdin@0.2.0" (instance $stdin
                (alias outer 1 $in (type $in)) (export "input-stream" (type $in' (eq $in)))
                (export "get-stdin" (func (result (own $in'))))))
            (import "wasi:cli/stdout@0.2.0" (instance $stdout
                (alias outer 1 $out (type $out)) (export "output-stream" (type $out' (eq $out)))
                (export "get-stdout" (func (result (own $out'))))))
            (core module $memory (memory (export "memory") 1) {REALLOC})
            (core instance $memory (instantiate $memory))
            (alias core export $memory "memory" (core memory $mem))
            (alias core export $memory "realloc" (core func $realloc))
            (core func $exit (canon lower (func $exit "exit")))
            (core func $get-stdin (canon lower (func $stdin "get-stdin")))
            (core func $get-stdout (canon lower (func $stdout "get-stdout")))
            (core func $read (canon lower (func $streams "[method]input-stream.blocking-read")
                (memory $mem) (realloc $realloc)))
            (core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush")
                (memory $mem) (realloc $realloc)))
            (core module $m
                (import "" "memory" (memory 1))
                (import "" "exit" (func $exit (param i32)))
                (import "" "stdin" (func $stdin (result i32)))
                (import "" "stdout" (func $stdout (result i32)))
                (import "" "read" (func $read (param i32 i64 i32)))
                (import "" "write" (func $write (param i32 i32 i32 i32)))
                (func (export "run") (result i32) {body}))
            (core instance $m (instantiate $m (with "" (instance
                (export "memory" (memory $mem))
                (export "exit" (func $exit))
                (export "stdin" (func $get-stdin)) (export "stdout" (func $get-stdout))
                (export "read" (func $read)) (export "write" (func $write))))))
            (func $run (result (result)) (canon lift (core func $m "run")))
            (instance $run (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $run)))"#
    ))
}

#[tokio::test]
async fn a_command_component_reads_stdin_writes_stdout_and_ends_with_a_code() {
    const ECHO: &str = "(call $read (call $stdin) (i64.const 100) (i32.const 8))
        (call $write (call $stdout) (i32.load (i32.const 12)) (i32.load (i32.const 16)) (i32.const 32))";
    let echo = command(&format!("{ECHO} (i32.const 0)"));
    assert_eq!(echo.inspection.abi, wess_schemas::module::Abi::Command);
    assert_eq!(echo.output(input("hello")).await, ("hello".into(), 0));
    let failing = command(&format!("{ECHO} (i32.const 1)"));
    assert_eq!(failing.output(input("hello")).await, ("hello".into(), 1));
    let exiting = command(&format!("{ECHO} (call $exit (i32.const 1)) (unreachable)"));
    assert_eq!(exiting.output(input("bye")).await, ("bye".into(), 1));
    let plan = echo.plan(function("run")).unwrap();
    assert_eq!(plan.function(), "wasi:cli/run@0.2.0#run");
    let looping = command(&format!("(loop $l {ECHO} (br $l)) (i32.const 0)")).output_bytes(4096);
    assert_eq!(
        looping.timeout_ms(5000).code(input("x")).await,
        ErrorCode::GuestTrapped,
        "a closed stdin makes an error of what is read"
    );
}

#[tokio::test]
async fn a_command_component_that_writes_for_ever_has_too_large_an_output() {
    let endless = command(
        "(local $out i32) (local.set $out (call $stdout))
         (loop $l (call $write (local.get $out) (i32.const 0) (i32.const 4096) (i32.const 32)) (br $l)) (i32.const 0)",
    );
    assert_eq!(
        endless.output_bytes(100_000).code(nothing()).await,
        ErrorCode::OutputTooLarge
    );
}

#[tokio::test]
async fn what_a_toolchain_left_behind_is_not_the_function_that_is_meant() {
    let with = |left_over: &str| {
        Guest::wat(&format!(
            r#"(component
                (core module $m
                    (memory (export "memory") 1)
                    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 64))
                    (func (export "init") (param i32 i32 i32 i32 i32 i32 i32 i32))
                    (func (export "five") (result i32) (i32.const 5)))
                (core instance $m (instantiate $m))
                (func $init (param "shim" string) (param "script" string) (param "entry-path" (option string)) (param "disable-gc" bool)
                    (canon lift (core func $m "init") (memory (core memory $m "memory")) (realloc (core func $m "realloc"))))
                (func (export "five") (result u32) (canon lift (core func $m "five")))
                {left_over})"#
        ))
    };
    for left_over in [
        r#"(export "init" (func $init))"#,
        r#"(instance $i (export "init" (func $init))) (export "exports" (instance $i))"#,
    ] {
        assert_eq!(
            with(left_over).results(nothing()).await,
            json!([5]),
            "{left_over}"
        );
    }
    let (code, _) = refusal(&with(r#"(export "start" (func $init))"#), nothing());
    assert_eq!(code, ErrorCode::InvalidRequest);
}
