//! A whole process and its signals, seen from outside.

use std::process::Command;

use wess_harness::{Process, Signal, binary, eventually};

use crate::support::http_get;

fn process(args: &[&str]) -> Command {
    let mut command = binary("examples/lifecycle");
    command.args(["--admin", "127.0.0.1:0"]).args(args);
    command
}

#[test]
fn sigterm_and_sigint_stop_it_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut process = Process::start(&mut process(&[]));
        process.signal(signal);
        assert_eq!(process.wait_exit().code(), Some(0), "{}", process.stderr());
    }
}

#[tokio::test]
async fn a_second_signal_cuts_the_grace() {
    let mut process = Process::start(&mut process(&["--stubborn"]));
    let admin = process.value("admin");
    process.signal(Signal::TERM);
    eventually("the drain", async || {
        http_get(&admin, "/readyz")
            .await
            .1
            .contains("draining")
            .then_some(())
    })
    .await;
    process.signal(Signal::TERM);
    assert_eq!(process.wait_exit().code(), Some(75), "{}", process.stderr());
}

#[test]
fn a_panic_in_a_task_stops_it_with_70() {
    let mut process = Process::spawn(&mut process(&["--panics"]));
    assert_eq!(process.wait_exit().code(), Some(70), "{}", process.stderr());
}

#[test]
fn a_wrong_option_stops_it_with_64() {
    let mut process = Process::spawn(&mut process(&["--log", "wess=loud"]));
    assert_eq!(process.wait_exit().code(), Some(64));
    eprintln!("{}", process.stderr());
}

#[test]
fn logs_are_json_on_request_and_stdout_holds_only_the_ready_line() {
    let mut process = Process::start(&mut process(&["--log-format", "json"]));
    assert!(process.stop().success());
    assert_eq!(process.stdout().lines().count(), 1);
    let stderr = process.stderr();
    assert!(
        stderr
            .lines()
            .any(|line| line.starts_with('{') && line.contains(r#""message":"stopping""#)),
        "{stderr}"
    );
}
