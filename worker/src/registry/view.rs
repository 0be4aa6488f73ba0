//! What clients are shown of modules: lists from the catalog, single modules complete, and where their bytes lie.

use wess_schemas::error::ErrorBody;
use wess_schemas::error_code::ErrorCode;
use wess_schemas::module::{BlobLocation, ListRequest, Module, ModuleList};
use wess_schemas::subject::BLOBS_BUCKET;
use wess_schemas::{ModuleName, Reference};

use super::Registry;
use super::listing::Listing;

const DEFAULT_PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;

impl Registry {
    /// One page of modules, by name.
    pub fn list(&self, request: &ListRequest) -> Result<ModuleList, ErrorBody> {
        let limit = request.limit.unwrap_or(DEFAULT_PAGE);
        if !(1..=MAX_PAGE).contains(&limit) {
            let text = format!("limit is {limit}, but must be from 1 to {MAX_PAGE}");
            return Err(ErrorBody::new(ErrorCode::InvalidRequest, text));
        }
        let prefix = request.prefix.as_deref().unwrap_or_default();
        let page = self.0.catalog.page(
            request.after.as_ref(),
            prefix,
            limit as usize + 1,
            Listing::summary,
        );
        let more = page.len() > limit as usize;
        let modules: Vec<_> = page.into_iter().take(limit as usize).collect();
        let next = modules.last().filter(|_| more).map(|last| last.name.clone());
        Ok(ModuleList { modules, next })
    }

    /// The module that a reference names, about the version that it names.
    pub async fn describe(&self, reference: &Reference) -> Result<Module, ErrorBody> {
        let resolved = self.resolve(reference).await?;
        let named = resolved.name.clone().zip(resolved.version);
        let held = || self.0.catalog.holder(&resolved.digest);
        let (name, version) = named.or_else(held).ok_or_else(|| self.not_found(reference))?;
        self.module(&name, version).await
    }

    /// A module, about one of its versions, with the records of all its versions.
    pub async fn module(&self, name: &ModuleName, version: u32) -> Result<Module, ErrorBody> {
        if let Some(listing) = self.0.catalog.listing(name) {
            self.learn_versions(name, listing.missing().collect::<Vec<_>>())
                .await?;
        }
        let gone = || {
            ErrorBody::new(
                ErrorCode::ModuleNotFound,
                format!("{name} has no version {version}"),
            )
        };
        self.0
            .catalog
            .listing(name)
            .and_then(|listing| listing.module(version))
            .ok_or_else(gone)
    }

    /// Where the bytes of a version lie.
    pub async fn location(&self, reference: &Reference) -> Result<BlobLocation, ErrorBody> {
        let Module { digest, size, .. } = self.describe(reference).await?;
        Ok(BlobLocation {
            bucket: BLOBS_BUCKET.into(),
            object: digest.to_string(),
            digest,
            size,
        })
    }
}
