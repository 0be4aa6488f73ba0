//! The socket's file: made for its user alone before anybody can connect, and removed when the socket is no longer served.
//!
//! Refuses a path where somebody answers, or where something lies that is no socket. Invariant: of any number of processes
//! that are started on one path, one serves it.

use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;
use tokio::time::{Instant, sleep};

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 1024;
/// Whoever holds the folder makes its own socket there, which takes no time.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_STEP: Duration = Duration::from_millis(20);

/// The socket cannot be served there.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody serves it.
    #[error("the socket {} (--socket) is in use by another process", .0.display())]
    InUse(PathBuf),
    /// What is there is not ours to replace.
    #[error("{} (--socket) is there already, and is no socket", .0.display())]
    NoSocket(PathBuf),
    /// It could not be made.
    #[error("cannot serve the socket {} (--socket)", path.display())]
    Failed {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A socket that is listened on. Its file goes when this is dropped, before the socket itself.
#[derive(Debug)]
pub struct SocketFile {
    owned: Owned,
    /// Takes the connections.
    pub listener: UnixListener,
}

/// A file of ours, by its path and by what it is.
#[derive(Debug)]
struct Owned {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    /// Opens it, replacing what a killed process left there.
    pub async fn open(path: &Path) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Failed {
            path: path.into(),
            source,
        };
        let _folder = lock_folder(path).await.map_err(failed)?;
        clear(path)?;
        let (owned, listener) = listen(path).map_err(failed)?;
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        Ok(Self { owned, listener })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.owned.path
    }
}

/// Two processes that find a dead socket at once would each remove the other's: one at a time looks and replaces.
async fn lock_folder(path: &Path) -> io::Result<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = File::open(folder.unwrap_or(Path::new(".")))?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match folder.try_lock() {
            Ok(()) => return Ok(folder),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(LOCK_STEP).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Makes way where a socket is that nobody answers on.
fn clear(path: &Path) -> Result<(), SocketError> {
    let failed = |source| SocketError::Failed {
        path: path.into(),
        source,
    };
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(failed)?,
    };
    if !found.file_type().is_socket() {
        return Err(SocketError::NoSocket(path.into()));
    }
    if is_answered(path).map_err(failed)? {
        return Err(SocketError::InUse(path.into()));
    }
    tracing::info!(path = %path.display(), "replacing a socket that nobody answers on");
    fs::remove_file(path).map_err(failed)
}

fn is_answered(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Where too many wait already, a connection would be waited for.
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock => Ok(true),
            io::ErrorKind::ConnectionRefused => Ok(false),
            _ => Err(error),
        },
    }
}

/// Nobody can connect before `listen`, and by then nobody else may.
fn listen(path: &Path) -> io::Result<(Owned, std::os::unix::net::UnixListener)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let owned = Owned::of(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)?;
    Ok((owned, OwnedFd::from(socket).into()))
}

impl Owned {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: std::path::absolute(path)?,
            identity: identity(path)?,
        })
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

impl Drop for Owned {
    /// What somebody else put there meanwhile is left alone.
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove the socket");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use tempfile::TempDir;

    #[tokio::test]
    async fn it_is_for_its_user_alone_and_goes_with_its_owner() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("s");
        let open = SocketFile::open(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop(open);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_dead_one_is_replaced_and_a_live_one_is_not() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _open = SocketFile::open(&path).await.unwrap();
        UnixStream::connect(&path).unwrap();
        let refused = SocketFile::open(&path).await.unwrap_err();
        assert!(matches!(refused, SocketError::InUse(_)), "{refused}");
        UnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn what_is_no_socket_and_what_cannot_be_one_is_named() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "mine").unwrap();
        for (path, said) in [
            (file.clone(), "is no socket"),
            (folder.path().into(), "is no socket"),
            (folder.path().join("no/s"), "cannot serve"),
            (folder.path().join("s".repeat(200)), "cannot serve"),
        ] {
            let refused = SocketFile::open(&path).await.unwrap_err().to_string();
            assert!(
                refused.contains(said) && refused.contains("--socket"),
                "{refused}"
            );
        }
        assert_eq!(fs::read(&file).unwrap(), b"mine");
    }

    #[tokio::test]
    async fn of_several_that_find_a_dead_one_at_once_one_serves_it() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("s");
        for _ in 0..20 {
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            let opened: Vec<_> =
                futures_util::future::join_all((0..4).map(|_| SocketFile::open(&path))).await;
            assert_eq!(
                opened.iter().filter(|opened| opened.is_ok()).count(),
                1,
                "{opened:?}"
            );
            UnixStream::connect(&path).unwrap();
        }
    }

    #[tokio::test]
    async fn what_another_put_in_its_place_stays() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("s");
        let open = SocketFile::open(&path).await.unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "other").unwrap();
        drop(open);
        assert_eq!(fs::read(&path).unwrap(), b"other");
    }
}
