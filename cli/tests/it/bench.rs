//! `wess bench` from start to end, as short as it goes.

use std::process::Stdio;

use futures_util::StreamExt;
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

/// What a report is held against: what is wanted, whether more is better, and what was measured.
fn goals(report: &Value) -> Vec<(f64, bool, f64)> {
    assert!(report["cores"].as_u64().unwrap() > 0);
    let goal = |goal: &Value| {
        assert!(!goal["what"].as_str().unwrap().is_empty());
        (
            goal["goal"].as_f64().unwrap(),
            goal["at_least"].as_bool().unwrap(),
            goal["measured"].as_f64().unwrap(),
        )
    };
    report["goals"].as_array().unwrap().iter().map(goal).collect()
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
        assert!(case["bare_us"].as_f64().unwrap() > 0.0);
    }
    // So short a run may see no processor time of a worker that others leave none.
    let known = cases[1..3].iter().filter(|case| case["efficiency"].is_number());
    let goals = goals(&report);
    assert_eq!(goals.len(), 2 + known.count(), "{goals:?}");
    assert_eq!(goals[0], (0.8, true, cases[1]["ratio"].as_f64().unwrap()));
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

#[tokio::test]
async fn behind_a_server_that_was_named_others_are_measured_and_nothing_is_left_in_it() {
    let server = NatsServer::start();
    let client = async_nats::connect(server.url()).await.unwrap();
    let mut requests = client.subscribe("other.upper").await.unwrap();
    let others = async {
        while let Some(request) = requests.next().await {
            let answer = request.payload.to_ascii_uppercase();
            client
                .publish(request.reply.unwrap(), answer.into())
                .await
                .unwrap();
        }
    };
    let mut bench = tokio::process::Command::from(binary("wess"));
    bench
        .args(["bench", "--seconds", "4", "--markdown", "--nats", &server.url()])
        .args(["--peer", &format!("other=other.upper@{}", std::process::id())])
        .stdin(Stdio::null());
    let measured = tokio::select! {
        measured = bench.output() => measured.unwrap(),
        () = others => panic!("the server is gone"),
    };
    assert!(measured.status.success(), "{}", stderr(&measured));
    let report = String::from_utf8(measured.stdout).unwrap();
    for who in ["worker", "other"] {
        let lines = report.lines().filter(|line| line.contains(&format!("| {who} ")));
        assert_eq!(lines.count(), 6, "{who}: {report}");
    }
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
fn memory_is_measured_for_modules_suspended_guests_and_calls() {
    let report = measured(&["--scenario", "memory", "--modules", "20", "--executors", "2"]);
    let bytes = |of: &Value| of.as_u64().unwrap();
    assert!(bytes(&report["idle"]["anonymous_bytes"]) > 0, "{report}");
    assert!(report["ready"]["on"].as_f64().unwrap() > 1.0, "{report}");
    let code = &report["code"];
    assert!(bytes(&code["resident_bytes"]) > 0, "{report}");
    assert_eq!(code["private_bytes"], 0);
    let suspended = &report["suspended"];
    assert_eq!(suspended["guests"], 96);
    let first = bytes(&suspended["first_bytes"]);
    assert!(0 < first && first <= bytes(&suspended["grown_bytes"]), "{report}");
    let parts = report["parts"].as_array().unwrap();
    assert_eq!((parts.len(), &parts[9]["calls"]), (10, &report["calls"]));
    assert!((1..=1_000_000).contains(&bytes(&report["calls"])), "{report}");
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

#[test]
fn kinds_of_guests_are_measured_beside_the_echo_and_the_tiny_one() {
    let report = measured(&["--scenario", "guests"]);
    let cases = report["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 10);
    for case in cases {
        assert!(case["sample"]["calls_per_s"].as_f64().unwrap() > 0.0, "{case}");
        assert!(case["of_echo"].as_f64().unwrap() > 0.0, "{case}");
        let is_tiny = case["what"] == "tiny plugin, raw";
        assert_eq!(case["of_tiny"] == 1.0, is_tiny, "{case}");
    }
    assert_eq!(goals(&report), []);
}

#[test]
fn two_executors_are_measured_beside_one() {
    let report = measured(&["--scenario", "scaling"]);
    let cases = report["cases"].as_array().unwrap();
    let shape: Vec<_> = cases
        .iter()
        .map(|case| {
            let count = |of: &str| case[of].as_u64().unwrap();
            (
                case["guest"].as_str().unwrap(),
                count("in_flight"),
                count("executors"),
            )
        })
        .collect();
    let of = |guest, in_flight| [(guest, in_flight, 1), (guest, in_flight, 2)];
    assert_eq!(
        shape,
        [of("burner", 32), of("upper", 50), of("upper", 256)].concat()
    );
    let busy = [1, 5].map(|at: usize| (1.8, true, cases[at]["busy_ratio"].as_f64().unwrap()));
    assert_eq!(goals(&report), busy);
    assert!(
        cases.iter().all(|case| case["ratio"].as_f64().unwrap() > 0.0),
        "{report}"
    );
    assert!(report["burn_us"].as_f64().unwrap() > 20.0, "{report}");
}

#[test]
fn short_calls_are_measured_beside_burners_and_burners_beside_them() {
    let report = measured(&["--scenario", "tail"]);
    let of = |what: &str| report[what].as_f64().unwrap();
    let of_core = report["burners"]["of_core"].as_f64().unwrap();
    assert_eq!(
        goals(&report),
        [
            (0.85, true, of("rate_ratio")),
            (2.0, false, of("p99_ratio")),
            (0.4, true, of_core)
        ]
    );
    // So short a run may see none of them end; all that end are checked.
    let burners = &report["burners"];
    assert!(
        burners["answered"].is_u64() && burners["at_once"] == 4,
        "{burners}"
    );
    for who in ["quiet", "beside"] {
        assert!(report[who]["calls_per_s"].as_f64().unwrap() > 0.0, "{who}");
    }
}

#[test]
fn reused_instances_are_measured_beside_fresh_ones_and_the_echo() {
    let report = measured(&["--scenario", "reuse"]);
    let cases = report["cases"].as_array().unwrap();
    let shape: Vec<_> = cases
        .iter()
        .map(|case| {
            (
                case["guest"].as_str().unwrap(),
                case["in_flight"].as_u64().unwrap(),
            )
        })
        .collect();
    let expected = [("upper", 50), ("greeter", 50), ("upper", 256), ("greeter", 256)];
    assert_eq!(shape, expected);
    for case in cases {
        for ratio in ["fresh_of_echo", "reused_of_echo", "reused_of_fresh"] {
            assert!(case[ratio].as_f64().unwrap() > 0.0, "{case}");
        }
    }
    assert_eq!(goals(&report).len(), 2);
}
