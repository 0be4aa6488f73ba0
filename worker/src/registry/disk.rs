//! The local copy of bytes and catalog, in RocksDB. A cache: it may be deleted, corrupt or full at any time.
//!
//! Nothing here fails a call: what cannot be read is a miss, what cannot be written is counted. A database that is
//! broken is thrown away and made anew. All calls block; [`Disk::run`] puts them on a thread that may.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, BottommostLevelCompaction, Cache, ColumnFamily, ColumnFamilyDescriptor,
    CompactOptions, DB, DBCompressionType, ErrorKind, IteratorMode, LogLevel, Options, WriteBatch,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;
use wess_schemas::Digest;

use super::budget::{Found, Item};
use super::keys::{self, BLOBS, CATALOG, CATALOG_REVISION, USES, Use};
use super::record::RawRecord;
use super::stats::RegistryStats;

/// Shared by all column families. Blobs are read once per start and module, so there is little to cache.
const BLOCK_CACHE_BYTES: usize = 1024 * 1024;
const WRITE_BUFFER_BYTES: usize = 1024 * 1024;
const MAX_WAL_BYTES: u64 = 8 * 1024 * 1024;
const TARGET_FILE_BYTES: u64 = 32 * 1024 * 1024;
const MAX_OPEN_FILES: i32 = 64;
/// A broken database is opened again at most so often.
const REPAIR_INTERVAL: Duration = Duration::from_secs(10);
/// With less room than this on its file system, a database that fails is taken to be out of room, not broken.
const MIN_FREE_BYTES: u64 = 16 * 1024 * 1024;
/// A last use is written again only when it is older than this.
const USE_RESOLUTION_SECS: u64 = 60 * 60;

/// The database. Cheap to clone.
#[derive(Clone)]
pub(super) struct Disk(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    stats: RegistryStats,
    /// `None` while it cannot be opened.
    db: RwLock<Option<DB>>,
    last_repair: Mutex<Option<Instant>>,
    reopened: Notify,
    /// What keeps other processes away. Dropped after the database.
    _lock: Box<dyn Send + Sync>,
}

