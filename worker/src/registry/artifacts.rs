//! Compiled modules as sealed files, and the descriptors through which they were verified.
//!
//! A file is written under a temporary name, renamed, never modified, opened once, verified and handed on through that
//! one descriptor. What has not our seal, owner and mode is removed and never loaded. Where the disk keeps nothing, memory does.

use std::fs::{self, File, Permissions};
use std::io::{self, IoSliceMut, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

use lru::LruCache;
use rustix::fs::{MemfdFlags, SealFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::ReadWriteFlags;
use tempfile::Builder;
use wess_schemas::Digest;

use super::budget::{Found, Item};
use super::folder::make_private;
use super::seal::{NodeKey, READ_ONLY, SEAL_BYTES, is_private, open_no_follow};
use super::stats::RegistryStats;
use crate::files;
use crate::guest::Metering;

const FOLDER: &str = "artifacts";
/// Most bytes of compiled modules in memory, for want of disk. Executors that have one mapped keep it alive by themselves.
const MAX_MEMORY_BYTES: u64 = 64 * 1024 * 1024;

/// Up to so many bytes are verified in less time than asking another thread takes.
const SMALL_BYTES: u64 = 64 * 1024;

/// Which compiled form of which bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ArtifactKey {
    pub(super) digest: Digest,
    pub(super) metering: Metering,
}

/// A compiled module whose seal was verified through this very descriptor.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// The compiled bytes, then a seal that who maps them ignores. Positioned anywhere.
    pub file: Arc<File>,
    /// The size of the compiled bytes, without the seal.
    pub size_bytes: u64,
}

impl Artifact {
    /// A file of this size whose seal was verified.
    fn of(file: File, size: u64) -> Self {
        Self {
            file: Arc::new(file),
            size_bytes: size - SEAL_BYTES as u64,
        }
    }

    /// Notes that it is used, as its file's modification time: its content never changes. Blocks.
    pub fn note_use(&self) {
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        // Only the order of eviction after the next start depends on it.
        let _ = rustix::fs::futimens(
            &self.file,
            &Timestamps {
                last_access: now,
                last_modification: now,
            },
        );
    }
}

/// All artifacts of this node that its compiler could have made.
pub(super) struct Artifacts {
    root: PathBuf,
    compatibility: [(Metering, String); Metering::ALL.len()],
    key: NodeKey,
    stats: RegistryStats,
    verified: Mutex<LruCache<ArtifactKey, Kept>>,
}

struct Kept {
    artifact: Artifact,
    in_memory: bool,
}

impl Artifacts {
    /// Opens the folder and removes what other compilers, or a crash, left in it. Blocks.
    pub(super) fn open(
        data: &Path,
        compatibility: impl Fn(Metering) -> String,
        stats: RegistryStats,
    ) -> io::Result<Self> {
        let key = NodeKey::load(data).or_else(|error| {
            tracing::warn!(%error, "no node key can be kept: compiled modules will not outlive this process");
            NodeKey::fleeting()
        })?;
        let artifacts = Self {
            root: data.join(FOLDER),
            compatibility: Metering::ALL.map(|metering| (metering, compatibility(metering))),
            key,
            stats,
            verified: Mutex::new(LruCache::new(files::verified())),
        };
        artifacts
            .make_folders()
            .unwrap_or_else(|error| artifacts.disk_failed("make its folders", &error));
        artifacts.sweep();
        Ok(artifacts)
    }

    /// One that was verified before. Does not block.
    pub(super) fn verified(&self, key: &ArtifactKey) -> Option<Artifact> {
        self.lock().get(key).map(|kept| kept.artifact.clone())
    }

    /// One that is small and was verified before, or whose file passes now and is in memory: it is not waited for the disk.
    /// Its use is left to be noted.
    pub(super) fn at_once(&self, key: ArtifactKey) -> Option<Artifact> {
        if let Some(verified) = self.verified(&key) {
            return (verified.size_bytes <= SMALL_BYTES).then_some(verified);
        }
        let file = open_no_follow(&self.path(&key)).ok()?;
        let size = file.metadata().ok()?.len();
        let is_small = size <= SMALL_BYTES + SEAL_BYTES as u64;
        let passes = is_small && self.passes(&key, &file, &InMemory(&file), size).ok()?;
        passes.then(|| self.remember(key, Artifact::of(file, size), false))
    }

