//! Changing modules: store, tag and delete, each by compare-and-set on the head, so that no change is ever lost.
//!
//! Nothing is answered before bytes, version and head are durable; what the compiler refuses leaves nothing behind.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use wess_schemas::chain::StoredChain;
use wess_schemas::error::ErrorBody;
use wess_schemas::error_code::ErrorCode;
use wess_schemas::limits::{MAX_RECORD_BYTES, MAX_STORED_CHAIN_BYTES};
use wess_schemas::module::{Abi, ModuleHead, ModuleVersion};
use wess_schemas::settings::Settings;
use wess_schemas::timestamp::Timestamp;
use wess_schemas::{Digest, Limits, ModuleId, ModuleName, Reference, Tag};

use super::Registry;
use super::append::Append;
use super::artifacts::ArtifactKey;
use super::compile::refusal;
use super::records::{Current, WriteError};
use crate::guest::{self, Inspection, Metering};

/// In each lost race somebody else's change was made, so that this many at once under one name all succeed.
pub(super) const MAX_RACES: usize = 64;

/// A module to be stored.
#[derive(Debug, Clone)]
pub struct NewModule {
    /// The name to store under.
    pub name: ModuleName,
    /// The bytes.
    pub wasm: Bytes,
    /// What holds for it, checked.
    pub terms: Terms,
}

/// What holds for a version; `None` is what holds for the one before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// Its own limits.
    pub limits: Option<Limits>,
    /// What its guests are given, and what they may reach.
    pub settings: Option<Settings>,
}

impl Terms {
    /// What calls of `draft` will most likely need, so that it is ready for them.
    fn metering(&self, draft: &ModuleVersion) -> Metering {
        let is_deterministic = self
            .settings
            .as_ref()
            .is_some_and(|settings| settings.deterministic);
        let fuel = self.limits.and_then(|limits| limits.fuel);
        Metering::of(draft.abi, draft.size, is_deterministic, fuel)
    }
}

/// A change that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The module.
    pub name: ModuleName,
    /// The version that the change was about.
    pub version: u32,
    /// The revision that holds it.
    pub revision: u64,
    /// Whether it made a new version.
    pub stored: bool,
}

/// A deletion that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The module.
    pub name: ModuleName,
    /// Versions that are gone.
    pub versions: Vec<u32>,
    /// Tags that are gone.
    pub tags: Vec<Tag>,
    /// The revision that says so.
    pub revision: u64,
}

/// What an edit makes of a head.
enum Edit {
    Keep,
    Put(ModuleHead),
    Delete,
}

impl Registry {
    /// Stores a module under a name. The same bytes on the same terms as its newest version make no new one.
    pub async fn store(&self, new: NewModule) -> Result<Published, ErrorBody> {
        let NewModule { name, wasm, terms } = new;
        let draft = match chain_of(&wasm) {
            Some(chain) => ModuleVersion {
                chain: Some(chain?),
                ..blank(&wasm, Abi::Chain)
            },
            None => self.compiled(&wasm, &terms).await?,
        };
        self.0.blobs.put(draft.digest, &wasm).await?;
        self.keep_blob(draft.digest, wasm).await;
        Append::new(self, name, draft, terms).run().await
    }

    /// A module's draft, once it is known to compile.
    async fn compiled(&self, wasm: &Bytes, terms: &Terms) -> Result<ModuleVersion, ErrorBody> {
        let draft = draft(wasm.clone()).await?;
        let metering = terms.metering(&draft);
        let key = ArtifactKey {
            digest: draft.digest,
            metering,
        };
        self.artifact_of(key, Some(wasm.clone())).await?;
        Ok(draft)
    }

    /// Sets a tag, or takes it away.
    pub async fn tag(
        &self,
        name: &ModuleName,
        tag: &Tag,
        version: Option<u32>,
    ) -> Result<Published, ErrorBody> {
        if tag.is_latest() {
            return Err(invalid(
                "latest follows the newest version: it cannot be set or taken away",
            ));
        }
        let (head, revision) = self.edit(name, |head| set_tag(name, head, tag, version)).await?;
        let version = version.unwrap_or_else(|| head.latest());
        Ok(Published {
            name: name.clone(),
            version,
            revision,
            stored: false,
        })
    }