/// Why one operation failed.
#[derive(Debug, thiserror::Error)]
enum DiskError {
    #[error(transparent)]
    RocksDb(#[from] rocksdb::Error),
    #[error("the database has no column {0}")]
    NoColumn(&'static str),
}

impl DiskError {
    fn is_corruption(&self) -> bool {
        match self {
            Self::RocksDb(error) => error.kind() == ErrorKind::Corruption,
            Self::NoColumn(_) => true,
        }
    }
}

impl Disk {
    /// Opens the database within a data folder, which only this process may use. Never fails: see the module's head.
    ///
    /// `lock` keeps others away and is held until the database is closed.
    pub(super) fn open(data: &Path, lock: impl Send + Sync + 'static, stats: RegistryStats) -> Self {
        let folder = data.join(keys::FOLDER);
        let db = open_or_recreate(&folder, &stats);
        let (last_repair, reopened) = (Mutex::default(), Notify::new());
        Self(Arc::new(Inner {
            folder,
            stats,
            db: RwLock::new(db),
            last_repair,
            reopened,
            _lock: Box::new(lock),
        }))
    }

    /// Runs `task` on a thread that may block; `None` only while the process is going down.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        task: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Option<T> {
        let disk = self.clone();
        tokio::task::spawn_blocking(move || task(&disk)).await.ok()
    }

    /// Waits until the database was opened anew: it may miss what was written meanwhile, or everything.
    pub(super) async fn reopened(&self) {
        self.0.reopened.notified().await;
    }

    /// Bytes by their digest, verified.
    pub(super) fn blob(&self, digest: Digest) -> Option<Bytes> {
        let bytes = self.0.attempt("read a module", |db| {
            let found = db.get_pinned_cf(column(db, BLOBS)?, digest.as_bytes())?;
            Ok(found.map(|bytes| Bytes::copy_from_slice(&bytes)))
        })??;
        if Sha256::digest(&bytes)[..] == digest.as_bytes()[..] {
            self.note_use(digest, bytes.len() as u64);
            return Some(bytes);
        }
        tracing::warn!(%digest, "the local copy of a module is damaged: dropping it");
        self.0.stats.disk_failures.inc();
        self.forget_blob(digest);
        None
    }

    /// Keeps bytes; whether it could.
    pub(super) fn keep_blob(&self, digest: Digest, bytes: &[u8]) -> bool {
        let usage = Use {
            bytes: bytes.len() as u64,
            last_used: now(),
        };
        let kept = self.0.attempt("keep a module", |db| {
            let mut batch = WriteBatch::default();
            batch.put_cf(column(db, BLOBS)?, digest.as_bytes(), bytes);
            batch.put_cf(column(db, USES)?, digest.as_bytes(), usage.encode());
            Ok(db.write(batch)?)
        });
        kept.is_some()
    }

    /// Drops bytes, and has their room given back.
    pub(super) fn forget_blob(&self, digest: Digest) {
        let key = digest.as_bytes();
        self.0.attempt("drop a module", |db| {
            let blobs = column(db, BLOBS)?;
            db.delete_cf(blobs, key)?;
            db.delete_cf(column(db, USES)?, key)?;
            db.flush_cf(blobs)?;
            // Without this, files are only moved down, with what was deleted still in them.
            let mut rewrite = CompactOptions::default();
            rewrite.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
            db.compact_range_cf_opt(blobs, Some(key), Some(key), &rewrite);
            Ok(())
        });
    }

    /// What blobs there are.
    pub(super) fn blobs(&self) -> Vec<Found> {
        let found = self.0.attempt("list modules", |db| {
            let entries = db.iterator_cf(column(db, USES)?, IteratorMode::Start);
            let found = entries.map(|entry| entry.map(|(key, value)| decode_use(&key, &value)));
            Ok(found.collect::<Result<Vec<_>, _>>()?)
        });
        found.into_iter().flatten().flatten().collect()
    }

    /// The catalog as it was last saved, and its revision.
    pub(super) fn catalog(&self) -> (u64, Vec<RawRecord>) {
        let found = self.0.attempt("read the catalog", |db| {
            let column = column(db, CATALOG)?;
            let revision = db.get_cf(column, CATALOG_REVISION)?;
            let entries = db.iterator_cf(column, IteratorMode::Start);
            let records = entries.map(|entry| entry.map(|(key, value)| keys::decode_record(&key, &value)));
            Ok((revision, records.collect::<Result<Vec<_>, _>>()?))
        });
        let (revision, records) = found.unwrap_or_default();
        let revision = revision
            .and_then(|revision| keys::decode_revision(&revision))
            .unwrap_or(0);
        let named = |record: &RawRecord| record.key.as_bytes() != CATALOG_REVISION;
        (revision, records.into_iter().flatten().filter(named).collect())
    }

    /// Saves changes of the catalog, complete up to a revision; whether it could.
    pub(super) fn save(&self, revision: u64, changes: &[RawRecord]) -> bool {
        let saved = self.0.attempt("save the catalog", |db| {
            let mut batch = WriteBatch::default();
            stage(db, &mut batch, revision, changes)?;
            Ok(db.write(batch)?)
        });
        saved.is_some()
    }

    /// Saves the whole catalog in place of the one saved before; whether it could.
    pub(super) fn replace(&self, revision: u64, records: &[RawRecord]) -> bool {
        let saved = self.0.attempt("save the catalog", |db| {
            let column = column(db, CATALOG)?;
            let mut batch = WriteBatch::default();
            for entry in db.iterator_cf(column, IteratorMode::Start) {
                batch.delete_cf(column, entry?.0);
            }
            stage(db, &mut batch, revision, records)?;
            Ok(db.write(batch)?)
        });
        saved.is_some()
    }

    fn note_use(&self, digest: Digest, bytes: u64) {
        let key = digest.as_bytes();
        self.0.attempt("note a module's use", |db| {
            let column = column(db, USES)?;
            let before = db.get_cf(column, key)?.and_then(|value| Use::decode(&value));
            let usage = Use {
                bytes,
                last_used: now(),
            };
            match before {
                Some(before) if usage.last_used < before.last_used.saturating_add(USE_RESOLUTION_SECS) => {
                    Ok(())
                }
                _ => Ok(db.put_cf(column, key, usage.encode())?),
            }
        });
    }
}

impl Inner {
    /// Runs one operation; a failure is counted, logged, and repaired as far as that can help.
    fn attempt<T>(&self, what: &str, operation: impl FnOnce(&DB) -> Result<T, DiskError>) -> Option<T> {
        if self.read().is_none() {
            self.repair(false);
        }
        let result = self.read().as_ref().map(operation)?;
        result.map_err(|error| self.failed(what, &error)).ok()
    }