    /// One that was verified before, or whose file passes now. What does not is left as it is, for [`Artifacts::load`]. Blocks.
    pub(super) fn at_hand(&self, key: ArtifactKey) -> Option<Artifact> {
        if let Some(verified) = self.verified(&key) {
            return Some(verified);
        }
        let artifact = self.open_verified(&key, &self.path(&key)).ok()??;
        Some(self.remember(key, artifact, false))
    }

    /// Opens and verifies a file; `None` when there is none that may be loaded. Blocks.
    pub(super) fn load(&self, key: ArtifactKey) -> Option<Artifact> {
        let path = self.path(&key);
        match self.open_verified(&key, &path) {
            Ok(Some(artifact)) => Some(self.remember(key, artifact, false)),
            Ok(None) => {
                self.stats.seals_refused.inc();
                tracing::warn!(path = %path.display(), "a compiled module has not our seal, owner and mode: compiling again");
                self.remove(&key);
                None
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.disk_failed("read a compiled module", &error);
                None
            }
        }
    }

    /// Keeps freshly compiled bytes: on disk when `on_disk` and the disk takes them, else in memory. Blocks.
    pub(super) fn keep(&self, key: ArtifactKey, compiled: &[u8], on_disk: bool) -> io::Result<Artifact> {
        if on_disk {
            match self.write(&key, compiled) {
                Ok(()) => {
                    if let Some(artifact) = self.load(key) {
                        return Ok(artifact);
                    }
                }
                Err(error) => self.disk_failed("keep a compiled module", &error),
            }
        }
        self.stats.memory_artifacts.inc();
        let file = Arc::new(in_memory(compiled)?);
        Ok(self.remember(
            key,
            Artifact {
                file,
                size_bytes: compiled.len() as u64,
            },
            true,
        ))
    }

    /// Removes a file. Who has it open keeps it.
    pub(super) fn remove(&self, key: &ArtifactKey) {
        if let Err(error) = fs::remove_file(self.path(key))
            && error.kind() != io::ErrorKind::NotFound
        {
            self.disk_failed("remove a compiled module", &error);
        }
    }

    /// What files there are. Blocks.
    pub(super) fn files(&self) -> Vec<Found> {
        let folders = self
            .compatibility
            .iter()
            .filter_map(|(_, name)| fs::read_dir(self.root.join(name)).ok());
        folders
            .flatten()
            .flatten()
            .filter_map(|entry| found(&entry))
            .collect()
    }

    /// The size of a file that holds these compiled bytes.
    pub(super) fn file_bytes(compiled: &[u8]) -> u64 {
        (compiled.len() + SEAL_BYTES) as u64
    }

    fn open_verified(&self, key: &ArtifactKey, path: &Path) -> io::Result<Option<Artifact>> {
        let file = open_no_follow(path)?;
        let size = file.metadata()?.len();
        if !self.passes(key, &file, &file, size)? {
            return Ok(None);
        }
        let artifact = Artifact::of(file, size);
        artifact.note_use();
        Ok(Some(artifact))
    }

    fn passes(&self, key: &ArtifactKey, file: &File, bytes: &impl FileExt, size: u64) -> io::Result<bool> {
        let compatibility = self.compatibility(key.metering);
        Ok(is_private(file)? && self.key.verify(key, compatibility, bytes, size)?)
    }

    fn write(&self, key: &ArtifactKey, compiled: &[u8]) -> io::Result<()> {
        let path = self.path(key);
        let folder = self.root.join(self.compatibility(key.metering));
        let read_only = Permissions::from_mode(READ_ONLY);
        let temporary = || {
            Builder::new()
                .prefix(".")
                .permissions(read_only.clone())
                .tempfile_in(&folder)
        };
        // The folder may have been deleted since the start.
        let mut file = temporary().or_else(|_| self.make_folders().and_then(|()| temporary()))?;
        file.write_all(compiled)?;
        file.write_all(&self.key.seal(key, self.compatibility(key.metering), compiled))?;
        file.as_file().sync_data()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }

