//! The mirror of `wess-modules`: what calls look up, without a lock and without waiting.
//!
//! Lists no version that no head lists. Its revision is the newest one up to which it has applied everything, so that
//! a record learned out of order (read from the leader, or written by ourselves) is used at once but not counted.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::watch;
use wess_schemas::module::{ModuleHead, ModuleVersion};
use wess_schemas::subject::ModuleKey;
use wess_schemas::{Digest, ModuleId, ModuleName, Reference, Tenant};

use super::listing::{Listing, Resolved};
use super::record::{Change, RawRecord, Record};
use crate::guest::Needs;

/// The mirror. Reads are lock-free; writes are rare and take turns.
pub(super) struct Catalog {
    names: papaya::HashMap<ModuleName, Arc<Listing>, foldhash::fast::RandomState>,
    ids: papaya::HashMap<ModuleId, Arc<Listing>>,
    digests: papaya::HashMap<Digest, Arc<Resolved>>,
    truth: Mutex<Truth>,
    revision: watch::Sender<u64>,
}

/// What the three maps are derived from.
#[derive(Default)]
struct Truth {
    modules: BTreeMap<ModuleName, Known>,
    holders: HashMap<Digest, BTreeSet<(ModuleName, u32)>>,
}

/// The records of one name, each at its revision.
#[derive(Default)]
struct Known {
    /// `None` when the module was deleted at that revision.
    head: (u64, Option<ModuleHead>),
    versions: BTreeMap<u32, (u64, Arc<ModuleVersion>)>,
}

impl Catalog {
    pub(super) fn new() -> Self {
        Self {
            names: papaya::HashMap::default(),
            ids: papaya::HashMap::new(),
            digests: papaya::HashMap::new(),
            truth: Mutex::default(),
            revision: watch::Sender::new(0),
        }
    }

    /// What a reference names, as far as is known here.
    pub(super) fn lookup(&self, reference: &Reference) -> Option<Arc<Resolved>> {
        let names = self.names.pin();
        let found = match reference {
            Reference::Latest(name) => names.get(name)?.latest()?,
            Reference::Version(name, version) => names.get(name)?.version(version.get())?,
            Reference::Tag(name, tag) => names.get(name)?.tagged(tag)?,
            Reference::Id(id) => return self.ids.pin().get(id)?.latest().cloned(),
            Reference::Digest(digest) => return self.digests.pin().get(digest).cloned(),
        };
        Some(found.clone())
    }

    /// The module of a name.
    pub(super) fn listing(&self, name: &ModuleName) -> Option<Arc<Listing>> {
        self.names.pin().get(name).cloned()
    }

    /// A module and version that has these bytes: the first by name.
    pub(super) fn holder(&self, digest: &Digest) -> Option<(ModuleName, u32)> {
        self.lock().holders.get(digest)?.first().cloned()
    }