    fn failed(&self, what: &str, error: &DiskError) {
        self.stats.disk_failures.inc();
        tracing::warn!(%error, "the local disk could not {what}");
        let broken = error.is_corruption() || !self.folder.join("CURRENT").exists();
        if broken || has_room(&self.folder) {
            self.repair(broken);
        }
    }

    /// Opens the database again: after some failures it refuses every write until then.
    fn repair(&self, throw_away: bool) {
        let mut last_repair = self.last_repair.lock().unwrap_or_else(PoisonError::into_inner);
        if last_repair.is_some_and(|last| last.elapsed() < REPAIR_INTERVAL) {
            return;
        }
        *last_repair = Some(Instant::now());
        let mut db = self.write();
        *db = None;
        if throw_away {
            self.stats.disk_repairs.inc();
            remove(&self.folder);
        }
        *db = open_or_recreate(&self.folder, &self.stats);
        if db.is_some() {
            self.reopened.notify_one();
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Option<DB>> {
        self.db.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Option<DB>> {
        self.db.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_or_recreate(folder: &Path, stats: &RegistryStats) -> Option<DB> {
    // What a crash during a repair left behind.
    drop(remove_folder(&folder.with_extension("broken")));
    let error = match open(folder) {
        Ok(db) => return Some(db),
        Err(error) => error,
    };
    if error.kind() == ErrorKind::IOError && folder.exists() && !has_room(folder) {
        tracing::warn!(%error, "the local disk is full: working without a local cache");
        return None;
    }
    tracing::warn!(%error, folder = %folder.display(), "the local cache is broken: making a new one");
    stats.disk_repairs.inc();
    remove(folder);
    open(folder)
        .inspect_err(|error| tracing::error!(%error, "working without a local cache"))
        .ok()
}

fn open(folder: &Path) -> Result<DB, rocksdb::Error> {
    let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
    let column = |name| ColumnFamilyDescriptor::new(name, column_options(&cache));
    DB::open_cf_descriptors(&options(), folder, [BLOBS, USES, CATALOG, "default"].map(column))
}

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_open_files(MAX_OPEN_FILES);
    options.set_max_total_wal_size(MAX_WAL_BYTES);
    options.set_keep_log_file_num(1);
    options.set_log_level(LogLevel::Warn);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_skip_stats_update_on_db_open(true);
    options
}

fn column_options(cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_cache_index_and_filter_blocks(true);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_target_file_size_base(TARGET_FILE_BYTES);
    options.set_compression_type(DBCompressionType::Lz4);
    options
}

/// Without room a database can be read, but not opened: it is left as it is until there is some.
fn has_room(folder: &Path) -> bool {
    rustix::fs::statvfs(folder).map_or(true, |disk| {
        disk.f_bavail.saturating_mul(disk.f_frsize) >= MIN_FREE_BYTES
    })
}

/// Moved aside first, so that a crash in between leaves no half of it under its name.
fn remove(folder: &Path) {
    let aside = folder.with_extension("broken");
    let result = remove_folder(&aside)
        .and_then(|()| std::fs::rename(folder, &aside))
        .and_then(|()| remove_folder(&aside));
    if let Err(error) = result
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, folder = %folder.display(), "cannot remove the broken cache");
    }
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn column<'a>(db: &'a DB, name: &'static str) -> Result<&'a ColumnFamily, DiskError> {
    db.cf_handle(name).ok_or(DiskError::NoColumn(name))
}

fn stage(db: &DB, batch: &mut WriteBatch, revision: u64, changes: &[RawRecord]) -> Result<(), DiskError> {
    let column = column(db, CATALOG)?;
    for RawRecord { key, revision, value } in changes {
        match value {
            Some(value) => batch.put_cf(column, key, keys::encode_record(*revision, value)),
            None => batch.delete_cf(column, key),
        }
    }
    batch.put_cf(column, CATALOG_REVISION, revision.to_be_bytes());
    Ok(())
}

fn decode_use(key: &[u8], value: &[u8]) -> Option<Found> {
    let Use { bytes, last_used } = Use::decode(value)?;
    Some(Found {
        item: Item::Blob(keys::decode_digest(key)?),
        bytes,
        last_used,
    })
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
