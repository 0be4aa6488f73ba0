//! The environment variables that tests read, and which of them our processes must not inherit.

#![allow(
    clippy::disallowed_methods,
    reason = "tests have no Config: this file is where they read the environment"
)]

use std::ffi::OsString;
use std::path::PathBuf;

/// The nats-server to start: `WESS_NATS_SERVER`, else the one on `PATH`.
pub(crate) fn nats_server() -> PathBuf {
    program("WESS_NATS_SERVER", "nats-server")
}

/// Wasmtime's command line: `WESS_WASMTIME`, else the one on `PATH`.
pub fn wasmtime() -> PathBuf {
    program("WESS_WASMTIME", "wasmtime")
}

/// A number that a test is told, if it is.
pub fn number(name: &str) -> Option<u64> {
    let told = std::env::var_os(name)?;
    let number = told.to_str().and_then(|told| told.parse().ok());
    Some(number.unwrap_or_else(|| panic!("{name} is no number: {told:?}")))
}

fn program(variable: &str, name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("no {name}: set {variable}, put one on PATH, or run scripts/setup and source scripts/env")
    })
}

/// The options that a shell happens to hold and that a process under test would take for its own.
pub(crate) fn our_options() -> impl Iterator<Item = OsString> {
    const KEPT: [&str; 2] = ["WESS_NATS_SERVER", "WESS_CACHE"];
    let ours =
        |name: &OsString| name.to_string_lossy().starts_with("WESS_") && KEPT.iter().all(|kept| name != kept);
    std::env::vars_os()
        .map(|(name, _)| name)
        .filter(move |name| ours(name))
}
