//! What `wess` says without anyone to ask: help, completions, usage errors, and who is not there.

use std::io::Write;
use std::process::{Output, Stdio};

use serde_json::Value;
use wess_harness::{NatsServer, binary};

use crate::wess::{code, stderr, stdout};

/// Nobody listens on a port that is reserved.
const NOWHERE: &str = "nats://127.0.0.1:1";

fn wess(args: &[&str]) -> Output {
    binary("wess").args(args).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn every_command_shows_examples_and_the_whole_help_shows_the_exit_codes() {
    for command in [
        "up",
        "store",
        "invoke",
        "chain",
        "ls",
        "describe",
        "tag",
        "rm",
        "bench",
        "completions",
    ] {
        let help = wess(&[command, "--help"]);
        assert_eq!(code(&help), 0);
        assert!(stdout(&help).contains("Examples:"), "{command}");
        assert!(stdout(&help).contains(&format!("wess {command}")), "{command}");
    }
    for command in ["submit", "get", "wait", "cancel", "ls"] {
        assert!(stdout(&wess(&["jobs", command, "--help"])).contains(&format!("wess jobs {command}")));
    }
    for command in ["ls", "get", "redrive", "purge"] {
        assert!(stdout(&wess(&["dead", command, "--help"])).contains(&format!("wess dead {command}")));
    }
    assert!(stdout(&wess(&["--help"])).contains("69  nobody answers"));
    assert!(!stdout(&wess(&["--help"])).contains("bench-echo"));
}

#[test]
fn short_help_spares_the_options_of_a_secured_server() {
    let (short, long) = (stdout(&wess(&["ls", "-h"])), stdout(&wess(&["ls", "--help"])));
    assert!(short.contains("--nats <") && short.contains("--output <") && !short.contains("--nats-tls-ca"));
    assert!(long.contains("--nats-tls-ca"));
}

#[test]
fn completions_name_the_commands_in_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = wess(&["completions", shell]);
        assert_eq!(code(&script), 0, "{shell}");
        for command in ["describe", "submit", "redrive"] {
            assert!(stdout(&script).contains(command), "{shell}: {command}");
        }
        assert!(!stdout(&script).contains("bench-echo"), "{shell}");
    }
}

#[test]
fn a_command_line_that_does_not_parse_ends_with_2_and_says_where() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "Usage"),
        (&["frobnicate"], "frobnicate"),
        (&["invoke"], "<REF>"),
        (&["invoke", "UPPER"], "UPPER"),
        (&["invoke", "upper", "x", "--timeout", "5"], "500ms"),
        (&["invoke", "upper", "--args", "[1"], "JSON array"),
        (&["configure"], "<NAME>"),
        (&["tag", "upper", "stable"], "<VERSION>"),
        (&["ls", "--output", "xml"], "xml"),
        (&["completions", "csh"], "csh"),
        (&["jobs"], "submit"),
        (&["jobs", "submit"], "<REF"),
        (&["jobs", "get", "no/id"], "no/id"),
        (&["jobs", "ls", "--state", "asleep"], "queued"),
        (&["dead", "purge"], "<ID>"),
    ];
    for (args, said) in cases {
        let output = wess(args);
        assert_eq!(code(&output), 2, "{args:?}");
        assert!(stderr(&output).contains(said), "{args:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{args:?}");
    }
}

#[test]
fn with_nobody_there_it_ends_with_69_and_says_where_it_looked() {
    for way in [["--nats", NOWHERE], ["--gateway", "http://127.0.0.1:1"]] {
        let output = wess(&["ls", way[0], way[1]]);
        assert_eq!(code(&output), 69, "{}", stderr(&output));
        assert!(
            stderr(&output).starts_with("error: cannot connect to"),
            "{}",
            stderr(&output)
        );
        assert!(stderr(&output).contains("127.0.0.1:1") && stderr(&output).contains("(unavailable)\nhint: "));
    }
}

#[test]
fn a_server_without_workers_is_told_from_one_that_is_not_there() {
    let server = NatsServer::start();
    for args in [&["ls"][..], &["invoke", "upper", "hello"], &["chain", "a", "b"]] {
        let output = wess(&[args, &["--nats", &server.url()]].concat());
        assert_eq!(code(&output), 69, "{}", stderr(&output));
        assert!(
            stderr(&output).contains("(no_workers)\nhint: start one"),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut command = binary("wess");
    command
        .args(["completions", "bash"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), stderr(&output).as_str()), (0, ""));
}

#[test]
fn programs_get_errors_as_json() {
    let output = wess(&["ls", "--nats", NOWHERE, "--output", "json"]);
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(
        (&error["error"]["code"], &error["error"]["retryable"]),
        (&"unavailable".into(), &true.into())
    );
    let output = wess(&["store", "x", "/nowhere.wasm", "-o", "json"]);
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["error"]["code"], Value::Null);
    assert!(
        error["error"]["message"]
            .as_str()
            .unwrap()
            .contains("/nowhere.wasm")
    );
}

#[test]
fn mistakes_on_this_machine_are_told_before_anyone_is_asked() {
    let mut text = tempfile::Builder::new().suffix(".wat").tempfile().unwrap();
    text.write_all(b"(module (func (export \"f\")").unwrap();
    let text = text.path().to_str().unwrap();
    let cases: &[(&[&str], i32, &str)] = &[
        (
            &["store", "x", "/nowhere.wasm", "--nats", NOWHERE],
            66,
            "/nowhere.wasm",
        ),
        (
            &["invoke", "x", "--file", "/nowhere", "--nats", NOWHERE],
            66,
            "/nowhere",
        ),
        (&["store", "x", text, "--nats", NOWHERE], 65, "cannot assemble"),
        (&["ls", "--gateway", "localhost"], 64, "--gateway"),
        (&["ls", "--nats", "http://x"], 64, "--nats"),
        (
            &["up", "--nats-server", "/nowhere/nats-server"],
            64,
            "--nats-server",
        ),
    ];
    for (args, expected, said) in cases {
        let output = wess(args);
        assert_eq!(code(&output), *expected, "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(said), "{args:?}: {}", stderr(&output));
    }
}
