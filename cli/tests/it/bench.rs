//! `wess bench` from start to end, as short as it goes.

use std::process::Stdio;

use serde_json::Value;
use wess_harness::{NatsServer, Process, Signal, binary, eventually};

use crate::wess::{children, runs, stderr};

/// What a run of so few seconds prints, which leaves nothing behind.
fn measured(more: &[&str]) -> Value {
    let folder = tempfile::TempDir::new().unwrap();
    let output = binary("wess")
        .args(["bench", "--seconds", "4", "--output", "json"])
        .args(more)
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_short_run_measures_everything_and_leaves_nothing_behind() {
    let report = measured(&["--modules", "20"]);
    let cases = report["cases"].as_array().unwrap();
    let shape: Vec<_> = cases
        .iter()
        .map(|case| (case["in_flight"].as_u64(), case["bytes"].as_u64()))
        .collect();
    let expected = [(1, 64), (50, 64), (256, 64), (1, 1024), (50, 1024), (256, 1024)];
    assert_eq!(
        shape,
        expected.map(|(in_flight, bytes)| (Some(in_flight), Some(bytes)))
    );
    for case in cases {
        for who in ["echo", "worker"] {
            assert!(case[who]["calls_per_s"].as_f64().unwrap() > 0.0);
            assert!(case[who]["p99_us"].as_f64() >= case[who]["p50_us"].as_f64());
            assert!(case[who]["cpu_us"]["nats"].is_number() && case[who]["cpu_us"]["responder"].is_number());
        }
        assert!(case["ratio"].as_f64().unwrap() > 0.0);
    }
    let idle = report["idle"]["resident_bytes"].as_u64().unwrap();
    assert!((1..32 << 20).contains(&idle), "an idle worker holds {idle} bytes");
    assert_eq!(
        (&report["modules"]["modules"], &report["modules"]["compilations"]),
        (&20.into(), &0.into())
    );
}

#[test]
fn the_socket_is_measured_against_a_bare_axum_echo_and_leaves_nothing_behind() {
    let report = measured(&["--scenario", "socket"]);
    let cases = report["cases"].as_array().unwrap();
    let named: Vec<_> = cases.iter().map(|case| case["what"].as_str().unwrap()).collect();
    assert_eq!(
        (named[0], named[1], named[6]),
        ("axum echo", "Execute", "ExecuteChain of three")
    );
    for case in cases {
        assert!(case["sample"]["calls_per_s"].as_f64().unwrap() > 0.0, "{case}");
        assert!(case["sample"]["cpu_us"]["responder"].is_number(), "{case}");
        assert!(case["ratio"].as_f64().unwrap() > 0.0, "{case}");
    }
}

#[test]
fn behind_a_server_that_was_named_nothing_is_left_in_it() {
    let server = NatsServer::start();
    let measured = binary("wess")
        .args(["bench", "--seconds", "4", "--markdown", "--nats", &server.url()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(measured.status.success(), "{}", stderr(&measured));
    let report = String::from_utf8(measured.stdout).unwrap();
    assert_eq!(
        report.lines().filter(|line| line.contains("| worker |")).count(),
        6,
        "{report}"
    );
    assert!(!report.contains("cached modules"), "{report}");
    let wess = crate::wess::Wess::up_in(tempfile::TempDir::new().unwrap(), &["--nats", &server.url()]);
    assert_eq!(wess.must(crate::wess::Door::Nats, &["ls"]), "");
}

#[tokio::test]
async fn an_interrupted_run_ends_its_processes_and_removes_its_folder() {
    let folder = tempfile::TempDir::new().unwrap();
    let mut bench = Process::spawn(binary("wess").arg("bench").env("TMPDIR", folder.path()));
    let pids = eventually("three processes", async || {
        let pids = children(bench.pid());
        (pids.len() == 3).then_some(pids)
    })
    .await;
    bench.signal(Signal::INT);
    assert_eq!(bench.wait_exit().code(), Some(70), "{}", bench.stderr());
    for pid in pids {
        eventually("the end of a process", async || (!runs(pid)).then_some(())).await;
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn http_is_measured_beside_wasmtime_serve_and_leaves_nothing_behind() {
    let report = measured(&[
        "--scenario",
        "http",
        "--wasmtime",
        wess_harness::wasmtime().to_str().unwrap(),
    ]);
    let cases = report["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 9);
    for case in cases {
        assert!(case["sample"]["calls_per_s"].as_f64().unwrap() > 0.0, "{case}");
        assert!(case["of_serve"].as_f64().unwrap() > 0.0, "{case}");
    }
    assert_goals(&report, 6);
}

/// Each of so many goals is told with what was measured.
fn assert_goals(report: &Value, count: usize) {
    assert!(report["cores"].as_u64().unwrap() > 0);
    let goals = report["goals"].as_array().unwrap();
    assert_eq!(goals.len(), count, "{report}");
    for goal in goals {
        assert!(
            goal["what"].is_string() && goal["at_least"].is_boolean(),
            "{goal}"
        );
        assert!(goal["goal"].is_number() && goal["measured"].is_number(), "{goal}");
    }
}

#[test]
fn first_answers_after_a_restart_are_measured_without_a_compilation() {
    let report = measured(&["--scenario", "cold", "--modules", "4"]);
    let cases = report["cases"].as_array().unwrap();
    let shape: Vec<_> = cases
        .iter()
        .map(|case| (&case["what"], &case["modules"]))
        .collect();
    assert_eq!(
        shape,
        [(&"small".into(), &4.into()), (&"large".into(), &1.into())]
    );
    for case in cases {
        assert!(case["warm_us"].as_f64().unwrap() > 0.0, "{case}");
        assert!(case["first_us"].as_f64() > case["warm_us"].as_f64(), "{case}");
    }
    assert_eq!(report["compilations"], 0);
    assert!(report["fresh"]["compile_ms"].as_f64().unwrap() > 0.0, "{report}");
    assert_goals(&report, 4);
}

#[test]
fn calls_to_many_modules_are_measured_against_calls_to_one() {
    let report = measured(&["--scenario", "many", "--modules", "20"]);
    for who in ["one", "any"] {
        assert!(report[who]["calls_per_s"].as_f64().unwrap() > 0.0, "{report}");
    }
    assert_eq!(
        (&report["modules"], &report["cold_percent"]),
        (&20.into(), &0.0.into())
    );
    assert!(report["prepared"].as_u64().unwrap() >= 20, "{report}");
    assert_goals(&report, 5);
}

#[test]
fn of_more_calls_than_a_worker_can_answer_none_is_lost() {
    let report = measured(&["--scenario", "overload"]);
    let count = |of: &Value| of.as_u64().unwrap();
    let refused: u64 = report["refused"].as_object().unwrap().values().map(count).sum();
    assert_eq!(
        count(&report["calls"]),
        count(&report["answered"]) + refused,
        "{report}"
    );
    assert_eq!(report["lost"], 0);
    assert!(report["goodput_per_s"].as_f64().unwrap() > 0.0, "{report}");
    assert_goals(&report, 4);
}
