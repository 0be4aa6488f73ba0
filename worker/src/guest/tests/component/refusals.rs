//! Components that are not taken, each with the name of what is in the way.

use super::*;

#[test]
fn imports_that_are_not_given_are_named() {
    for (import, name) in [
        (
            r#"(import "wasi:sockets/tcp@0.3.0" (instance))"#,
            "wasi:sockets/tcp@0.3.0",
        ),
        (
            r#"(import "wasi:http/types@0.3.0" (instance))"#,
            "wasi:http/types@0.3.0",
        ),
        (
            r#"(import "wasi:cli/environment@0.3.0" (instance))"#,
            "wasi:cli/environment@0.3.0",
        ),
        (
            r#"(import "wasi:messaging/request-reply@0.2.0-draft" (instance))"#,
            "wasi:messaging/request-reply@0.2.0-draft",
        ),
        (r#"(import "acme:db/sql" (instance))"#, "acme:db/sql"),
        (r#"(import "f" (func))"#, "f"),
        (r#"(import "c" (component))"#, "c"),
        (r#"(import "m" (core module))"#, "m"),
    ] {
        let text = unsupported(&wasm(&format!("(component {import})")));
        assert_names(&text, &["imports", name]);
    }
    // An interface that is given, but not with this function: seen when it is compiled.
    let strange = wasm(
        r#"(component
            (import "wasi:cli/environment@0.2.0" (instance (export "get-secrets" (func (result string)))))
            (core module $m (func (export "f"))) (core instance $m (instantiate $m))
            (func (export "f") (canon lift (core func $m "f"))))"#,
    );
    inspect(&strange).unwrap();
    match COMPILER.compile(&strange, Metering::Off) {
        Err(ModuleRefused::Unsupported(text)) => assert_names(&text, &["get-secrets"]),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn proposals_of_the_component_model_are_named() {
    for (text, name) in [
        (
            r#"(component (type (func (result (stream u8)))))"#,
            "component-model-async",
        ),
        (
            r#"(component (type (list u8 4)))"#,
            "component-model-fixed-length-lists",
        ),
        (r#"(component (core module (memory i64 1)))"#, "memory64"),
    ] {
        assert_names(&unsupported(&wasm(text)), &[name]);
    }
}

#[test]
fn what_exports_nothing_to_call_is_refused() {
    assert_names(&unsupported(&wasm("(component)")), &["exports no function"]);
    assert_names(&invalid(b"(component)"), &["text"]);
}

#[test]
fn resources_make_a_function_unsupported_and_leave_the_others() {
    let guest = Guest::wat(
        r#"(component
            (type $blob (resource (rep i32)))
            (core module $m (func (export "open") (result i32) (i32.const 0)) (func (export "count") (result i32) (i32.const 3)))
            (core instance $m (instantiate $m))
            (func $open (result (own $blob)) (canon lift (core func $m "open")))
            (func $count (result u32) (canon lift (core func $m "count")))
            (instance $i (export "blob" (type $blob)) (export "open" (func $open)) (export "count" (func $count)))
            (export "test:it/blobs" (instance $i)))"#,
    );
    let (code, text) = refusal(&guest, function("open"));
    assert_eq!(code, ErrorCode::Unsupported);
    assert_names(&text, &["open", "resource blob"]);
    assert!(guest.plan(function("count")).is_ok());
}

#[test]
fn what_would_unfold_into_a_huge_program_is_refused_in_no_time() {
    // Each instantiates the one before ten times: ten to the tenth at the end.
    let mut text = r#"(component $c0 (core module $m) (core instance (instantiate $m)))"#.to_owned();
    for level in 1..=10 {
        let instances = format!("(instance (instantiate $c{}))", level - 1).repeat(10);
        text = format!("(component $c{level} {text} {instances})");
    }
    assert_names(&unsupported(&wasm(&text)), &["more than 2000 instances"]);
    let aliased = text.replacen(
        "(component $c10",
        "(component $c10 (component $a) (alias outer 0 $a (component $b))",
        1,
    );
    assert_names(&unsupported(&wasm(&aliased)), &["more than 2000 instances"]);
    // A few functions that cross its borders, hundreds of times over.
    let lifts = r#"(func (canon lift (core func $m "f")))"#.repeat(3);
    let crossing = format!(
        r#"(component (component $c (core module $m (func (export "f"))) (core instance $m (instantiate $m)) {lifts}) {})"#,
        "(instance (instantiate $c))".repeat(900)
    );
    assert_names(&unsupported(&wasm(&crossing)), &["cross its borders"]);
    // A type of two of the one before, fifteen times over.
    let mut types = "(type $t0 (tuple u8 u8))".to_owned();
    for level in 1..=15 {
        types += &format!("(type $t{level} (tuple $t{0} $t{0}))", level - 1);
    }
    let huge = format!(
        r#"(component {types} (core module $m (memory (export "memory") 1)
            (func (export "f") (param i32)) (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0)))
            (core instance $m (instantiate $m))
            (func (export "f") (param "x" $t15) (canon lift (core func $m "f") (memory (core memory $m "memory")) (realloc (core func $m "realloc")))))"#
    );
    assert_names(&unsupported(&wasm(&huge)), &["parts"]);
}

#[tokio::test]
async fn components_within_a_component_hand_values_to_each_other() {
    let guest = Guest::wat(
        r#"(component
            (component $inner
                (core module $m (memory (export "memory") 1)
                    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 64))
                    (func (export "f") (param i32 i32) (result i32) (i32.load8_u (local.get 0))))
                (core instance $m (instantiate $m))
                (func (export "f") (param "text" string) (result u32)
                    (canon lift (core func $m "f") (memory (core memory $m "memory")) (realloc (core func $m "realloc")))))
            (component $outer
                (import "f" (func $f (param "text" string) (result u32)))
                (core module $mem (memory (export "memory") 1) (data (i32.const 8) "A"))
                (core instance $mem (instantiate $mem))
                (core func $f (canon lower (func $f) (memory (core memory $mem "memory"))))
                (core module $m (import "" "f" (func $f (param i32 i32) (result i32)))
                    (func (export "g") (result i32) (call $f (i32.const 8) (i32.const 1))))
                (core instance $m (instantiate $m (with "" (instance (export "f" (func $f))))))
                (func (export "g") (result u32) (canon lift (core func $m "g"))))
            (instance $inner (instantiate $inner))
            (instance $outer (instantiate $outer (with "f" (func $inner "f"))))
            (export "g" (func $outer "g")))"#,
    );
    assert_eq!(guest.results(nothing()).await, json!([65]));
}

