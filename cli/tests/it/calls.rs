//! Calling modules: what goes in, what comes out on stdout, and what a script can tell from the exit code.

use serde_json::{Value, json};

use crate::wess::{DOORS, Wess, code, stderr, stdout};

/// Above what a NATS message holds, below what a guest may get.
const LARGE: usize = 3_000_000;

#[test]
fn a_plugins_output_is_printed_byte_for_byte() {
    let wess = Wess::up();
    wess.store(DOORS[0], "reverse", "in_place");
    for door in DOORS {
        assert_eq!(wess.must(door, &["invoke", "reverse", "hello"]), "olleh");
        assert_eq!(
            stdout(&wess.pipe(door, &["invoke", "reverse", "-"], b"from a pipe\n")),
            "\nepip a morf"
        );
        let bytes = wess.file("bytes", &[0, 159, 255, 10]);
        let output = wess.ask(door, &["invoke", "reverse", "--file", &bytes]);
        assert_eq!(output.stdout, [10, 255, 159, 0]);
        assert_eq!(output.stderr, b"");
    }
}

#[test]
fn large_inputs_and_outputs_travel_without_anyone_noticing() {
    let wess = Wess::up();
    wess.store(DOORS[0], "reverse", "in_place");
    let text: Vec<u8> = (b'a'..=b'z').cycle().take(LARGE).collect();
    // Neither text nor of the same length when it is written as base64.
    let binary: Vec<u8> = (0..=255).cycle().take(LARGE).collect();
    for door in DOORS {
        for input in [&text, &binary] {
            let reversed: Vec<u8> = input.iter().rev().copied().collect();
            assert!(
                wess.pipe(door, &["invoke", "reverse", "-"], input).stdout == reversed,
                "{door:?}"
            );
            let twice = wess.pipe(door, &["chain", "reverse", "reverse", "--input", "-"], input);
            assert!(&twice.stdout == input, "{door:?}: {}", stderr(&twice));
        }
        let outcome = wess.pipe(door, &["invoke", "reverse", "-", "-o", "json"], &text);
        let outcome: Value = serde_json::from_slice(&outcome.stdout).unwrap();
        assert_eq!(
            (outcome["output"].as_str().unwrap().len(), &outcome["output_ref"]),
            (LARGE, &Value::Null)
        );
    }
}

