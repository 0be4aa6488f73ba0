//! Components whose instances serve several calls: what the host holds for a guest does not outlast its call.

use super::*;

/// Counts its calls, and takes a handle of its standard output which it gives back or keeps.
const HANDLES: &str = r#"(component
    (import "wasi:io/streams@0.2.0" (instance $streams (export "output-stream" (type $out (sub resource)))))
    (alias export $streams "output-stream" (type $out))
    (import "wasi:cli/stdout@0.2.0" (instance $stdout
        (alias outer 1 $out (type $out)) (export "output-stream" (type $out' (eq $out)))
        (export "get-stdout" (func (result (own $out'))))))
    (core func $get (canon lower (func $stdout "get-stdout")))
    (core func $drop (canon resource.drop $out))
    (core module $m
        (import "" "get" (func $get (result i32)))
        (import "" "drop" (func $drop (param i32)))
        (global $calls (mut i32) (i32.const 0))
        (func $count (result i32)
            (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
            (global.get $calls))
        (func (export "keep") (result i32) (drop (call $get)) (call $count))
        (func (export "give-back") (result i32) (call $drop (call $get)) (call $count))
        (func (export "trap") (result i32) (unreachable)))
    (core instance $m (instantiate $m (with "" (instance
        (export "get" (func $get)) (export "drop" (func $drop))))))
    (func (export "keep") (result u32) (canon lift (core func $m "keep")))
    (func (export "give-back") (result u32) (canon lift (core func $m "give-back")))
    (func (export "trap") (result u32) (canon lift (core func $m "trap"))))"#;

/// A call in the instance that waits, which waits again if it may.
async fn run(guest: &Guest, kept: &mut Option<Box<Kept>>, call: CallInput) -> Result<Answer, GuestFault> {
    let kept_before = kept.take();
    let mut ending = guest
        .start_in(
            Some(Reuse {
                most: 1000,
                kept: kept_before,
            }),
            call,
        )
        .await;
    *kept = ending.kept.take();
    ending.result
}

#[tokio::test]
async fn a_component_that_leaves_no_handle_serves_several_calls() {
    let (guest, mut kept) = (Guest::wat(HANDLES), None);
    for calls in 1..=4 {
        let answer = run(&guest, &mut kept, function("give-back")).await.unwrap();
        assert_eq!(answer.results.unwrap(), [json!(calls)]);
    }
    run(&guest, &mut kept, function("trap")).await.unwrap_err();
    assert!(kept.is_none());
    assert_eq!(guest.budget.used_bytes(), 0);
}

#[tokio::test]
async fn a_component_that_keeps_a_handle_of_the_hosts_is_not_kept() {
    let (guest, mut kept) = (Guest::wat(HANDLES), None);
    for _ in 0..2 {
        let answer = run(&guest, &mut kept, function("give-back")).await.unwrap();
        assert_eq!(answer.results.unwrap(), [json!(1)]);
        let answer = run(&guest, &mut kept, function("keep")).await.unwrap();
        assert_eq!(answer.results.unwrap(), [json!(2)]);
        assert!(kept.is_none());
    }
}

#[tokio::test]
async fn values_of_every_call_are_given_back_by_their_own_post_return() {
    // Gives its input back in a place of its own, and counts what was given back to it.
    let echo = Guest::wat(&format!(
        r#"(component
            (core module $m (memory (export "memory") 1) {REALLOC}
                (global $freed (mut i32) (i32.const 0))
                (func (export "f") (param i32 i32) (result i32)
                    (global.set $free (i32.const 4096))
                    (i32.store (i32.const 8) (local.get 0)) (i32.store (i32.const 12) (local.get 1)) (i32.const 8))
                (func (export "post") (param i32)
                    (global.set $freed (i32.add (global.get $freed) (i32.const 1))))
                (func (export "freed") (result i32) (global.get $freed)))
            (core instance $m (instantiate $m))
            (alias core export $m "memory" (core memory $memory))
            (alias core export $m "realloc" (core func $realloc))
            (func (export "f") (param "x" string) (result string)
                (canon lift (core func $m "f") (memory $memory) (realloc $realloc)
                    (post-return (core func $m "post"))))
            (func (export "freed") (result u32) (canon lift (core func $m "freed"))))"#
    ));
    let mut kept = None;
    for text in ["one", "two, longer", ""] {
        let answer = run(&echo, &mut kept, named("f", input(text))).await.unwrap();
        assert_eq!(answer.output.unwrap(), text.as_bytes());
    }
    let freed = run(&echo, &mut kept, function("freed")).await.unwrap();
    assert_eq!(freed.results.unwrap(), [json!(3)]);
}

#[test]
fn a_component_made_with_its_callers_environment_is_that_callers_alone() {
    let plan = Guest::wat(HANDLES).plan(function("keep")).unwrap();
    assert!(plan.may_share_its_instance(false) && !plan.may_share_its_instance(true));
    let command = Guest::wat(r#"(module (memory (export "memory") 1) (func (export "_start")))"#);
    assert!(!command.plan(nothing()).unwrap().may_share_its_instance(false));
}
