//! Adding a version to a module: the version is recorded first, under a number that never was, then the head lists it.
//!
//! Whoever dies in between leaves a record that nobody lists; its number is skipped. A version that lost its race is
//! listed later only if its record cannot be among those that a deletion is about to remove.

use wess_schemas::error::ErrorBody;
use wess_schemas::error_code::ErrorCode;
use wess_schemas::limits::{MAX_RECORD_BYTES, MAX_VERSIONS};
use wess_schemas::module::{Abi, ModuleHead, ModuleVersion};
use wess_schemas::subject::ModuleKey;
use wess_schemas::timestamp::Timestamp;
use wess_schemas::{Limits, ModuleId, ModuleName, Tenant};

use super::Registry;
use super::publish::{MAX_RACES, Published, Terms, check_size, too_many_races};
use super::record::{Change, Record};
use super::records::{Current, WriteError};

/// One version on its way.
pub(super) struct Append<'a> {
    registry: &'a Registry,
    name: ModuleName,
    draft: ModuleVersion,
    terms: Terms,
    recorded: Option<Recorded>,
}

/// A version that is recorded and not listed yet.
struct Recorded {
    version: ModuleVersion,
    revision: u64,
    /// The module that the name stood for when it was recorded.
    module: Option<ModuleId>,
}

impl<'a> Append<'a> {
    /// A draft is a version whose number is not decided.
    pub(super) fn new(registry: &'a Registry, name: ModuleName, draft: ModuleVersion, terms: Terms) -> Self {
        Self {
            registry,
            name,
            draft,
            terms,
            recorded: None,
        }
    }

    /// Tries until the version is listed, or turns out to be there already.
    pub(super) async fn run(mut self) -> Result<Published, ErrorBody> {
        for _ in 0..MAX_RACES {
            if let Some(published) = self.attempt().await? {
                return Ok(published);
            }
            self.registry.0.stats.lost_races.inc();
        }
        self.bury().await;
        Err(too_many_races(&self.name))
    }

