//! The data folder: made if missing, and locked for as long as this process lives.
//!
//! Two processes never share one: the second is told which folder it is, before it has touched anything in it.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// The name of the lock file. Its content means nothing; the lock dies with its process.
const LOCK: &str = "lock";

/// A data folder that is ours.
#[derive(Debug)]
pub(super) struct DataFolder {
    path: PathBuf,
    _lock: File,
}

/// The data folder cannot be used. A restart will not help.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process has it.
    #[error("the data folder {} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// It cannot be made or written to.
    #[error("cannot use the data folder {}", path.display())]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl DataFolder {
    /// Makes and locks the folder.
    pub(super) fn open(path: &Path) -> Result<Self, FolderError> {
        let unusable = |source| FolderError::Unusable {
            path: path.into(),
            source,
        };
        make_private(path).map_err(unusable)?;
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(LOCK))
            .map_err(unusable)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                path: path.into(),
                _lock: lock,
            }),
            Err(Errno::WOULDBLOCK) => Err(FolderError::Locked(path.into())),
            Err(error) => Err(unusable(error.into())),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes a folder that nobody else may enter, and those above it.
pub(super) fn make_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_use_is_refused_by_name_until_its_process_lets_go() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let first = DataFolder::open(&path).unwrap();
        let refused = DataFolder::open(&path).unwrap_err();
        assert!(
            matches!(&refused, FolderError::Locked(locked) if *locked == path),
            "{refused:?}"
        );
        assert!(refused.to_string().contains("a/b"));
        drop(first);
        assert!(DataFolder::open(&path).is_ok());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = DataFolder::open(&file.path().join("data")).unwrap_err();
        assert!(matches!(refused, FolderError::Unusable { .. }));
    }
}