    /// Deletes a module, one version, or one tag, by what the reference names.
    pub async fn delete(&self, reference: &Reference) -> Result<Removed, ErrorBody> {
        match reference {
            Reference::Latest(name) => self.delete_module(name, None).await,
            Reference::Id(id) => {
                let name = self.resolve(reference).await?.name.clone();
                self.delete_module(&name.ok_or_else(|| self.not_found(reference))?, Some(*id))
                    .await
            }
            Reference::Version(name, version) => self.delete_version(name, version.get()).await,
            Reference::Tag(_, tag) if tag.is_latest() => Err(invalid(
                "latest follows the newest version: name the module, or the version to delete",
            )),
            Reference::Tag(name, tag) => {
                let (_, revision) = self.edit(name, |head| remove_tag(name, head, tag)).await?;
                Ok(Removed {
                    name: name.clone(),
                    versions: Vec::new(),
                    tags: vec![tag.clone()],
                    revision,
                })
            }
            Reference::Digest(_) => Err(invalid(
                "a digest may belong to several modules: name the one to delete",
            )),
        }
    }

    async fn delete_module(&self, name: &ModuleName, id: Option<ModuleId>) -> Result<Removed, ErrorBody> {
        let edit = |head: &ModuleHead| match id {
            Some(id) if id != head.id => Err(no_module(name)),
            _ => Ok(Edit::Delete),
        };
        let (head, revision) = self.edit(name, edit).await?;
        if let Err(error) = self.0.records.remove_versions(name, revision).await {
            tracing::warn!(%name, %error, "records of a deleted module stay; no head lists them");
        }
        Ok(Removed {
            name: name.clone(),
            versions: head.versions,
            tags: head.tags.into_keys().collect(),
            revision,
        })
    }

    async fn delete_version(&self, name: &ModuleName, version: u32) -> Result<Removed, ErrorBody> {
        let (_, revision) = self
            .edit(name, |head| remove_version(name, head, version))
            .await?;
        let current = self.0.records.version(name, version).await;
        let buried = match current {
            Ok(current) => self.0.records.bury_version(name, version, current.revision).await,
            Err(error) => Err(error),
        };
        if let Err(error) = buried {
            tracing::warn!(%name, version, %error, "the record of a deleted version stays; no head lists it");
        }
        Ok(Removed {
            name: name.clone(),
            versions: vec![version],
            tags: Vec::new(),
            revision,
        })
    }

    /// Makes one change to a head, and shows it here at once. Gives the head after it, or the one that was deleted.
    async fn edit(
        &self,
        name: &ModuleName,
        edit: impl Fn(&ModuleHead) -> Result<Edit, ErrorBody>,
    ) -> Result<(ModuleHead, u64), ErrorBody> {
        for _ in 0..MAX_RACES {
            let Current { revision, record } = self.0.records.head(name).await?;
            let head = record.ok_or_else(|| no_module(name))?;
            let (written, after) = match self.with_routes(name, &head, edit(&head)?).await? {
                Edit::Keep => (Ok(revision), Some(head.clone())),
                Edit::Put(next) => (self.0.records.put_head(name, &next, revision).await, Some(next)),
                Edit::Delete => (self.0.records.delete_head(name, revision).await, None),
            };
            match written {
                Ok(revision) => {
                    self.learn_head(
                        name,
                        Current {
                            revision,
                            record: after.clone(),
                        },
                    );
                    return Ok((after.unwrap_or(head), revision));
                }
                Err(WriteError::Lost) => self.0.stats.lost_races.inc(),
                Err(error) => return Err(error.into()),
            };
        }
        Err(too_many_races(name))
    }

    /// Where a head loses its newest version, it has the routes of the one before.
    async fn with_routes(&self, name: &ModuleName, head: &ModuleHead, edit: Edit) -> Result<Edit, ErrorBody> {
        match edit {
            Edit::Put(next) if next.latest() != head.latest() => {
                let newest = self.0.records.version(name, next.latest()).await?.record;
                let routes = newest.map(|newest| newest.settings.routes);
                Ok(Edit::Put(ModuleHead {
                    routes: routes.unwrap_or_default(),
                    ..next
                }))
            }
            edit => Ok(edit),
        }
    }
}