    /// A module other than `name` whose newest version has one of these routes, and which one.
    pub(super) fn claimed<'a>(
        &self,
        routes: impl Iterator<Item = &'a String> + Clone,
        name: &ModuleName,
    ) -> Option<(ModuleName, &'a str)> {
        let truth = self.lock();
        let others = truth.modules.iter().filter(|(other, _)| *other != name);
        let mut heads = others.filter_map(|(other, known)| Some((other, known.head.1.as_ref()?)));
        heads.find_map(|(other, head)| {
            let route = routes.clone().find(|route| head.routes.contains(*route))?;
            Some((other.clone(), route.as_str()))
        })
    }

    /// Modules in the order of their names, after one of them, as many as pass `keep`; those of which it makes `None` are left out.
    pub(super) fn page<T>(
        &self,
        after: Option<&ModuleName>,
        prefix: &str,
        limit: usize,
        keep: impl Fn(&Listing) -> Option<T>,
    ) -> Vec<T> {
        let truth = self.lock();
        let start = match after {
            Some(after) if after.as_str() >= prefix => Bound::Excluded(after.as_str()),
            _ => Bound::Included(prefix),
        };
        let names = self.names.pin();
        truth
            .modules
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(name, _)| name.as_str().starts_with(prefix))
            .filter_map(|(name, _)| keep(names.get(name)?))
            .take(limit)
            .collect()
    }

    /// The revision, to be read or followed.
    pub(super) fn revision(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// All records, to be written to disk, and the revision up to which they are complete.
    pub(super) fn snapshot(&self) -> (u64, Vec<RawRecord>) {
        let truth = self.lock();
        (*self.revision.borrow(), truth.records().collect())
    }

    /// Which engines the calls of all modules' newest versions need.
    pub(super) fn needs(&self) -> HashSet<Needs> {
        let names = self.names.pin();
        let newest = names.values().filter_map(|listing| listing.latest());
        newest.filter_map(|module| module.needs()).collect()
    }

    /// How many modules there are.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Takes the next change in order. One that says nothing still moves the revision.
    pub(super) fn follow(&self, revision: u64, change: Option<Change>) {
        if let Some(change) = change {
            let (ModuleKey::Head(_, name) | ModuleKey::Version(_, name, _)) = &change.key;
            let name = name.clone();
            self.learn(change);
            self.lock().forget_deleted(&name, revision);
        }
        self.revision.send_replace(revision);
    }

    /// Takes a change out of order: it is applied unless something newer is known.
    pub(super) fn learn(&self, change: Change) {
        let mut truth = self.lock();
        let (ModuleKey::Head(tenant, name) | ModuleKey::Version(tenant, name, _)) = &change.key;
        if tenant.is_default() && truth.learn(name, &change) {
            self.refresh(&mut truth, name);
        }
    }

    /// Takes a full replay: what is not in it is gone.
    pub(super) fn replace(&self, revision: u64, changes: Vec<Change>) {
        let mut truth = self.lock();
        let before = std::mem::take(&mut truth.modules);
        for change in changes {
            let (ModuleKey::Head(tenant, name) | ModuleKey::Version(tenant, name, _)) = &change.key;
            if tenant.is_default() {
                truth.learn(name, &change);
            }
        }
        truth.share_with(&before);
        let names: BTreeSet<ModuleName> = before.into_keys().chain(truth.modules.keys().cloned()).collect();
        for name in &names {
            self.refresh(&mut truth, name);
        }
        drop(truth);
        self.revision.send_replace(revision);
    }

    /// Derives the maps' entries of one name anew.
    fn refresh(&self, truth: &mut Truth, name: &ModuleName) {
        let (names, ids) = (self.names.pin(), self.ids.pin());
        let before = names.get(name).cloned();
        let after = truth.list(name, before.as_deref()).map(Arc::new);
        if let Some(before) = &before {
            truth.release(before);
        }
        match &after {
            Some(listing) => {
                truth.hold(listing);
                names.insert(name.clone(), listing.clone());
                ids.insert(listing.head.id, listing.clone());
            }
            None => {
                names.remove(name);
            }
        }
        if let Some(before) = before {
            let renewed = after
                .as_ref()
                .is_some_and(|after| after.head.id == before.head.id);
            if !renewed {
                ids.remove(&before.head.id);
            }
            self.refresh_digests(truth, &before);
        }
        if let Some(after) = after {
            self.refresh_digests(truth, &after);
        }
    }

    fn refresh_digests(&self, truth: &Truth, listing: &Listing) {
        let digests = self.digests.pin();
        for record in listing.records() {
            if !truth.holders.contains_key(&record.digest) {
                digests.remove(&record.digest);
            } else if !digests.contains_key(&record.digest) {
                digests.insert(record.digest, Arc::new(Resolved::anonymous(record)));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Truth> {
        self.truth.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Truth {
    /// Whether anything changed.
    fn learn(&mut self, name: &ModuleName, change: &Change) -> bool {
        let known = self.modules.entry(name.clone()).or_default();
        match (&change.key, &change.record) {
            (ModuleKey::Head(..), Record::Head(head)) => known.learn_head(change.revision, Some(head)),
            (ModuleKey::Head(..), Record::Gone) => known.learn_head(change.revision, None),
            (ModuleKey::Version(_, _, number), Record::Version(version)) => {
                known.learn_version(number.get(), change.revision, version)
            }
            (ModuleKey::Version(_, _, number), Record::Gone) => {
                known.forget_version(number.get(), change.revision)
            }
            (ModuleKey::Head(..), Record::Version(_)) | (ModuleKey::Version(..), Record::Head(_)) => false,
        }
    }

    fn list(&self, name: &ModuleName, before: Option<&Listing>) -> Option<Listing> {
        let known = self.modules.get(name)?;
        let head = known.head.1.as_ref()?;
        let record = |number| known.versions.get(&number).map(|(_, record)| record.clone());
        Some(Listing::new(name, head, record, before))
    }

    fn hold(&mut self, listing: &Listing) {
        for record in listing.records() {
            let holders = self.holders.entry(record.digest).or_default();
            holders.insert((listing.name.clone(), record.version));
        }
    }

    fn release(&mut self, listing: &Listing) {
        for record in listing.records() {
            let Some(holders) = self.holders.get_mut(&record.digest) else {
                continue;
            };
            holders.remove(&(listing.name.clone(), record.version));
            if holders.is_empty() {
                self.holders.remove(&record.digest);
            }
        }
    }

    /// Keeps the allocations of records that a replay only repeated.
    fn share_with(&mut self, before: &BTreeMap<ModuleName, Known>) {
        for (name, known) in &mut self.modules {
            let Some(before) = before.get(name) else { continue };
            for (number, (_, record)) in &mut known.versions {
                if let Some((_, same)) = before.versions.get(number).filter(|(_, old)| old == record) {
                    *record = same.clone();
                }
            }
        }
    }

    /// Drops a name that was deleted, once nothing older can arrive any more.
    fn forget_deleted(&mut self, name: &ModuleName, revision: u64) {
        let gone =
            |known: &Known| known.head.1.is_none() && known.head.0 <= revision && known.versions.is_empty();
        if self.modules.get(name).is_some_and(gone) {
            self.modules.remove(name);
        }
    }

    fn records(&self) -> impl Iterator<Item = RawRecord> {
        self.modules.iter().flat_map(|(name, known)| {
            let head = known.head.1.as_ref();
            let head = head.map(|head| {
                raw(
                    ModuleKey::Head(Tenant::default(), name.clone()),
                    known.head.0,
                    head,
                )
            });
            let versions = known.versions.iter().filter_map(|(number, (revision, version))| {
                let key = ModuleKey::Version(Tenant::default(), name.clone(), (*number).try_into().ok()?);
                Some(raw(key, *revision, &**version))
            });
            head.into_iter().chain(versions)
        })
    }
}

fn raw(key: ModuleKey, revision: u64, record: &impl Serialize) -> RawRecord {
    let value = serde_json::to_vec(record).ok().map(Bytes::from);
    RawRecord {
        key: key.to_string(),
        revision,
        value,
    }
}

impl Known {
    fn learn_head(&mut self, revision: u64, head: Option<&ModuleHead>) -> bool {
        if revision <= self.head.0 {
            return false;
        }
        let before = std::mem::replace(&mut self.head, (revision, head.cloned()));
        match (before.1, head) {
            (_, None) => self.versions.retain(|_, (at, _)| *at > revision),
            // Deleted and stored again unseen: what the older module's head listed is not the new one's.
            (Some(old), Some(new)) if old.id != new.id => self.versions.retain(|_, (at, _)| *at > before.0),
            (_, Some(_)) => (),
        }
        true
    }

    fn learn_version(&mut self, number: u32, revision: u64, version: &ModuleVersion) -> bool {
        let newer = self.versions.get(&number).is_none_or(|(at, _)| revision > *at);
        if newer {
            self.versions
                .insert(number, (revision, Arc::new(version.clone())));
        }
        newer
    }

    fn forget_version(&mut self, number: u32, revision: u64) -> bool {
        let older = self.versions.get(&number).is_some_and(|(at, _)| revision > *at);
        older && self.versions.remove(&number).is_some()
    }
}

#[cfg(test)]
#[path = "catalog_tests.rs"]
mod tests;
