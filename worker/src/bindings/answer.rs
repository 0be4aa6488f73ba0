//! Where outputs go: the subject that the binding names, or the message's own reply subject.
//!
//! Publishes to nothing that [`Subjects::may_reply_to`] refuses, and to nothing that would run the binding again.
//!
//! [`Subjects::may_reply_to`]: wess_schemas::subject::Subjects::may_reply_to

use async_nats::{Client, Subject};
use wess_schemas::binding::Binding;
use wess_schemas::{BindingName, ErrorBody, ErrorCode, JobId, WorkerId, header};
use wess_service::bus::Reply;
use wess_service::trace_context::TraceParent;

use super::Host;
use crate::call::Finished;
use crate::control;
use crate::endpoints::error_reply;
use crate::endpoints::invoke::{self, Form, Output};
use crate::registry::Storage;

/// What headers and protocol add to a message, at most.
const OVERHEAD_BYTES: usize = 4096;

/// The way out for what guests answer. Cheap to clone.
#[derive(Clone)]
pub struct Outputs {
    /// The worker's connection, over which it also acknowledges.
    pub client: Client,
    /// Where outputs go that are too large for a message.
    pub storage: Storage,
    /// This worker.
    pub worker: WorkerId,
}

/// How one output goes out.
pub struct Outgoing<'a> {
    /// Whose.
    pub binding: &'a BindingName,
    /// Where to.
    pub target: &'a str,
    /// Through how many bindings its message came.
    pub hops: u32,
    /// Which trace its message belongs to.
    pub trace: Option<TraceParent>,
    /// A stream at the target takes what has the same but once.
    pub once: Option<&'a JobId>,
}

impl Outputs {
    /// Publishes an output where the binding says.
    pub async fn publish(&self, outgoing: Outgoing<'_>, finished: Finished) -> Result<(), ErrorBody> {
        let Reply { mut headers, payload } = self.output(Form::Raw, finished).await?;
        headers.insert(header::BINDING, outgoing.binding.as_str());
        headers.insert(header::HOPS, (outgoing.hops + 1).to_string());
        if let Some(once) = outgoing.once {
            headers.insert(header::MSG_ID, once.as_str());
        }
        if let Some(trace) = outgoing.trace {
            trace.child().write(&mut headers);
        }
        if payload.len() > self.client.max_payload().saturating_sub(OVERHEAD_BYTES) {
            let text = format!(
                "the output has {} bytes, more than a message carries",
                payload.len()
            );
            return Err(ErrorBody::new(ErrorCode::OutputTooLarge, text));
        }
        let published = self
            .client
            .publish_with_headers(outgoing.target.to_owned(), headers, payload)
            .await;
        published.map_err(|error| ErrorBody::new(ErrorCode::Internal, error.to_string()))
    }

    /// An output in the form of a raw call's reply; one that is too large for a message is stored first.
    async fn output(&self, form: Form, mut finished: Finished) -> Result<Reply, ErrorBody> {
        let inline_bytes = self.client.max_payload() / 2;
        let output = match finished.answer.output.take() {
            Some(bytes) if !invoke::fits(form, &bytes, inline_bytes) => {
                Output::Stored(self.storage.put_output(&bytes).await?)
            }
            output => Output::Inline(output),
        };
        Ok(invoke::reply(form, finished, output, &self.worker))
    }
}

impl Host {
    /// Whether something may be published to a subject that a message named.
    pub(super) fn may_answer(&self, binding: &Binding, reply: &str) -> bool {
        self.subjects.may_reply_to(reply) && !binding.takes(reply)
    }

    /// Answers who asked by a message, as calls are answered.
    pub(super) async fn reply(&self, form: Form, reply: Subject, ended: Result<Finished, ErrorBody>) {
        let answer = match ended {
            Ok(finished) => self.outputs.output(form, finished).await,
            Err(error) => Err(error),
        };
        let answer = answer.unwrap_or_else(|error| error_reply(&error));
        control::send(&self.connection.client, reply, answer).await;
    }
}
