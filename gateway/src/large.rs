//! Payloads too large for a message: they go to workers, and come back, by reference, and no HTTP client ever sees one.
//!
//! What is fetched is verified before any of it is sent on, and what was ours alone is deleted after use.

use bytes::Bytes;
use serde::Deserialize;
use wess_schemas::ErrorCode;
use wess_schemas::invocation::Input;
use wess_schemas::payload::{PayloadBucket, PayloadRef};
use wess_service::objects::Bucket;
use wess_service::payloads::Payloads;

use crate::admission::{Admission, Reservation};
use crate::filled::Filled;
use crate::problem::Problem;
use crate::workers::unreadable;

/// The object stores of a gateway. Cheap to clone.
#[derive(Clone)]
pub struct Stores {
    /// Uploads and large payloads.
    pub payloads: Payloads,
    /// Wasm bytes, to be read only.
    pub blobs: Bucket,
}

/// An input on its way to a worker.
#[derive(Debug)]
pub struct Uploaded {
    /// What the worker is told.
    pub reference: PayloadRef,
    /// Whether this gateway made it, so that nobody else needs it.
    pub ours: bool,
}

impl Stores {
    /// Puts an input where a worker can fetch it; nothing when there is none.
    pub async fn upload(&self, input: Input) -> Result<Option<Uploaded>, Problem> {
        match input {
            Input::Absent => Ok(None),
            Input::Stored(reference) => Ok(Some(Uploaded {
                reference,
                ours: false,
            })),
            Input::Bytes(bytes) => Ok(Some(self.upload_bytes(&bytes).await?)),
        }
    }

    /// Puts bytes where a worker can fetch them.
    pub async fn upload_bytes(&self, bytes: &[u8]) -> Result<Uploaded, Problem> {
        let stored = self.payloads.put(bytes).await;
        let reference = stored
            .map_err(|error| Problem::new(error.code(), "the input could not be stored").because(&error))?;
        Ok(Uploaded {
            reference,
            ours: true,
        })
    }

    /// Deletes an input that has been used.
    pub async fn discard(&self, uploaded: Option<Uploaded>) {
        if let Some(Uploaded {
            reference,
            ours: true,
        }) = uploaded
        {
            self.payloads.discard(&reference).await;
        }
    }

    /// Deletes what a worker was pointed to, unless it may still be reading that: then the store forgets it in an hour.
    pub async fn settle<T>(&self, uploaded: Option<Uploaded>, reply: &Result<T, Problem>) {
        if !reply.as_ref().is_err_and(Problem::leaves_unknown) {
            self.discard(uploaded).await;
        }
    }

    /// Fetches an output and deletes it.
    pub async fn take_output(&self, admission: &Admission, reference: &PayloadRef) -> Result<Bytes, Problem> {
        let room = room_for(admission, std::slice::from_ref(reference), 0).await?;
        Ok(room.hold(self.take(reference).await?))
    }

    /// As [`Stores::take_output`], for who has room.
    pub async fn take(&self, reference: &PayloadRef) -> Result<Bytes, Problem> {
        let output = self.fetch(reference).await?;
        self.discard_output(reference).await;
        Ok(output)
    }

    /// Fetches the outputs that a document refers to, each once, and deletes them where they were.
    pub async fn fill(
        &self,
        admission: &Admission,
        document: &[u8],
        references: Vec<PayloadRef>,
    ) -> Result<Filled, Problem> {
        // The document's own text is in it once more.
        let room = room_for(admission, &references, 2 * document.len() as u64).await?;
        let mut outputs = Vec::new();
        for reference in references {
            let output = self.fetch(&reference).await?;
            outputs.push((reference, output));
        }
        let filled = Filled::new(document, &outputs, room).map_err(|error| unreadable(&error))?;
        for (reference, _) in &outputs {
            self.discard_output(reference).await;
        }
        Ok(filled)
    }

    /// Deletes what was for this answer alone. The output of a job stays for whoever asks next.
    pub async fn discard_output(&self, reference: &PayloadRef) {
        match reference.bucket {
            PayloadBucket::Calls => self.payloads.discard(reference).await,
            PayloadBucket::Jobs => (),
        }
    }

    async fn fetch(&self, reference: &PayloadRef) -> Result<Bytes, Problem> {
        let output = self.payloads.get(reference, reference.size).await;
        output.map_err(|error| lost(&error))
    }
}

/// All at once: whoever held room for one output while it waits for another's could wait for itself.
async fn room_for(
    admission: &Admission,
    references: &[PayloadRef],
    more: u64,
) -> Result<Reservation, Problem> {
    let bytes = references
        .iter()
        .fold(more, |sum, reference| sum.saturating_add(reference.size));
    admission.output(bytes).await.map_err(|refused| lost(&refused))
}

/// It was done, but the answer cannot be handed on.
pub fn lost(cause: &(dyn std::error::Error + 'static)) -> Problem {
    Problem::new(ErrorCode::Internal, "the answer was lost on its way").because(cause)
}

/// Just enough of an outcome, of a chain's, or of a job's record to see whether it is complete.
#[derive(Deserialize)]
struct Glance {
    #[serde(default)]
    output_ref: Option<PayloadRef>,
    #[serde(default)]
    steps: Vec<Glance>,
    #[serde(default)]
    outcome: Option<Box<Glance>>,
    #[serde(default)]
    error: Option<Failed>,
}

/// How a chain's job failed says which steps ran before.
#[derive(Deserialize)]
struct Failed {
    detail: Box<Glance>,
}

impl Glance {
    fn collect(self, references: &mut Vec<PayloadRef>) {
        let Self {
            output_ref,
            steps,
            outcome,
            error,
        } = self;
        for part in steps {
            part.collect(references);
        }
        for part in outcome.into_iter().chain(error.map(|failed| failed.detail)) {
            part.collect(references);
        }
        if let Some(reference) = output_ref
            && !references.contains(&reference)
        {
            references.push(reference);
        }
    }
}

/// Where the outputs lie that a document only refers to, each once.
pub fn references(document: &[u8]) -> Result<Vec<PayloadRef>, serde_json::Error> {
    let glance: Glance = serde_json::from_slice(document)?;
    let mut references = Vec::new();
    glance.collect(&mut references);
    Ok(references)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_refers_to_an_output_once_however_many_parts_say_so() {
        let reference = format!(
            r#"{{"object":"o","digest":"sha256:{}","size":9}}"#,
            "0".repeat(64)
        );
        let chain = format!(
            r#"{{"steps":[{{"output":"output_ref"}},{{"output_ref":{reference}}}],"output_ref":{reference}}}"#
        );
        assert_eq!(references(chain.as_bytes()).unwrap().len(), 1);
        assert_eq!(
            references(br#"{"output":"{\"output_ref\":1}","output_ref":null}"#).unwrap(),
            []
        );
        assert!(references(br#"{"output_ref":"elsewhere"}"#).is_err());
        let record = format!(
            r#"{{"state":"failed","outcome":{chain},"error":{{"code":"x","detail":{{"steps":[{{"output_ref":{reference}}}]}}}}}}"#
        );
        assert_eq!(references(record.as_bytes()).unwrap().len(), 1);
        assert_eq!(references(br#"{"outcome":null,"error":null}"#).unwrap(), []);
    }
}