/// Reads a module on a thread that may block, and drafts its record; its number comes later.
async fn draft(wasm: Bytes) -> Result<ModuleVersion, ErrorBody> {
    let lost = |_| ErrorBody::new(ErrorCode::Internal, "the module could not be read").before_guest();
    let draft = tokio::task::spawn_blocking(move || read(&wasm))
        .await
        .map_err(lost)??;
    fitted(draft)
}

/// The draft, without a component's text when the record would grow too long with it.
fn fitted(mut draft: ModuleVersion) -> Result<ModuleVersion, ErrorBody> {
    let fits = |draft: &ModuleVersion| {
        serde_json::to_vec(draft).is_ok_and(|record| record.len() <= MAX_RECORD_BYTES)
    };
    if fits(&draft) {
        return Ok(draft);
    }
    if let Some(component) = &mut draft.component {
        component.wit = None;
    }
    if fits(&draft) {
        return Ok(draft);
    }
    let functions = draft
        .component
        .as_ref()
        .map_or(draft.exports.len(), |component| component.functions.len());
    Err(ErrorBody::new(
        ErrorCode::UnsupportedModule,
        format!("the list of the module's {functions} exports is larger than {MAX_RECORD_BYTES} bytes"),
    ))
}

fn read(wasm: &[u8]) -> Result<ModuleVersion, ErrorBody> {
    let Inspection {
        abi,
        exports,
        component,
    } = guest::inspect(wasm).map_err(|refused| refusal(&refused))?;
    Ok(ModuleVersion {
        exports,
        component,
        ..blank(wasm, abi)
    })
}

/// A draft that says nothing of what the bytes do.
fn blank(bytes: &[u8], abi: Abi) -> ModuleVersion {
    ModuleVersion {
        version: 0,
        digest: Digest::from_bytes(Sha256::digest(bytes).into()),
        size: bytes.len() as u64,
        abi,
        exports: Vec::new(),
        component: None,
        chain: None,
        limits: Limits::default(),
        settings: Settings::default(),
        created: Timestamp::now(),
    }
}

/// The chain that bytes in the place of a module's are, or why they are none; `None` for what is no JSON object.
pub fn chain_of(bytes: &[u8]) -> Option<Result<StoredChain, ErrorBody>> {
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    if bytes.len() > MAX_STORED_CHAIN_BYTES {
        let text = format!(
            "the chain has {} bytes; at most {MAX_STORED_CHAIN_BYTES} are taken",
            bytes.len()
        );
        return Some(Err(ErrorBody::new(ErrorCode::PayloadTooLarge, text)));
    }
    let chain = serde_json::from_slice(bytes);
    Some(chain.map_err(|error| invalid(&format!("the bytes are neither WebAssembly nor a chain: {error}"))))
}

fn set_tag(name: &ModuleName, head: &ModuleHead, tag: &Tag, version: Option<u32>) -> Result<Edit, ErrorBody> {
    if head.tags.get(tag).copied() == version {
        return Ok(Edit::Keep);
    }
    let mut next = head.clone();
    match version {
        Some(version) if !head.versions.contains(&version) => return Err(no_version(name, version)),
        Some(version) => next.tags.insert(tag.clone(), version),
        None => next.tags.remove(tag),
    };
    put(name, next)
}

fn remove_tag(name: &ModuleName, head: &ModuleHead, tag: &Tag) -> Result<Edit, ErrorBody> {
    if !head.tags.contains_key(tag) {
        return Err(ErrorBody::new(
            ErrorCode::ModuleNotFound,
            format!("{name} has no tag {tag}"),
        ));
    }
    set_tag(name, head, tag, None)
}

fn remove_version(name: &ModuleName, head: &ModuleHead, version: u32) -> Result<Edit, ErrorBody> {
    if !head.versions.contains(&version) {
        return Err(no_version(name, version));
    }
    if let Some((tag, _)) = head.tags.iter().find(|(_, tagged)| **tagged == version) {
        let text =
            format!("the tag {tag} names version {version} of {name}: move or take away the tag first");
        return Err(ErrorBody::new(ErrorCode::Conflict, text));
    }
    let mut next = head.clone();
    next.versions.retain(|kept| *kept != version);
    // A head lists at least one version.
    if next.versions.is_empty() {
        Ok(Edit::Delete)
    } else {
        put(name, next)
    }
}

