//! What is known of one module, ready to be called: its head, and each listed version whose record is known.
//!
//! Built anew at each change and never changed after; what did not change is shared with the listing before.

use std::collections::BTreeMap;
use std::sync::Arc;

use wess_schemas::chain::StoredChain;
use wess_schemas::module::{Abi, FunctionExport, Module, ModuleHead, ModuleSummary, ModuleVersion};
use wess_schemas::settings::Settings;
use wess_schemas::wit::ComponentInterface;
use wess_schemas::{Digest, Limits, ModuleId, ModuleName, Tag, export};

use crate::guest::abi::Callable;
use crate::guest::{Metering, Needs};
use crate::secrets::Secrets;

/// Everything that a call needs to know of the module that it names.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The module's name; `None` when it was named by digest.
    pub name: Option<ModuleName>,
    /// The module's id; `None` when it was named by digest.
    pub id: Option<ModuleId>,
    /// The version; `None` when it was named by digest.
    pub version: Option<u32>,
    /// The bytes.
    pub digest: Digest,
    /// How many they are.
    pub size: u64,
    /// How to call it.
    pub abi: Abi,
    /// What it exports, unless it is a component.
    pub exports: Vec<FunctionExport>,
    /// What it exports if it is one; without its text.
    pub component: Option<Arc<ComponentInterface>>,
    /// Its steps if it is a chain.
    pub chain: Option<Arc<StoredChain>>,
    /// Its own limits; none when it was named by digest.
    pub limits: Limits,
    /// What its guests are given, and what they may reach; nothing when it was named by digest.
    pub settings: Settings,
    /// Its secrets, once a call has needed them.
    pub secrets: Secrets,
}

impl Resolved {
    /// How it is compiled for a call with so much fuel.
    pub fn metering(&self, fuel: Option<u64>) -> Metering {
        Metering::of(self.abi, self.size, self.settings.deterministic, fuel)
    }

    /// Whether it is a component.
    pub fn is_component(&self) -> bool {
        self.abi == Abi::Http || self.component.is_some()
    }

    /// Which engines its calls need, unless they ask for fuel; a chain's need none.
    pub(super) fn needs(&self) -> Option<Needs> {
        (self.abi != Abi::Chain).then(|| Needs {
            metering: self.metering(None),
            is_component: self.is_component(),
        })
    }

    /// The same bytes, named by nothing but their digest.
    pub(super) fn anonymous(record: &ModuleVersion) -> Self {
        Self {
            name: None,
            id: None,
            version: None,
            digest: record.digest,
            size: record.size,
            abi: record.abi,
            exports: record.exports.clone(),
            component: record.component.as_ref().map(|component| {
                Arc::new(ComponentInterface {
                    types: component.types.clone(),
                    functions: component.functions.clone(),
                    wit: None,
                })
            }),
            chain: record.chain.clone().map(Arc::new),
            limits: Limits::default(),
            settings: Settings::default(),
            secrets: Secrets::default(),
        }
    }

    /// How to call it.
    pub fn callable(&self) -> Callable<'_> {
        Callable {
            abi: self.abi,
            exports: &self.exports,
            component: self.component.as_ref(),
        }
    }
}

/// One module.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) name: ModuleName,
    pub(super) head: ModuleHead,
    versions: BTreeMap<u32, Listed>,
}

#[derive(Debug, Clone)]
struct Listed {
    record: Arc<ModuleVersion>,
    resolved: Arc<Resolved>,
}

impl Listing {
    /// Lists what `head` lists and `record` knows.
    pub(super) fn new(
        name: &ModuleName,
        head: &ModuleHead,
        record: impl Fn(u32) -> Option<Arc<ModuleVersion>>,
        before: Option<&Self>,
    ) -> Self {
        let mut listing = Self {
            name: name.clone(),
            head: head.clone(),
            versions: BTreeMap::new(),
        };
        let known = head
            .versions
            .iter()
            .filter_map(|number| Some((*number, record(*number)?)));
        listing.versions = known
            .map(|(number, record)| (number, listing.list(record, before)))
            .collect();
        listing
    }

    fn list(&self, record: Arc<ModuleVersion>, before: Option<&Self>) -> Listed {
        let same = |before: &&Self| before.head.id == self.head.id;
        let listed = before
            .filter(same)
            .and_then(|before| before.versions.get(&record.version));
        match listed.filter(|listed| Arc::ptr_eq(&listed.record, &record)) {
            Some(unchanged) => unchanged.clone(),
            None => Listed {
                resolved: Arc::new(self.resolve(&record)),
                record,
            },
        }
    }

    fn resolve(&self, record: &ModuleVersion) -> Resolved {
        Resolved {
            name: Some(self.name.clone()),
            id: Some(self.head.id),
            version: Some(record.version),
            limits: self.limits(record),
            settings: record.settings.clone(),
            ..Resolved::anonymous(record)
        }
    }

    /// A version's own limits, or those of all versions from before each had its own.
    fn limits(&self, record: &ModuleVersion) -> Limits {
        match record.limits.is_empty() {
            true => self.head.limits,
            false => record.limits,
        }
    }

    /// The newest version; `None` while its record is not known.
    pub(super) fn latest(&self) -> Option<&Arc<Resolved>> {
        self.version(self.head.latest())
    }

    /// A version by its number.
    pub(super) fn version(&self, number: u32) -> Option<&Arc<Resolved>> {
        self.versions.get(&number).map(|listed| &listed.resolved)
    }

    /// The version that a tag names.
    pub(super) fn tagged(&self, tag: &Tag) -> Option<&Arc<Resolved>> {
        if tag.is_latest() {
            return self.latest();
        }
        self.version(*self.head.tags.get(tag)?)
    }

    /// The records of all versions that are listed here.
    pub(super) fn records(&self) -> impl Iterator<Item = &Arc<ModuleVersion>> {
        self.versions.values().map(|listed| &listed.record)
    }

    /// Numbers that the head lists and whose records are not known.
    pub(super) fn missing(&self) -> impl Iterator<Item = u32> {
        self.head
            .versions
            .iter()
            .copied()
            .filter(|number| !self.versions.contains_key(number))
    }

    /// The module as clients see it, about one of its versions.
    pub(super) fn module(&self, number: u32) -> Option<Module> {
        let record = &self.versions.get(&number)?.record;
        Some(Module {
            id: self.head.id,
            name: self.name.clone(),
            version: record.version,
            digest: record.digest,
            size: record.size,
            abi: record.abi,
            tags: self.head.tags_with_latest(),
            versions: self.records().map(|record| record.summary()).collect(),
            exports: export::describe(record),
            wit: record
                .component
                .as_ref()
                .and_then(|component| component.wit.clone()),
            chain: record.chain.clone(),
            limits: self.limits(record),
            settings: record.settings.clone(),
            created: self.head.created,
            updated: self.head.updated,
            propagated: None,
            stored: None,
        })
    }

    /// The module's line in a list; `None` while the record of its newest version is not known.
    pub(super) fn summary(&self) -> Option<ModuleSummary> {
        let record = &self.versions.get(&self.head.latest())?.record;
        Some(ModuleSummary {
            id: self.head.id,
            name: self.name.clone(),
            version: record.version,
            digest: record.digest,
            size: record.size,
            abi: record.abi,
            tags: self.head.tags_with_latest(),
            updated: self.head.updated,
        })
    }
}
