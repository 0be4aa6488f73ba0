//! What is known of a stored module: the reply clients see, and the two records the registry keeps.
//!
//! Invariant: a version record never changes; only the head moves, by compare-and-set.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chain::StoredChain;
use crate::digest::Digest;
use crate::export::Export;
use crate::id::{ModuleId, ModuleName, Tag};
use crate::limits::Limits;
use crate::settings::Settings;
use crate::timestamp::Timestamp;
use crate::wit::ComponentInterface;

/// How bytes and arguments get in and out of a guest; decided when the module is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Abi {
    /// JSON arguments to numbers and back.
    Typed,
    /// Bytes in linear memory, through `process`.
    Plugin,
    /// stdin to stdout, through WASI preview 1 `_start` or the interface `wasi:cli/run`.
    Command,
    /// JSON arguments to the values of WIT and back.
    Component,
    /// HTTP requests to their responses, through the interface `wasi:http/incoming-handler`.
    Http,
    /// Bytes through the steps of a chain, each a module of its own.
    Chain,
}

impl Abi {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Typed => "typed",
            Self::Plugin => "plugin",
            Self::Command => "command",
            Self::Component => "component",
            Self::Http => "http",
            Self::Chain => "chain",
        }
    }
}

/// The type of one parameter or result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ValueType {
    /// 32-bit integer.
    I32,
    /// 64-bit integer.
    I64,
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
    /// 128-bit vector; a function that has one cannot be called from outside.
    V128,
    /// A reference; a function that has one cannot be called from outside.
    Ref,
}

impl ValueType {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::V128 => "v128",
            Self::Ref => "ref",
        }
    }

    /// Whether JSON can carry it.
    pub const fn is_number(self) -> bool {
        matches!(self, Self::I32 | Self::I64 | Self::F32 | Self::F64)
    }
}

/// An exported function and its signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FunctionExport {
    /// The export's name.
    pub name: String,
    /// Parameter types, in order.
    pub params: Vec<ValueType>,
    /// Result types, in order.
    pub results: Vec<ValueType>,
}

/// A module as clients see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Module {
    /// Stable through all versions.
    pub id: ModuleId,
    /// Its name.
    pub name: ModuleName,
    /// The version this reply is about.
    pub version: u32,
    /// That version's bytes.
    pub digest: Digest,
    /// That version's size in bytes.
    pub size: u64,
    /// That version's ABI.
    pub abi: Abi,
    /// Every tag, `latest` included, and the version it names.
    pub tags: BTreeMap<Tag, u32>,
    /// Every version, oldest first.
    pub versions: Vec<VersionSummary>,
    /// That version's exported functions.
    pub exports: Vec<Export>,
    /// A component's world as WIT text; left out of other modules, and where it is too long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wit: Option<String>,
    /// A stored chain's steps; left out of modules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<StoredChain>,
    /// That version's own limits.
    pub limits: Limits,
    /// What that version's guests are given, and what they may reach.
    #[serde(default, skip_serializing_if = "Settings::is_empty")]
    pub settings: Settings,
    /// When the module was first stored.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
    /// After a change: whether every beating worker has seen it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub propagated: Option<bool>,
    /// After a store: whether it made a new version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<bool>,
}

/// One version in a module's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VersionSummary {
    /// Its number, from 1.
    pub version: u32,
    /// Its bytes.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// When it was stored.
    pub created: Timestamp,
}

/// The body of `wess.modules.list`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListRequest {
    /// Only names that begin so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Only names after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<ModuleName>,
    /// At most so many; 100 unless told, 1000 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// One page of modules, by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModuleList {
    /// The page.
    pub modules: Vec<ModuleSummary>,
    /// What to ask as `after` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<ModuleName>,
}

/// A module in a list: its newest version without exports and history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModuleSummary {
    /// Stable through all versions.
    pub id: ModuleId,
    /// Its name.
    pub name: ModuleName,
    /// The newest version.
    pub version: u32,
    /// Its bytes.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Its ABI.
    pub abi: Abi,
    /// Every tag and the version it names.
    pub tags: BTreeMap<Tag, u32>,
    /// When the module last changed.
    pub updated: Timestamp,
}

/// The body of `wess.modules.tag.<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TagRequest {
    /// Which tag; not `latest`.
    pub tag: Tag,
    /// What it shall name; null takes the tag away.
    pub version: Option<u32>,
}

/// The reply to `wess.modules.delete.<ref>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Deleted {
    /// The module.
    pub name: ModuleName,
    /// Which versions are gone.
    pub versions: Vec<u32>,
    /// Which tags are gone.
    pub tags: Vec<Tag>,
    /// Whether every beating worker has seen it.
    pub propagated: bool,
}

/// The reply to `wess.modules.fetch.<ref>`: where to read the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BlobLocation {
    /// The object store.
    pub bucket: String,
    /// The object in it.
    pub object: String,
    /// What the bytes must hash to.
    pub digest: Digest,
    /// How many bytes.
    pub size: u64,
}

/// The registry's mutable record of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModuleHead {
    /// Stable through all versions.
    pub id: ModuleId,
    /// Tags other than `latest`.
    pub tags: BTreeMap<Tag, u32>,
    /// Version numbers, ascending, never empty.
    pub versions: Vec<u32>,
    /// The hosts whose requests go to the newest version, as its settings have them: here, so that gateways need only
    /// heads.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub routes: BTreeSet<String>,
    /// Limits of versions from before each had its own.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// When the module was first stored.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
}

impl ModuleHead {
    /// The newest version; 0 only for a record that breaks the invariant.
    pub fn latest(&self) -> u32 {
        self.versions.last().copied().unwrap_or(0)
    }

    /// The tags with `latest` among them.
    pub fn tags_with_latest(&self) -> BTreeMap<Tag, u32> {
        let latest = Tag::LATEST.parse().map(|tag| (tag, self.latest())).ok();
        self.tags
            .iter()
            .map(|(tag, version)| (tag.clone(), *version))
            .chain(latest)
            .collect()
    }
}

/// The registry's immutable record of one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModuleVersion {
    /// Its number, from 1.
    pub version: u32,
    /// Its bytes.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// How to call it.
    pub abi: Abi,
    /// What it exports, unless it is a component.
    pub exports: Vec<FunctionExport>,
    /// What it exports if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<ComponentInterface>,
    /// What it does if it is a chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<StoredChain>,
    /// Its own limits.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// What its guests are given, and what they may reach.
    #[serde(default, skip_serializing_if = "Settings::is_empty")]
    pub settings: Settings,
    /// When it was stored.
    pub created: Timestamp,
}

impl ModuleVersion {
    /// The line that stands for it in a module's history.
    pub fn summary(&self) -> VersionSummary {
        VersionSummary {
            version: self.version,
            digest: self.digest,
            size: self.size,
            created: self.created,
        }
    }
}