fn put(name: &ModuleName, head: ModuleHead) -> Result<Edit, ErrorBody> {
    let next = ModuleHead {
        updated: Timestamp::now(),
        ..head
    };
    check_size(name, &next)?;
    Ok(Edit::Put(next))
}

/// A head grows with its tags and versions, and has to fit into one message.
pub(super) fn check_size(name: &ModuleName, head: &ModuleHead) -> Result<(), ErrorBody> {
    match serde_json::to_vec(head) {
        Ok(record) if record.len() <= MAX_RECORD_BYTES => Ok(()),
        _ => Err(ErrorBody::new(
            ErrorCode::QuotaExceeded,
            format!("{name} has too many tags and versions for its record: delete some"),
        )),
    }
}

pub(super) fn too_many_races(name: &ModuleName) -> ErrorBody {
    ErrorBody::new(
        ErrorCode::Conflict,
        format!("{name} is being changed by too many at once"),
    )
}

fn invalid(text: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::InvalidRequest, text)
}

fn no_module(name: &ModuleName) -> ErrorBody {
    ErrorBody::new(ErrorCode::ModuleNotFound, format!("there is no module {name}"))
}

fn no_version(name: &ModuleName, version: u32) -> ErrorBody {
    ErrorBody::new(
        ErrorCode::ModuleNotFound,
        format!("{name} has no version {version}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::record::tests::head;

    fn name() -> ModuleName {
        "hello".parse().unwrap()
    }

    fn tagged(versions: &[u32], tag: &str, version: u32) -> ModuleHead {
        let mut head = head(versions);
        head.tags.insert(tag.parse().unwrap(), version);
        head
    }

    fn code(edit: Result<Edit, ErrorBody>) -> Option<ErrorCode> {
        edit.err().map(|error| error.code())
    }

    #[test]
    fn a_tag_names_a_listed_version_only_and_setting_it_again_changes_nothing() {
        let (head, stable) = (tagged(&[1, 2], "stable", 1), "stable".parse().unwrap());
        assert_eq!(
            code(set_tag(&name(), &head, &stable, Some(3))),
            Some(ErrorCode::ModuleNotFound)
        );
        assert!(matches!(
            set_tag(&name(), &head, &stable, Some(1)),
            Ok(Edit::Keep)
        ));
        assert!(
            matches!(set_tag(&name(), &head, &stable, Some(2)), Ok(Edit::Put(next)) if next.tags[&stable] == 2)
        );
        assert!(
            matches!(set_tag(&name(), &head, &stable, None), Ok(Edit::Put(next)) if next.tags.is_empty())
        );
        assert!(matches!(
            set_tag(&name(), &head, &"beta".parse().unwrap(), None),
            Ok(Edit::Keep)
        ));
        assert_eq!(
            code(remove_tag(&name(), &head, &"beta".parse().unwrap())),
            Some(ErrorCode::ModuleNotFound)
        );
    }

    #[test]
    fn a_version_that_a_tag_names_is_kept_and_the_last_one_takes_the_module_with_it() {
        let head = tagged(&[1, 2], "stable", 1);
        assert_eq!(code(remove_version(&name(), &head, 1)), Some(ErrorCode::Conflict));
        assert_eq!(
            code(remove_version(&name(), &head, 3)),
            Some(ErrorCode::ModuleNotFound)
        );
        assert!(matches!(remove_version(&name(), &head, 2), Ok(Edit::Put(next)) if next.versions == [1]));
        let single = ModuleHead {
            tags: Default::default(),
            versions: vec![2],
            ..head
        };
        assert!(matches!(remove_version(&name(), &single, 2), Ok(Edit::Delete)));
    }

    #[test]
    fn a_head_that_outgrows_its_record_is_refused() {
        let mut head = head(&[1]);
        for number in 0..5_000 {
            head.tags.insert(
                format!("a-tag-with-a-name-as-long-as-tags-may-ever-be-{number}")
                    .parse()
                    .unwrap(),
                1,
            );
        }
        assert_eq!(code(put(&name(), head)), Some(ErrorCode::QuotaExceeded));
    }
}
