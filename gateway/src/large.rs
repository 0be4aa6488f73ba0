//! Payloads too large for a message: they go to workers, and come back, by reference, and no HTTP client ever sees one.
//!
//! What is fetched is verified before any of it is sent on, and what was ours alone is deleted after use.

use async_nats::jetstream::object_store::ObjectStore;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};
use wess_schemas::ErrorCode;
use wess_schemas::invocation::Input;
use wess_schemas::payload::PayloadRef;
use wess_service::payloads::Payloads;

use crate::admission::{Admission, Reservation};
use crate::problem::Problem;
use crate::workers::{json, unreadable};

const OUTPUT_REF: &str = "output_ref";

/// The object stores of a gateway. Cheap to clone.
#[derive(Clone)]
pub struct Stores {
    /// Uploads and large payloads.
    pub payloads: Payloads,
    /// Wasm bytes, to be read only.
    pub blobs: ObjectStore,
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

    /// Fetches an output and deletes it.
    pub async fn take_output(&self, admission: &Admission, reference: &PayloadRef) -> Result<Bytes, Problem> {
        let room = room_for(admission, std::slice::from_ref(reference)).await?;
        let output = self.fetch(reference).await?;
        self.payloads.discard(reference).await;
        Ok(room.hold(output))
    }

    /// Puts the outputs that a document refers to into it, and deletes them where they were.
    pub async fn complete(
        &self,
        admission: &Admission,
        document: &[u8],
        references: &[PayloadRef],
    ) -> Result<Bytes, Problem> {
        let room = room_for(admission, references).await?;
        let mut document: Map<String, Value> =
            serde_json::from_slice(document).map_err(|error| unreadable(&error))?;
        if let Some(Value::Array(steps)) = document.get_mut("steps") {
            for step in steps.iter_mut().filter_map(Value::as_object_mut) {
                self.complete_part(step).await?;
            }
        }
        self.complete_part(&mut document).await?;
        for reference in references {
            self.payloads.discard(reference).await;
        }
        Ok(room.hold(json(&document)?))
    }

    async fn complete_part(&self, part: &mut Map<String, Value>) -> Result<(), Problem> {
        let Some(reference) = part.remove(OUTPUT_REF).filter(|reference| !reference.is_null()) else {
            return Ok(());
        };
        let reference = serde_json::from_value(reference).map_err(|error| unreadable(&error))?;
        let (field, text) = output_field(self.fetch(&reference).await?);
        part.insert(field.into(), text.into());
        Ok(())
    }

    async fn fetch(&self, reference: &PayloadRef) -> Result<Bytes, Problem> {
        let output = self.payloads.get(reference, reference.size).await;
        output.map_err(|error| lost(&error))
    }
}

fn output_field(bytes: Bytes) -> (&'static str, String) {
    match String::from_utf8(bytes.into()) {
        Ok(text) => ("output", text),
        Err(not_text) => ("output_base64", BASE64.encode(not_text.as_bytes())),
    }
}

/// All at once: whoever held room for one output while it waits for another's could wait for itself.
async fn room_for(admission: &Admission, references: &[PayloadRef]) -> Result<Reservation, Problem> {
    let bytes = references
        .iter()
        .fold(0u64, |sum, reference| sum.saturating_add(reference.size));
    admission.output(bytes).await.map_err(|refused| lost(&refused))
}

/// The guest has run, but what it gave cannot be handed on.
fn lost(cause: &(dyn std::error::Error + 'static)) -> Problem {
    Problem::new(ErrorCode::Internal, "the output was lost on its way").because(cause)
}

/// Just enough of an outcome, or of a chain's, to see whether it is complete.
#[derive(Deserialize)]
struct Glance {
    #[serde(default)]
    output_ref: Option<PayloadRef>,
    #[serde(default)]
    steps: Vec<Glance>,
}

/// Where the outputs lie that a document only refers to, each once.
pub fn references(document: &[u8]) -> Result<Vec<PayloadRef>, serde_json::Error> {
    let Glance { output_ref, steps } = serde_json::from_slice(document)?;
    let mut references: Vec<PayloadRef> = Vec::new();
    for reference in steps
        .into_iter()
        .filter_map(|step| step.output_ref)
        .chain(output_ref)
    {
        if !references.contains(&reference) {
            references.push(reference);
        }
    }
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
    }

    #[test]
    fn bytes_that_are_no_text_are_base64() {
        assert_eq!(
            output_field(Bytes::from_static(b"text")),
            ("output", "text".into())
        );
        assert_eq!(
            output_field(Bytes::from_static(&[0xff])),
            ("output_base64", "/w==".into())
        );
    }
}
