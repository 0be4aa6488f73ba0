//! What every request may use. Holds nothing that a client could miss on another gateway.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use wess_schemas::{ErrorBody, ErrorCode};
use wess_service::lifecycle::Lifecycle;

use crate::admission::Admission;
use crate::auth::Door;
use crate::config::Bounds;
use crate::large::{Stores, references};
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::workers::{Workers, unreadable};

/// Shared by all requests of one gateway.
pub struct App {
    pub workers: Workers,
    /// Empty until the object stores have been seen for the first time.
    pub stores: ArcSwapOption<Stores>,
    pub admission: Admission,
    pub bounds: Bounds,
    pub door: Door,
    pub metrics: Metrics,
    pub lifecycle: Lifecycle,
}

impl App {
    /// The object stores, for what is too large for a message.
    pub fn stores(&self) -> Result<Arc<Stores>, Problem> {
        let unseen = || {
            Problem::new(
                ErrorCode::Unavailable,
                "the object stores could not be reached yet",
            )
        };
        self.stores.load_full().ok_or_else(unseen)
    }

    /// A worker's JSON reply with every output in it.
    pub async fn complete(&self, document: Bytes) -> Result<Bytes, Problem> {
        let references = references(&document).map_err(|error| unreadable(&error))?;
        if references.is_empty() {
            return Ok(document);
        }
        let unseen = |_| {
            Problem::from(ErrorBody::new(
                ErrorCode::Internal,
                "the output was lost on its way",
            ))
        };
        let stores = self.stores().map_err(unseen)?;
        stores.complete(&self.admission, &document, &references).await
    }
}
