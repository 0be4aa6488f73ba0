//! What every request may use. Holds nothing that a client could miss on another gateway.

use bytes::Bytes;
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
    pub stores: Stores,
    pub admission: Admission,
    pub bounds: Bounds,
    pub door: Door,
    pub metrics: Metrics,
    pub lifecycle: Lifecycle,
}

impl App {
    /// A worker's JSON reply with every output in it.
    pub async fn complete(&self, document: Bytes) -> Result<Bytes, Problem> {
        let references = references(&document).map_err(|error| unreadable(&error))?;
        if references.is_empty() {
            return Ok(document);
        }
        self.stores
            .complete(&self.admission, &document, &references)
            .await
    }
}