    fn remember(&self, key: ArtifactKey, artifact: Artifact, in_memory: bool) -> Artifact {
        let mut verified = self.lock();
        verified.put(
            key,
            Kept {
                artifact: artifact.clone(),
                in_memory,
            },
        );
        if in_memory {
            shrink_memory(&mut verified);
        }
        artifact
    }

    /// The folders may exist with a mode that lets others in.
    fn make_folders(&self) -> io::Result<()> {
        for (_, name) in &self.compatibility {
            let folder = self.root.join(name);
            make_private(&folder)?;
            fs::set_permissions(&self.root, Permissions::from_mode(0o700))?;
            fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        }
        Ok(())
    }

    fn sweep(&self) {
        let ours = |name: &str| self.compatibility.iter().any(|(_, ours)| ours == name);
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(ours) {
                sweep_files(&entry.path());
            } else {
                tracing::info!(folder = %entry.path().display(), "removing what another compiler compiled");
                remove_any(&entry.path());
            }
        }
    }

    fn path(&self, key: &ArtifactKey) -> PathBuf {
        let folder = self.root.join(self.compatibility(key.metering));
        folder.join(format!("{}.{}", key.digest.to_hex(), key.metering.as_str()))
    }

    fn compatibility(&self, metering: Metering) -> &str {
        &self.compatibility[metering as usize].1
    }

    fn disk_failed(&self, what: &str, error: &io::Error) {
        self.stats.disk_failures.inc();
        tracing::warn!(%error, "the local disk could not {what}");
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<ArtifactKey, Kept>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file as far as the kernel has it in memory; what would have to be read from the disk is an error.
struct InMemory<'a>(&'a File);

impl FileExt for InMemory<'_> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let into = &mut [IoSliceMut::new(buffer)];
        Ok(rustix::io::preadv2(self.0, into, offset, ReadWriteFlags::NOWAIT)?)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Forgets the least recently used of those in memory until they fit; the newest stays whatever its size.
fn shrink_memory(verified: &mut LruCache<ArtifactKey, Kept>) {
    let in_memory = verified.iter().filter(|(_, kept)| kept.in_memory);
    let mut bytes = 0;
    let mut excess = Vec::new();
    for (at, (key, kept)) in in_memory.enumerate() {
        bytes += kept.artifact.size_bytes;
        if at > 0 && bytes > MAX_MEMORY_BYTES {
            excess.push(*key);
        }
    }
    for key in excess {
        verified.pop(&key);
    }
}

/// An anonymous file that nobody can change any more.
fn in_memory(compiled: &[u8]) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create("wess-artifact", flags)?);
    file.write_all(compiled)?;
    let all = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, all)?;
    Ok(file)
}

fn found(entry: &fs::DirEntry) -> Option<Found> {
    let metadata = entry.metadata().ok()?;
    let last_used = metadata
        .modified()
        .ok()?
        .duration_since(UNIX_EPOCH)
        .ok()?
        .as_secs();
    let item = Item::Artifact(parse_name(entry.file_name().to_str()?)?);
    Some(Found {
        item,
        bytes: metadata.len(),
        last_used,
    })
}

fn parse_name(name: &str) -> Option<ArtifactKey> {
    let (hex, metering) = name.split_once('.')?;
    let metering = Metering::ALL
        .into_iter()
        .find(|known| known.as_str() == metering)?;
    Some(ArtifactKey {
        digest: format!("sha256:{hex}").parse().ok()?,
        metering,
    })
}

/// Removes what a crash left half written.
fn sweep_files(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_str().and_then(parse_name).is_none() {
            remove_any(&entry.path());
        }
    }
}

fn remove_any(path: &Path) {
    let folder = path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
    let result = if folder {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    if let Err(error) = result {
        tracing::warn!(%error, path = %path.display(), "cannot remove an old compiled file");
    }
}

#[cfg(test)]
#[path = "artifacts_tests.rs"]
mod tests;