#[test]
fn an_input_that_no_guest_may_get_is_refused_before_it_is_sent() {
    let wess = Wess::up();
    wess.store(DOORS[0], "reverse", "in_place");
    for door in DOORS {
        let output = wess.pipe(door, &["invoke", "reverse", "-"], &vec![b'x'; 11_000_000]);
        assert_eq!(code(&output), 65);
        assert!(
            stderr(&output).contains("(payload_too_large)"),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn typed_functions_take_arguments_and_print_their_results_as_json() {
    let wess = Wess::up();
    wess.store(DOORS[0], "add", "add");
    wess.store(DOORS[0], "math", "math");
    for door in DOORS {
        assert_eq!(wess.must(door, &["invoke", "add", "--args", "[2,3]"]), "5");
        assert_eq!(wess.must(door, &["invoke", "add", "[2,3]"]), "5");
        assert_eq!(
            wess.must(
                door,
                &["invoke", "math", "--function", "divmod", "--args", "[17,5]"]
            ),
            "[3,2]"
        );
        assert_eq!(wess.must(door, &["invoke", "math.divmod", "[17,5]"]), "[3,2]");
        let outcome = wess.json(door, &["invoke", "math.divmod", "--args", "[17,5]"]);
        assert_eq!(
            (&outcome["results"], &outcome["function"]),
            (&json!([3, 2]), &json!("divmod"))
        );
        assert_eq!(outcome["module"]["name"], "math");
    }
}

#[test]
fn a_commands_own_exit_code_is_told_and_makes_this_one_fail() {
    let wess = Wess::up();
    wess.store(DOORS[0], "cat", "cat");
    let line = [
        "invoke",
        "cat",
        "fish",
        "--arg=-e",
        "--arg",
        "CITY",
        "--arg=-x",
        "--arg",
        "7",
        "--env",
        "CITY=Bergen",
    ];
    for door in DOORS {
        let output = wess.ask(door, &line);
        assert_eq!(
            (code(&output), stdout(&output).as_str()),
            (1, "CITY=Bergen\nfish")
        );
        assert_eq!(stderr(&output), "cat ended with exit code 7\n");
        let output = wess.ask(door, &[&line[..], &["-o", "json"]].concat());
        let outcome: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (code(&output), &outcome["exit_code"], stderr(&output).as_str()),
            (1, &json!(7), "")
        );
        assert_eq!(wess.must(door, &["invoke", "cat", "fish"]), "fish");
    }
}

#[test]
fn a_chain_feeds_each_step_with_the_output_of_the_one_before() {
    let wess = Wess::up();
    for (name, guest) in [
        ("upper", "upper"),
        ("reverse", "in_place"),
        ("math", "math"),
        ("traps", "traps"),
    ] {
        wess.store(DOORS[0], name, guest);
    }
    for door in DOORS {
        assert_eq!(
            wess.must(door, &["chain", "upper", "reverse", "--input", "hello"]),
            "OLLEH"
        );
        assert_eq!(
            wess.must(
                door,
                &["chain", "math.divmod", "math.divmod", "--input", "[17,5]"]
            ),
            "[1,1]"
        );
        let outcome = wess.json(door, &["chain", "upper", "reverse", "--input", "hello"]);
        assert_eq!(
            (
                outcome["steps"].as_array().unwrap().len(),
                &outcome["steps"][0]["output"]
            ),
            (2, &json!("HELLO"))
        );
        let output = wess.ask(
            door,
            &["chain", "upper", "traps.unreachable", "reverse", "--input", "[]"],
        );
        assert_eq!(code(&output), 1, "{}", stderr(&output));
        assert!(stderr(&output).contains("(guest_trapped)"), "{}", stderr(&output));
    }
}

#[test]
fn a_chain_is_stored_described_called_and_removed_as_a_module_is() {
    let wess = Wess::up();
    wess.store(DOORS[0], "upper", "upper");
    let steps = json!(["upper", {"module": "reverse", "limits": {"timeout_ms": 900}, "env": {"A": "1"}}]);
    let file = wess.file("shout.json", json!({"steps": steps}).to_string().as_bytes());
    wess.store(DOORS[0], "reverse", "in_place");
    for door in DOORS {
        let stored = wess.must(door, &["store", &file]);
        assert!(
            stored.starts_with("shout is stored as version 1: chain"),
            "{stored}"
        );
        assert_eq!(wess.must(door, &["invoke", "shout", "hello"]), "OLLEH");
        let outcome = wess.json(door, &["invoke", "shout", "hello"]);
        assert_eq!(outcome["steps"].as_array().unwrap().len(), 2);
        assert_eq!(wess.json(door, &["describe", "shout"])["chain"]["steps"], steps);
        let described = wess.must(door, &["describe", "shout"]);
        for said in ["chain", "reverse", "A=1, 900 ms"] {
            assert!(described.contains(said), "{said} is not in {described}");
        }
        assert!(wess.must(door, &["ls"]).contains("chain"));
        let function = wess.ask(door, &["invoke", "shout.twice", "a"]);
        assert!(
            stderr(&function).contains("shout is a chain"),
            "{}",
            stderr(&function)
        );
        let module = wess.ask(door, &["store", "upper", &file]);
        assert!(stderr(&module).contains("steps[0]"), "{}", stderr(&module));
        let module = wess.ask(
            door,
            &[
                "store",
                "reverse",
                &wess.file("one.json", b"{\"steps\":[\"upper\"]}"),
            ],
        );
        assert!(stderr(&module).contains("(conflict)"), "{}", stderr(&module));
        wess.must(door, &["rm", "shout"]);
    }
}

#[test]
fn scripts_can_tell_failures_apart() {
    let wess = Wess::up();
    for (name, guest) in [
        ("add", "add"),
        ("traps", "traps"),
        ("spin", "spin"),
        ("bomb", "memory_bomb"),
    ] {
        wess.store(DOORS[0], name, guest);
    }
    let cases: &[(&[&str], i32, &str)] = &[
        (&["invoke", "nobody"], 66, "module_not_found"),
        (
            &["invoke", "add.subtract", "--args", "[1]"],
            66,
            "function_not_found",
        ),
        (&["invoke", "add", "--args", "[1]"], 65, "invalid_arguments"),
        (
            &["invoke", "add", "--args", "[1,2]", "--timeout", "999m"],
            65,
            "invalid_request",
        ),
        (&["invoke", "traps.unreachable"], 1, "guest_trapped"),
        (
            &["invoke", "spin.spin", "--timeout", "200ms"],
            1,
            "deadline_exceeded",
        ),
        (&["invoke", "spin.spin", "--fuel", "100000"], 1, "out_of_fuel"),
        (
            &["invoke", "bomb.grow_or_trap", "--memory-mb", "2"],
            1,
            "memory_exceeded",
        ),
    ];
    for door in DOORS {
        for (args, expected, said) in cases {
            let output = wess.ask(door, args);
            assert_eq!(code(&output), *expected, "{door:?} {args:?}: {}", stderr(&output));
            assert!(
                stderr(&output).contains(&format!("({said})")),
                "{args:?}: {}",
                stderr(&output)
            );
            assert_eq!(stdout(&output), "", "{args:?}");
            let output = wess.ask(door, &[args, &["-o", "json"][..]].concat());
            let error: Value = serde_json::from_slice(&output.stderr).unwrap();
            assert_eq!(
                (code(&output), &error["error"]["code"]),
                (*expected, &json!(said))
            );
        }
    }
}
