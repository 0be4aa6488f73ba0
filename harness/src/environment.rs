//! The environment variables that tests read, and which of them our processes must not inherit.

#![allow(
    clippy::disallowed_methods,
    reason = "tests have no Config: this file is where they read the environment"
)]

use std::ffi::OsString;
use std::path::PathBuf;

/// The nats-server to start: `WESS_NATS_SERVER`, else the one on `PATH`.
pub(crate) fn nats_server() -> PathBuf {
    if let Some(path) = std::env::var_os("WESS_NATS_SERVER") {
        return path.into();
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders)
        .map(|folder| folder.join("nats-server"))
        .find(|path| path.is_file());
    found.expect(
        "no nats-server: set WESS_NATS_SERVER, put one on PATH, or run scripts/setup and source scripts/env",
    )
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
