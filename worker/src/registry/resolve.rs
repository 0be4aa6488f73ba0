//! The slow paths of a call: from a reference that the catalog does not know to its record, and from a digest to
//! compiled code.
//!
//! Concurrent callers share one load. No path runs on a thread that answers calls, and each is bounded.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use wess_schemas::error::ErrorBody;
use wess_schemas::error_code::ErrorCode;
use wess_schemas::module::ModuleHead;
use wess_schemas::subject::ModuleKey;
use wess_schemas::{Digest, ModuleName, Reference, Tenant};

use super::Registry;
use super::artifacts::{Artifact, ArtifactKey, Artifacts};
use super::budget::Item;
use super::listing::Resolved;
use super::record::{Change, Record};
use super::records::Current;
use crate::guest::Metering;

/// How long a lookup by id or digest waits for the catalog to catch up with the leader.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(1);

impl Registry {
    /// What a reference names, if the catalog knows it. Never blocks: this is the hot path.
    pub fn lookup(&self, reference: &Reference) -> Option<Arc<Resolved>> {
        self.0.catalog.lookup(reference)
    }

    /// What a reference names: by the catalog, else by the leader of the records.
    pub async fn resolve(&self, reference: &Reference) -> Result<Arc<Resolved>, ErrorBody> {
        if let Some(found) = self.lookup(reference) {
            return Ok(found);
        }
        let _pass = self.0.lookups.enter().await?;
        match reference {
            Reference::Id(_) | Reference::Digest(_) => self.catch_up().await?,
            Reference::Latest(name) => self.learn_module(name, |head| Some(head.latest())).await?,
            Reference::Tag(name, tag) => {
                self.learn_module(name, |head| head.tags_with_latest().get(tag).copied())
                    .await?
            }
            Reference::Version(name, version) => {
                let version = version.get();
                self.learn_module(name, |head| head.versions.contains(&version).then_some(version))
                    .await?;
            }
        }
        self.lookup(reference).ok_or_else(|| self.not_found(reference))
    }

    /// Compiled code, verified. Concurrent callers share one load, which goes on when they do not wait for it.
    pub async fn artifact(&self, digest: Digest, metering: Metering) -> Result<Artifact, ErrorBody> {
        self.artifact_of(ArtifactKey { digest, metering }, None).await
    }

    /// Compiled code that is verified, if it needs only to be looked for on this disk. Blocks: for callers that have a thread
    /// for that, and save the way to another.
    pub fn artifact_at_hand(&self, digest: Digest, metering: Metering) -> Option<Artifact> {
        let key = ArtifactKey { digest, metering };
        let artifact = self.0.artifacts.at_hand(key)?;
        self.0.budget.touch(Item::Artifact(key));
        Some(artifact)
    }

    /// As [`Registry::artifact_at_hand`], if it is small and in memory: for callers that may not block. They see to it that its
    /// use is noted.
    pub fn artifact_at_once(&self, digest: Digest, metering: Metering) -> Option<Artifact> {
        let key = ArtifactKey { digest, metering };
        let artifact = self.0.artifacts.at_once(key)?;
        self.0.budget.touch(Item::Artifact(key));
        Some(artifact)
    }

    /// As [`Registry::artifact`], from bytes at hand.
    pub(super) async fn artifact_of(
        &self,
        key: ArtifactKey,
        wasm: Option<Bytes>,
    ) -> Result<Artifact, ErrorBody> {
        if let Some(verified) = self.0.artifacts.verified(&key) {
            return Ok(verified);
        }
        let registry = self.clone();
        // Whoever brings the bytes does not share the fate of a load that has to find them first.
        self.0
            .loads
            .join(
                (key, wasm.is_some()),
                || async move { registry.load(key, wasm).await },
            )
            .await
    }

    async fn load(&self, key: ArtifactKey, wasm: Option<Bytes>) -> Result<Artifact, ErrorBody> {
        let item = Item::Artifact(key);
        if let Some(artifact) = self.with_artifacts(move |artifacts| artifacts.load(key)).await? {
            self.0.budget.touch(item);
            return Ok(artifact);
        }
        self.0.budget.remove(item);
        let _pass = self.0.compiles.enter().await?;
        let wasm = match wasm {
            Some(wasm) => wasm,
            None => self.wasm(key.digest).await?,
        };
        let compiled = self.0.compiler.compile(wasm, key.metering).await?;
        self.keep_artifact(key, compiled).await
    }

    /// A module's bytes, from the nearest place that has them.
    async fn wasm(&self, digest: Digest) -> Result<Bytes, ErrorBody> {
        let item = Item::Blob(digest);
        if let Some(bytes) = self.0.disk.run(move |disk| disk.blob(digest)).await.flatten() {
            self.0.budget.touch(item);
            return Ok(bytes);
        }
        self.0.budget.remove(item);
        let bytes = self.0.blobs.fetch(digest).await?;
        self.keep_blob(digest, bytes.clone()).await;
        Ok(bytes)
    }

    /// Whether some module has these bytes, as far as this worker has heard.
    pub fn holds(&self, digest: &Digest) -> Result<(), ErrorBody> {
        match self.0.catalog.holder(digest) {
            Some(_) => Ok(()),
            None => Err(self.not_found(&Reference::Digest(*digest))),
        }
    }

