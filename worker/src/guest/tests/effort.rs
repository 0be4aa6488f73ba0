//! A module whose compilation would keep the compiler for minutes, or take gigabytes, is refused before it starts.

use super::*;

/// A module whose only function has so many locals and this body.
fn one_function(locals: usize, body: &str) -> Vec<u8> {
    let locals = "i32 ".repeat(locals);
    wasm(&format!(
        r#"(module
            (type $wide (func (param {wide}) (result {wide})))
            (type $leaves (func (result {wide})))
            (table 1 funcref) (memory 1)
            (func $wide (type $wide) (unreachable))
            (func $f (export "f") (local {locals}) {body}))"#,
        wide = "i32 ".repeat(100),
    ))
}

#[test]
fn a_function_that_is_too_long_is_named() {
    let nops = |count: usize| one_function(0, &"nop ".repeat(count));
    let most = MAX_FUNCTION_BYTES - 2;
    inspect(&nops(most)).unwrap();
    assert_names(
        &unsupported(&nops(most + 1)),
        &["function 1 is 524289 bytes long", "524288 is the most"],
    );
}

#[test]
fn a_function_whose_shape_takes_too_long_to_compile_is_named() {
    let repeat = |part: &str, count: usize| part.repeat(count);
    let nest = |open: &str, count: usize, inner: &str| {
        format!("{}{inner}{}", open.repeat(count), "end ".repeat(count))
    };
    let gets = |count: usize| {
        (0..count)
            .map(|at| format!("local.get {at} drop "))
            .collect::<String>()
    };
    let consts = "i32.const 0 ".repeat(100);
    let drops = "drop ".repeat(100);
    for (what, few, many) in [
        (
            "loops",
            one_function(0, &repeat("loop end ", 4_000)),
            one_function(0, &repeat("loop end ", 10_000)),
        ),
        (
            "nested loops",
            one_function(0, &nest("loop ", 4_000, "")),
            one_function(0, &nest("loop ", 10_000, "")),
        ),
        (
            "locals in loops",
            one_function(5_000, &nest("loop ", 10, &gets(5_000))),
            one_function(20_000, &nest("loop ", 10, &gets(20_000))),
        ),
        (
            "branches over locals",
            one_function(400, &nest("block ", 1, &repeat("i32.const 0 br_if 0 ", 50_000))),
            one_function(4_000, &nest("block ", 1, &repeat("i32.const 0 br_if 0 ", 50_000))),
        ),
        (
            "joins over locals",
            one_function(100, &repeat("local.get 0 if i32.const 1 local.set 1 end ", 5_000)),
            one_function(
                1_000,
                &repeat("local.get 0 if i32.const 1 local.set 1 end ", 5_000),
            ),
        ),
        (
            "blocks that leave values",
            one_function(
                0,
                &format!("{} {drops}", nest("block (type $leaves) ", 100, &consts)),
            ),
            one_function(
                0,
                &format!("{} {drops}", nest("block (type $leaves) ", 3_000, &consts)),
            ),
        ),
        (
            "calls with many values",
            one_function(0, &format!("{consts} {} {drops}", repeat("call $wide ", 1_000))),
            one_function(0, &format!("{consts} {} {drops}", repeat("call $wide ", 5_000))),
        ),
        (
            "calls into the host",
            one_function(0, &repeat("i32.const 0 memory.grow drop ", 10_000)),
            one_function(0, &repeat("i32.const 0 memory.grow drop ", 20_000)),
        ),
    ] {
        assert!(inspect(&few).is_ok(), "{what}: {:?}", inspect(&few));
        assert_names(
            &unsupported(&many),
            &["function 1 would take too long to compile"],
        );
    }
}

#[test]
fn functions_that_together_take_too_long_to_compile_are_refused() {
    let costly = "(func (local i32) LOOPS)".replace("LOOPS", &"loop end ".repeat(6_000));
    let module = |count: usize| {
        wasm(&format!(
            "(module {} (func (export \"f\")))",
            costly.repeat(count)
        ))
    };
    inspect(&module(10)).unwrap();
    assert_names(&unsupported(&module(60)), &["together take too long to compile"]);
}
