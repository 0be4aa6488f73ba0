//! How many files this process may have open. A module that an executor has ready keeps its compiled file open, so this
//! bounds how many those are.

use std::num::NonZeroUsize;

use rustix::process::{Resource, getrlimit, setrlimit};

/// Modules kept ready per executor where files are no bound; a tiny one takes some 24 KiB, mapped code not counted.
const MAX_PREPARED: usize = 4096;
/// Modules kept ready per executor however few files there may be.
const MIN_PREPARED: usize = 16;

/// Verified files that the process keeps open besides, whoever runs them.
const MAX_VERIFIED: usize = 256;

/// How many compiled files may be kept open because they were verified through their descriptors: at most a quarter of all.
pub fn verified() -> NonZeroUsize {
    let quarter = usize::try_from(raise_limit() / 4).unwrap_or(usize::MAX);
    NonZeroUsize::new(quarter.clamp(MIN_PREPARED, MAX_VERIFIED)).expect("the least is not zero")
}

/// Raises the limit as far as the system lets us, and says how many modules each executor may keep ready: together they take
/// at most half of it.
pub fn modules_per_executor(executors: NonZeroUsize) -> NonZeroUsize {
    let half = usize::try_from(raise_limit() / 2).unwrap_or(usize::MAX);
    let share = (half / executors).clamp(MIN_PREPARED, MAX_PREPARED);
    NonZeroUsize::new(share).expect("the least is not zero")
}

/// Many systems start processes with a low limit that they may raise themselves.
fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let result = setrlimit(Resource::Nofile, raised);
    if let Err(error) = result {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_executors_share_what_files_there_are_and_none_goes_without() {
        let share = |executors: usize| modules_per_executor(executors.try_into().unwrap()).get();
        let files = raise_limit();
        assert!(share(1) <= MAX_PREPARED && share(1) as u64 <= (files / 2).max(MIN_PREPARED as u64));
        assert_eq!(share(usize::MAX), MIN_PREPARED);
    }
}
