//! The command `wess` as its users meet it: as a process, by what it prints and what it ends with.

#![allow(clippy::unwrap_used)]

mod command_line;

use std::process::{Output, Stdio};

/// Runs `wess` with these arguments and without stdin.
fn wess(args: &[&str]) -> Output {
    wess_harness::binary("wess")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}
