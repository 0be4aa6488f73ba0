//! Chains: each step gets the output of the one before, and a failure says which step and what had been done.

use serde_json::json;
use wess_schemas::{ErrorCode, Outcome};

use crate::rig::{Rig, refused, refused_naming, wat};

#[tokio::test]
async fn each_step_gets_the_output_of_the_one_before_whatever_its_abi() {
    let rig = Rig::start(&["upper", "in_place", "wordcount", "math"]).await;
    let text = json!({"steps": ["upper", {"module": "in-place"}], "input": "hello"});
    let outcome = rig.caller.chain(text).await.unwrap();
    let outputs: Vec<_> = outcome.steps.iter().map(|step| step.output.as_deref()).collect();
    assert_eq!(
        (outputs, outcome.output.as_deref()),
        (vec![Some("HELLO"), Some("OLLEH")], Some("OLLEH"))
    );
    let numbers = json!({"steps": [
        {"module": "math", "function": "divmod"}, {"module": "math", "function": "add_i64"},
        {"module": "math", "function": "factorial"}, "wordcount"], "input": [17, 5]});
    let outcome = rig.caller.chain(numbers).await.unwrap();
    let results: Vec<_> = outcome
        .steps
        .iter()
        .filter_map(|step| step.results.clone())
        .collect();
    assert_eq!(
        results,
        [vec![json!(3), json!(2)], vec![json!(5)], vec![json!(120)]]
    );
    assert_eq!(
        (outcome.output.as_deref(), outcome.results),
        (Some("0 1 3\n"), None)
    );
    let last = rig
        .caller
        .chain(json!({"steps": ["add"], "input": "[2,3]"}))
        .await
        .unwrap();
    assert_eq!(last.results, Some(vec![json!(5)]));
}

#[tokio::test]
async fn a_failed_step_is_named_and_the_steps_before_it_come_along() {
    let rig = Rig::start(&["upper", "math", "traps", "spin"]).await;
    let nothing = json!({"module": "math", "function": "nothing"});
    let trap = json!({"module": "traps", "function": "unreachable"});
    let error = rig.caller.chain(json!({"steps": [nothing, trap, "upper"]})).await;
    let error = refused_naming(ErrorCode::GuestTrapped, "steps[1]", error);
    let detail = &error.error.detail;
    assert_eq!(
        (&detail["failed_step"], &detail["trap"]),
        (&json!(1), &json!("unreachable"))
    );
    let steps: Vec<Outcome> = serde_json::from_value(detail["steps"].clone()).unwrap();
    assert_eq!((steps.len(), steps[0].results.clone()), (1, Some(vec![])));
    assert!(error.job_id.is_some());
    let spin = json!({"module": "spin", "function": "spin", "limits": {"timeout_ms": 50}});
    refused_naming(
        ErrorCode::DeadlineExceeded,
        "steps[1]",
        rig.caller.chain(json!({"steps": [nothing, spin]})).await,
    );
    let misfit = rig
        .caller
        .chain(json!({"steps": ["upper", "add"], "input": "a"}))
        .await;
    assert!(
        refused_naming(ErrorCode::InvalidArguments, "steps[1]", misfit)
            .error
            .guest_ran,
        "that of the first step"
    );
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_chain_that_breaks_a_rule_is_refused_before_anything_runs() {
    let rig = Rig::start(&["upper"]).await;
    let ten = vec!["upper"; 10];
    assert_eq!(
        rig.caller
            .chain(json!({"steps": ten, "input": "a"}))
            .await
            .unwrap()
            .steps
            .len(),
        10
    );
    for (request, named) in [
        (json!({"steps": [], "input": "a"}), "not 0"),
        (json!({"steps": vec!["upper"; 11], "input": "a"}), "not 11"),
        (
            json!({"steps": ["upper", {"module": "upper", "input": "b"}]}),
            "steps[1]",
        ),
        (
            json!({"steps": ["upper", {"module": "upper", "colour": 1}]}),
            "`colour`",
        ),
        (json!({"steps": ["UPPER"]}), "UPPER"),
        (json!({"steps": ["upper"], "inputs": "a"}), "`inputs`"),
        (json!({"steps": ["upper"], "wait_ms": 120_001}), "wait_ms"),
        (
            json!({"steps": ["upper"], "input": "a", "input_base64": "YQ=="}),
            "exclude",
        ),
    ] {
        let error = refused_naming(ErrorCode::InvalidRequest, named, rig.caller.chain(request).await);
        assert!(!error.error.guest_ran);
    }
    let missing = rig
        .caller
        .chain(json!({"steps": ["nobody", "upper"], "input": "a"}))
        .await;
    assert_eq!(
        refused(ErrorCode::ModuleNotFound, missing).error.detail["failed_step"],
        0
    );
}

#[tokio::test]
async fn outputs_too_large_for_a_reply_are_stored_and_still_feed_the_next_step() {
    let rig = Rig::start(&["wordcount"]).await;
    let large = r#"(module (import "host" "set_output" (func $set (param i32 i32))) (memory (export "memory") 12)
        (func (export "process") (param i32 i32) (result i32)
          (memory.fill (i32.const 0) (i32.const 97) (i32.const 700000)) (call $set (i32.const 0) (i32.const 700000)) (i32.const 0)))"#;
    rig.caller.store("large", wat(large)).await;
    let outcome = rig
        .caller
        .chain(json!({"steps": ["large", "wordcount"]}))
        .await
        .unwrap();
    let stored = outcome.steps[0].output_ref.as_ref().unwrap();
    assert_eq!(
        (stored.size, outcome.output.as_deref()),
        (700_000, Some("0 1 700000\n"))
    );
}

#[tokio::test]
async fn the_steps_of_a_chain_run_where_the_first_one_ran() {
    let rig = Rig::with(&["--executors", "3"], &["upper"]).await;
    let chain = rig.caller.chain(json!({"steps": vec!["upper"; 4], "input": "a"}));
    let steps = chain.await.unwrap().steps;
    // Each executor has to load a module by itself.
    let cold: Vec<_> = steps.iter().map(|step| step.stats.cold).collect();
    assert_eq!(cold, [true, false, false, false]);
}

#[tokio::test]
async fn a_step_that_finds_its_executor_full_runs_on_another() {
    let flags = ["--executors", "2", "--slots", "1"];
    let rig = Rig::with(&flags, &["upper", "spin"]).await;
    let spin = rig.caller.begin(crate::rig::spin(20_000));
    rig.worker.shows("wess_worker_slots_busy", 1).await;
    for _ in 0..4 {
        let chain = rig.caller.chain(json!({"steps": vec!["upper"; 3], "input": "a"}));
        assert_eq!(chain.await.unwrap().output.as_deref(), Some("A"));
    }
    assert!(!spin.is_finished(), "it holds its slot still");
    spin.abort();
}
