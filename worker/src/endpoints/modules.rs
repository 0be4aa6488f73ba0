//! `wess.modules.*`: what is stored, and changing what names it.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use wess_schemas::module::{BlobLocation, Deleted, ListRequest, Module, ModuleList, TagRequest};
use wess_schemas::{ErrorBody, ErrorCode, ModuleName, Reference};

use crate::fleet::Fleet;
use crate::registry::Registry;

/// Answers questions about modules.
pub struct ModulesEndpoint {
    /// What knows them.
    pub registry: Registry,
    /// Who has to hear of changes.
    pub fleet: Fleet,
}

impl ModulesEndpoint {
    /// One page of modules. An empty body asks for the first.
    pub fn list(&self, payload: &[u8]) -> Result<ModuleList, ErrorBody> {
        let request = if payload.is_empty() {
            ListRequest::default()
        } else {
            parse("a list request", payload)?
        };
        self.registry.list(&request)
    }

    /// One module.
    pub async fn get(&self, reference: &Reference) -> Result<Module, ErrorBody> {
        self.registry.describe(reference).await
    }

    /// Deletes a module, a version or a tag.
    pub async fn delete(&self, reference: &Reference) -> Result<Deleted, ErrorBody> {
        let removed = self.registry.delete(reference).await?;
        let propagated = self.fleet.propagated(removed.revision).await;
        Ok(Deleted {
            name: removed.name,
            versions: removed.versions,
            tags: removed.tags,
            propagated,
        })
    }

    /// Sets a tag or takes it away.
    pub async fn tag(&self, name: &ModuleName, payload: &Bytes) -> Result<Module, ErrorBody> {
        let TagRequest { tag, version } = parse("a tag request", payload)?;
        let published = self.registry.tag(name, &tag, version).await?;
        let propagated = self.fleet.propagated(published.revision).await;
        let module = self.registry.module(name, published.version).await?;
        Ok(Module {
            propagated: Some(propagated),
            ..module
        })
    }

    /// Where to read a module's bytes.
    pub async fn fetch(&self, reference: &Reference) -> Result<BlobLocation, ErrorBody> {
        self.registry.location(reference).await
    }
}

fn parse<T: DeserializeOwned>(what: &str, payload: &[u8]) -> Result<T, ErrorBody> {
    let invalid = |error| {
        ErrorBody::new(
            ErrorCode::InvalidRequest,
            format!("the body is not {what} in JSON: {error}"),
        )
    };
    serde_json::from_slice(payload).map_err(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_field_is_named() {
        let refused = parse::<TagRequest>("a tag request", br#"{"tag":"stable","version":1,"force":true}"#);
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::InvalidRequest);
        assert!(refused.error.message.contains("`force`"), "{refused}");
    }
}