    /// The bytes of a module that is stored.
    pub async fn bytes(&self, digest: Digest) -> Result<Bytes, ErrorBody> {
        self.resolve(&Reference::Digest(digest)).await?;
        self.wasm(digest).await
    }

    /// Keeps bytes on the local disk, as far as it takes them.
    pub(super) async fn keep_blob(&self, digest: Digest, bytes: Bytes) {
        let item = Item::Blob(digest);
        if self.0.budget.touch(item) {
            return;
        }
        let Some(evicted) = self.0.budget.admit(item, bytes.len() as u64) else {
            return;
        };
        let kept = self.0.disk.run(move |disk| disk.keep_blob(digest, &bytes)).await;
        if kept != Some(true) {
            self.0.budget.remove(item);
        }
        self.evict(evicted).await;
    }

    async fn keep_artifact(&self, key: ArtifactKey, compiled: Vec<u8>) -> Result<Artifact, ErrorBody> {
        let evicted = self
            .0
            .budget
            .admit(Item::Artifact(key), Artifacts::file_bytes(&compiled));
        let on_disk = evicted.is_some();
        self.evict(evicted.unwrap_or_default()).await;
        let kept = self
            .with_artifacts(move |artifacts| artifacts.keep(key, &compiled, on_disk))
            .await?;
        kept.map_err(|error| {
            tracing::error!(%error, "a compiled module can be kept neither on disk nor in memory");
            ErrorBody::new(
                ErrorCode::Unavailable,
                "this worker has room for the module neither on disk nor in memory",
            )
        })
    }

    /// Removes local copies that had to go.
    pub(super) async fn evict(&self, evicted: Vec<Item>) {
        for item in evicted {
            self.0.stats.disk_evictions.inc();
            match item {
                Item::Blob(digest) => drop(self.0.disk.run(move |disk| disk.forget_blob(digest)).await),
                Item::Artifact(key) => {
                    drop(self.with_artifacts(move |artifacts| artifacts.remove(&key)).await)
                }
            }
        }
    }

    /// Runs what may block on a thread that may.
    async fn with_artifacts<T: Send + 'static>(
        &self,
        task: impl FnOnce(&Artifacts) -> T + Send + 'static,
    ) -> Result<T, ErrorBody> {
        let artifacts = self.0.artifacts.clone();
        let done = tokio::task::spawn_blocking(move || task(&artifacts)).await;
        done.map_err(|_| ErrorBody::new(ErrorCode::Unavailable, "this worker is stopping"))
    }

    /// Learns a module's head and one of its versions from the leader.
    async fn learn_module(
        &self,
        name: &ModuleName,
        which: impl FnOnce(&ModuleHead) -> Option<u32>,
    ) -> Result<(), ErrorBody> {
        let current = self.0.records.head(name).await?;
        let wanted = current.record.as_ref().and_then(which);
        self.learn_head(name, current);
        match wanted {
            Some(number) => self.learn_versions(name, [number]).await,
            None => Ok(()),
        }
    }

    /// Learns the records of versions that the catalog misses.
    pub(super) async fn learn_versions(
        &self,
        name: &ModuleName,
        numbers: impl IntoIterator<Item = u32>,
    ) -> Result<(), ErrorBody> {
        for number in numbers {
            let known = |listing: Arc<super::listing::Listing>| listing.version(number).is_some();
            if self.0.catalog.listing(name).is_some_and(known) {
                continue;
            }
            let Current { revision, record } = self.0.records.version(name, number).await?;
            if let (Some(version), Ok(key)) = (record, number.try_into()) {
                let key = ModuleKey::Version(Tenant::default(), name.clone(), key);
                self.0.catalog.learn(Change {
                    key,
                    revision,
                    record: Record::Version(Box::new(version)),
                });
            }
        }
        Ok(())
    }

    pub(super) fn learn_head(&self, name: &ModuleName, current: Current<ModuleHead>) {
        let key = ModuleKey::Head(Tenant::default(), name.clone());
        let record = current.record.map_or(Record::Gone, Record::Head);
        if current.revision > 0 {
            self.0.catalog.learn(Change {
                key,
                revision: current.revision,
                record,
            });
        }
    }

    /// Waits until the catalog is where the leader is.
    async fn catch_up(&self) -> Result<(), ErrorBody> {
        let target = self.0.records.last_revision().await?;
        let mut revision = self.0.catalog.revision();
        let caught_up = revision.wait_for(|revision| *revision >= target);
        match tokio::time::timeout(CATCH_UP_TIMEOUT, caught_up).await {
            Ok(_) => Ok(()),
            Err(_) => Err(ErrorBody::new(
                ErrorCode::Unavailable,
                "this worker has not heard of all modules yet",
            )),
        }
    }

    /// Says what of a reference is missing.
    pub(super) fn not_found(&self, reference: &Reference) -> ErrorBody {
        let known = reference
            .name()
            .is_some_and(|name| self.0.catalog.listing(name).is_some());
        let text = match reference {
            Reference::Version(name, version) if known => format!("{name} has no version {version}"),
            Reference::Tag(name, tag) if known => format!("{name} has no tag {tag}"),
            _ => format!("there is no module {reference}"),
        };
        ErrorBody::new(ErrorCode::ModuleNotFound, text)
    }
}
