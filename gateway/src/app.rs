//! What every request may use. Holds nothing that a client could miss on another gateway.
//!
//! Invariant: an answer that came from a worker has room among the bytes in flight until the last of it is written.

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use wess_schemas::invocation::Input;
use wess_service::lifecycle::Lifecycle;

use crate::admission::{Admission, Reservation};
use crate::auth::Door;
use crate::calls;
use crate::config::Bounds;
use crate::filled::Filled;
use crate::large::{Stores, Uploaded, lost, references};
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::routes::{JSON, json_answer};
use crate::workers::{Workers, json, unreadable};

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
    /// A call's body as it came, or, where that is too large for a message, one that says where its input lies.
    pub async fn fitted(
        &self,
        body: &Bytes,
        mut call: impl calls::Body,
    ) -> Result<(Bytes, Option<Uploaded>), Problem> {
        if body.len() <= self.workers.inline_bytes() {
            return Ok((body.clone(), None));
        }
        let uploaded = self.upload(call.take_input()?).await?;
        if let Some(uploaded) = &uploaded {
            call.refer(uploaded.reference.clone());
        }
        let fitted = json(&call).and_then(|payload| {
            self.workers.check_fits(&payload)?;
            self.admission.hold(payload)
        });
        match fitted {
            Ok(payload) => Ok((payload, uploaded)),
            Err(problem) => {
                self.stores.discard(uploaded).await;
                Err(problem)
            }
        }
    }

    async fn upload(&self, input: Input) -> Result<Option<Uploaded>, Problem> {
        let mut room = Reservation::default();
        if let Input::Bytes(bytes) = &input {
            self.admission.grow(&mut room, bytes.len() as u64)?;
        }
        self.stores.upload(input).await
    }

    /// Bytes that a guest gave, with room until the last of them is written.
    pub async fn with_room(&self, output: Bytes) -> Result<Bytes, Problem> {
        let room = self.admission.output(output.len() as u64).await;
        Ok(room.map_err(|refused| lost(&refused))?.hold(output))
    }

    /// The answer with a worker's JSON about records.
    pub async fn answer_record(&self, document: Bytes) -> Result<Response, Problem> {
        let held = self.with_room(document).await;
        held.map(json_answer).map_err(Problem::before_guest)
    }

    /// The answer with a worker's JSON outcome, every output in it.
    pub async fn answer_outcome(&self, document: Bytes) -> Result<Response, Problem> {
        match self.filled(&document).await? {
            Some(filled) => Ok((JSON, filled.into_body()).into_response()),
            None => Ok(json_answer(self.with_room(document).await?)),
        }
    }

    /// A worker's JSON with the outputs that it refers to; nothing when it refers to none.
    pub async fn filled(&self, document: &[u8]) -> Result<Option<Filled>, Problem> {
        let references = references(document).map_err(|error| unreadable(&error))?;
        if references.is_empty() {
            return Ok(None);
        }
        let filled = self.stores.fill(&self.admission, document, references).await?;
        Ok(Some(filled))
    }
}