    /// `None` when somebody else changed the head first.
    async fn attempt(&mut self) -> Result<Option<Published>, ErrorBody> {
        let current = self.registry.0.records.head(&self.name).await?;
        self.draft.limits = self.terms.limits.unwrap_or_default();
        self.draft.settings = self.terms.settings.clone().unwrap_or_default();
        if let Some(head) = &current.record {
            if self.repeats(head).await? {
                self.bury().await;
                return Ok(Some(self.published(head.latest(), current.revision, false)));
            }
            check_count(&self.name, head)?;
        }
        self.check_routes(current.record.as_ref())?;
        check_isolation(&self.draft)?;
        check_record(&self.draft)?;
        let recorded = self.recorded_after(current.record.as_ref()).await?;
        let next = self.next_head(current.record.as_ref(), &recorded.version);
        check_size(&self.name, &next)?;
        let put = self
            .registry
            .0
            .records
            .put_head(&self.name, &next, current.revision)
            .await;
        match put {
            Ok(revision) => {
                let number = self.show(recorded);
                self.registry.learn_head(
                    &self.name,
                    Current {
                        revision,
                        record: Some(next),
                    },
                );
                Ok(Some(self.published(number, revision, true)))
            }
            Err(WriteError::Lost) => {
                self.recorded = Some(recorded);
                Ok(None)
            }
            // The head may list it, so its record has to stay.
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the newest version has these bytes on these terms. Where none are given, its terms hold for the next as well.
    async fn repeats(&mut self, head: &ModuleHead) -> Result<bool, ErrorBody> {
        let newest = self
            .registry
            .0
            .records
            .version(&self.name, head.latest())
            .await?
            .record;
        let Some(newest) = newest else { return Ok(false) };
        check_kind(&self.name, &newest, &self.draft)?;
        self.draft.limits = self.terms.limits.unwrap_or(newest.limits);
        let settings = self.terms.settings.as_ref();
        self.draft.settings = settings.unwrap_or(&newest.settings).clone();
        Ok(newest.digest == self.draft.digest
            && newest.limits == self.draft.limits
            && newest.settings == self.draft.settings)
    }

    /// Routes that the module has already are its own even where another one claims them, which lost its race.
    fn check_routes(&self, head: Option<&ModuleHead>) -> Result<(), ErrorBody> {
        let routes = &self.draft.settings.routes;
        if routes.is_empty() {
            return Ok(());
        }
        if self.draft.abi != Abi::Http {
            let text = "settings.routes are for modules that serve HTTP, and this one does not";
            return Err(ErrorBody::new(ErrorCode::InvalidRequest, text));
        }
        let has = |route: &&String| head.is_some_and(|head| head.routes.contains(*route));
        let new = routes.iter().filter(|route| !has(route));
        match self.registry.0.catalog.claimed(new, &self.name) {
            Some((other, route)) => {
                let text = format!("the module {other} has the route {route}");
                Err(ErrorBody::new(ErrorCode::Conflict, text).with("module", other.as_str()))
            }
            None => Ok(()),
        }
    }

    /// A recorded version with a number above all that the head lists.
    async fn recorded_after(&mut self, head: Option<&ModuleHead>) -> Result<Recorded, ErrorBody> {
        let (module, newest) = (head.map(|head| head.id), head.map_or(0, ModuleHead::latest));
        match self.recorded.take() {
            Some(recorded) if recorded.version.version <= newest => {
                self.recorded = Some(recorded);
                self.bury().await;
            }
            Some(recorded) if recorded.module == module && module.is_some() => return Ok(recorded),
            Some(recorded) => {
                if let Some(renewed) = self.renew(recorded, module).await? {
                    return Ok(renewed);
                }
            }
            None => (),
        }
        self.create(newest, module).await
    }

    /// Writes a record anew in its place, so that it is younger than any deletion of its name; `None` when it is gone.
    async fn renew(
        &self,
        recorded: Recorded,
        module: Option<ModuleId>,
    ) -> Result<Option<Recorded>, ErrorBody> {
        let written = self.write(&recorded.version, recorded.revision).await?;
        Ok(written.map(|revision| Recorded {
            revision,
            module,
            ..recorded
        }))
    }

    /// Records the version under the first number that never was.
    async fn create(&self, newest: u32, module: Option<ModuleId>) -> Result<Recorded, ErrorBody> {
        let mut number = newest + 1;
        for _ in 0..MAX_RACES {
            let version = ModuleVersion {
                version: number,
                ..self.draft.clone()
            };
            if let Some(revision) = self.write(&version, 0).await? {
                return Ok(Recorded {
                    version,
                    revision,
                    module,
                });
            }
            number = self
                .registry
                .0
                .records
                .highest_number(&self.name)
                .await?
                .max(number)
                + 1;
        }
        Err(too_many_races(&self.name))
    }

    /// `None` when the record is not at this revision.
    async fn write(&self, version: &ModuleVersion, expected: u64) -> Result<Option<u64>, ErrorBody> {
        match self
            .registry
            .0
            .records
            .put_version(&self.name, version, expected)
            .await
        {
            Ok(revision) => Ok(Some(revision)),
            Err(WriteError::Lost) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn next_head(&self, before: Option<&ModuleHead>, newest: &ModuleVersion) -> ModuleHead {
        let (updated, version) = (Timestamp::now(), newest.version);
        let routes = newest.settings.routes.clone();
        match before {
            Some(before) => ModuleHead {
                versions: before.versions.iter().copied().chain([version]).collect(),
                routes,
                updated,
                ..before.clone()
            },
            None => ModuleHead {
                id: ModuleId::generate(),
                tags: Default::default(),
                versions: vec![version],
                routes,
                limits: Limits::default(),
                created: updated,
                updated,
            },
        }
    }

    /// Removes the record of a version that will not be listed. Failing that, its number is skipped for ever.
    async fn bury(&mut self) {
        if let Some(Recorded {
            version, revision, ..
        }) = self.recorded.take()
        {
            let number = version.version;
            if let Err(error) = self
                .registry
                .0
                .records
                .bury_version(&self.name, number, revision)
                .await
            {
                tracing::warn!(name = %self.name, version = number, %error, "a record that no head lists stays");
            }
        }
    }

    /// Shows a version here at once.
    fn show(&self, recorded: Recorded) -> u32 {
        let number = recorded.version.version;
        if let Ok(key) = number.try_into() {
            let key = ModuleKey::Version(Tenant::default(), self.name.clone(), key);
            let record = Record::Version(Box::new(recorded.version));
            self.registry.0.catalog.learn(Change {
                key,
                revision: recorded.revision,
                record,
            });
        }
        number
    }

    fn published(&self, version: u32, revision: u64, stored: bool) -> Published {
        Published {
            name: self.name.clone(),
            version,
            revision,
            stored,
        }
    }
}

/// Only what is called can be called again.
fn check_isolation(draft: &ModuleVersion) -> Result<(), ErrorBody> {
    let why = match draft.abi {
        _ if draft.settings.isolation.is_none() => return Ok(()),
        Abi::Typed | Abi::Plugin | Abi::Component | Abi::Http => return Ok(()),
        Abi::Command => "a command, whose instance runs once, from its start to its exit",
        Abi::Chain => "a chain, whose steps have their modules' settings",
    };
    let text = format!("settings.isolation is for modules whose functions are called: this one is {why}");
    Err(ErrorBody::new(ErrorCode::InvalidRequest, text))
}

/// What a version exports was let in with its draft; what is said of it must fit beside that.
fn check_record(draft: &ModuleVersion) -> Result<(), ErrorBody> {
    match serde_json::to_vec(draft) {
        Ok(record) if record.len() <= MAX_RECORD_BYTES => Ok(()),
        _ => Err(ErrorBody::new(
            ErrorCode::QuotaExceeded,
            format!("the module's settings and exports together take more than {MAX_RECORD_BYTES} bytes"),
        )),
    }
}
/// A name stands for modules or for chains: who calls one must not find the other.
fn check_kind(name: &ModuleName, newest: &ModuleVersion, draft: &ModuleVersion) -> Result<(), ErrorBody> {
    let (is, would_be) = match (newest.abi, draft.abi) {
        (Abi::Chain, Abi::Chain) => return Ok(()),
        (Abi::Chain, _) => ("a chain", "module"),
        (_, Abi::Chain) => ("a module", "chain"),
        _ => return Ok(()),
    };
    let text = format!("{name} is {is}: store the {would_be} under another name, or delete {name} first");
    Err(ErrorBody::new(ErrorCode::Conflict, text))
}

fn check_count(name: &ModuleName, head: &ModuleHead) -> Result<(), ErrorBody> {
    if head.versions.len() < MAX_VERSIONS {
        return Ok(());
    }
    let text = format!("{name} has {MAX_VERSIONS} versions, which is the most: delete some");
    Err(ErrorBody::new(ErrorCode::QuotaExceeded, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::record::tests::head;

    #[test]
    fn the_version_after_the_last_that_fits_is_refused() {
        let name = "hello".parse().unwrap();
        let most: Vec<u32> = (1..=MAX_VERSIONS as u32).collect();
        assert!(check_count(&name, &head(&most[1..])).is_ok());
        assert_eq!(
            check_count(&name, &head(&most)).unwrap_err().code(),
            ErrorCode::QuotaExceeded
        );
    }
}