#[test]
fn more_than_a_pool_has_room_for_is_refused_when_it_is_compiled() {
    for (module, count, words) in [
        ("(core module $m)", 65, "instances"),
        ("(core module $m (memory 1))", 5, "memories"),
        (
            "(core module $m (table 1 funcref) (table 1 funcref))",
            9,
            "tables",
        ),
    ] {
        let instances = "(core instance (instantiate $m))".repeat(count);
        let wasm = wasm(&format!(
            r#"(component {module} {instances} (core module $f (func (export "f"))) (core instance $f (instantiate $f))
                (func (export "f") (canon lift (core func $f "f"))))"#
        ));
        match COMPILER.compile(&wasm, Metering::Off) {
            Err(ModuleRefused::Unsupported(text)) => assert_names(&text, &[words]),
            other => panic!("not refused: {:?}", other.map(|bytes| bytes.len())),
        }
    }
}

#[test]
fn core_modules_in_a_component_are_held_to_the_same_bounds() {
    let wasm = wasm("(component (core module (memory 8193)))");
    assert_names(&unsupported(&wasm), &["8193 pages"]);
    let long = format!("(component (core module (func {})))", "nop ".repeat(600_000));
    assert_names(&unsupported(&super::wasm(&long)), &["bytes long"]);
}

#[test]
fn a_component_of_20_mb_is_read_in_bounded_time_and_memory() {
    let padding = "x".repeat(20_000_000);
    let large = format!(
        r#"(component
            (core module $m (memory (export "memory") 400) (data (i32.const 0) "{padding}") (func (export "f") (result i32) (i32.load8_u (i32.const 19999999))))
            (core instance $m (instantiate $m))
            (func (export "f") (result u32) (canon lift (core func $m "f"))))"#
    );
    let guest = Guest::new(&wasm(&large));
    assert_eq!(guest.inspection.component.unwrap().functions.len(), 1);
}
