//! `wess bench` from start to end, as short as it goes.

use std::process::Stdio;

use serde_json::Value;
use wess_harness::binary;

use crate::wess::stderr;

#[test]
fn a_short_run_measures_everything_and_leaves_nothing_behind() {
    let folder = tempfile::TempDir::new().unwrap();
    let mut command = binary("wess");
    command.args(["bench", "--seconds", "4", "--modules", "20", "--output", "json"]);
    let output = command
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
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
    assert!(report["idle"]["resident_bytes"].as_u64().unwrap() > 0);
    assert_eq!(
        (&report["modules"]["modules"], &report["modules"]["compilations"]),
        (&20.into(), &0.into())
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
