//! Components: any export with JSON in and out, and everything that can be wrong with one.
//!
//! Here: components of one identity function over any types, made of text.

mod calls;
mod hostile;
mod misfits;
mod refusals;
mod reuse;
mod types;

use super::*;

/// What a call is refused with before it runs.
fn refusal(guest: &Guest, call: CallInput) -> (ErrorCode, String) {
    let error = guest.plan(call).unwrap_err();
    (error.code(), error.error.message)
}

/// Room for what is passed in, never given back.
const REALLOC: &str = r#"
    (global $free (mut i32) (i32.const 4096))
    (func $realloc (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and
        (i32.sub (i32.add (global.get $free) (local.get 2)) (i32.const 1))
        (i32.sub (i32.const 0) (local.get 2))))
      (global.set $free (i32.add (local.get $at) (local.get 3)))
      (block $fits
        (br_if $fits (i32.le_u (global.get $free) (i32.shl (memory.size) (i32.const 16))))
        (br_if $fits (i32.ne (i32.const -1)
          (memory.grow (i32.add (i32.shr_u (local.get 3) (i32.const 16)) (i32.const 1)))))
        (unreachable))
      (local.get $at))"#;

/// A component around a core module's function `f`: its types, and the signature of `f` in WIT's text form.
fn component(module: &str, types: &str, names: &[String], signature: &str) -> Vec<u8> {
    let exports: String = names
        .iter()
        .map(|name| format!(r#"(export "{name}" (type ${name}))"#))
        .collect();
    wasm(&format!(
        r#"(component
            (core module $m (memory (export "memory") 1) {REALLOC} {module})
            (core instance $m (instantiate $m))
            (alias core export $m "memory" (core memory $memory))
            (alias core export $m "realloc" (core func $realloc))
            {types}
            (func $f {signature}
                (canon lift (core func $m "f") (memory $memory) (realloc $realloc)))
            (instance $i {exports} (export "f" (func $f)))
            (export "test:it/face@1.2.3" (instance $i)))"#
    ))
}

/// A component whose function gives back what it gets, of any type. Enough parameters follow for all of them to lie in
/// memory, and the answer is a pair: so it lies in memory too, and begins where they do.
fn echo(types: &str, names: &[String], ty: &str) -> Vec<u8> {
    const MORE: usize = 17;
    let more: String = (0..MORE).map(|at| format!(r#"(param "p{at}" u8)"#)).collect();
    component(
        r#"(func (export "f") (param i32) (result i32) (local.get 0))"#,
        types,
        names,
        &format!(r#"(param "x" {ty}) {more} (result (tuple {ty} u8))"#),
    )
}

/// What the only function of these components is called.
const FUNCTION: &str = "test:it/face@1.2.3#f";

/// The arguments of an echo.
fn echoed(value: &Value) -> CallInput {
    let mut all = vec![value.clone()];
    all.resize(18, json!(7));
    args(Value::Array(all))
}

/// A component of one function without parameters, whose type may need others.
fn giving(body: &str, result: &str) -> Vec<u8> {
    component(
        &format!(r#"(func (export "f") (result i32) {body})"#),
        "",
        &[],
        &format!("(result {result})"),
    )
}
