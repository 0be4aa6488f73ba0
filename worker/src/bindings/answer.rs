//! Where outputs go: the subject that the binding names, or the message's own reply subject.
//!
//! Publishes to nothing that [`Subjects::may_reply_to`] refuses, and to nothing that would run the binding again.
//!
//! [`Subjects::may_reply_to`]: wess_schemas::subject::Subjects::may_reply_to

use async_nats::Subject;
use wess_schemas::binding::Binding;
use wess_schemas::{ErrorBody, ErrorCode, JobId, header};
use wess_service::bus::Reply;

use super::Host;
use super::run::Delivered;
use crate::call::Finished;
use crate::control;
use crate::endpoints::error_reply;
use crate::endpoints::invoke::{self, Form, Output};

/// What headers and protocol add to a message, at most.
const OVERHEAD_BYTES: usize = 4096;

impl Host {
    /// Whether something may be published to a subject that a message named.
    pub(super) fn may_answer(&self, binding: &Binding, reply: &str) -> bool {
        self.subjects.may_reply_to(reply) && !binding.takes(reply)
    }

    /// Publishes an output where the binding says. A stream there takes what has the same `once` but once.
    pub(super) async fn publish(
        &self,
        delivered: &Delivered<'_>,
        target: &str,
        finished: Finished,
        once: Option<&JobId>,
    ) -> Result<(), ErrorBody> {
        let Reply { mut headers, payload } = self.output(Form::Raw, finished).await?;
        headers.insert(header::BINDING, delivered.binding.name.as_str());
        headers.insert(header::HOPS, (delivered.hops() + 1).to_string());
        if let Some(once) = once {
            headers.insert(header::MSG_ID, once.as_str());
        }
        if let Some(trace) = delivered.trace() {
            trace.child().write(&mut headers);
        }
        let client = &self.connection.client;
        if payload.len() > client.max_payload().saturating_sub(OVERHEAD_BYTES) {
            let text = format!(
                "the output has {} bytes, more than a message carries",
                payload.len()
            );
            return Err(ErrorBody::new(ErrorCode::OutputTooLarge, text));
        }
        let published = client
            .publish_with_headers(target.to_owned(), headers, payload)
            .await;
        published.map_err(|error| ErrorBody::new(ErrorCode::Internal, error.to_string()))
    }

    /// Answers who asked by a message, as calls are answered.
    pub(super) async fn reply(&self, form: Form, reply: Subject, ended: Result<Finished, ErrorBody>) {
        let answer = match ended {
            Ok(finished) => self.output(form, finished).await,
            Err(error) => Err(error),
        };
        let answer = answer.unwrap_or_else(|error| error_reply(&error));
        control::send(&self.connection.client, reply, answer).await;
    }

    /// An output in the form of a raw call's reply; one that is too large for a message is stored first.
    async fn output(&self, form: Form, mut finished: Finished) -> Result<Reply, ErrorBody> {
        let inline_bytes = self.connection.client.max_payload() / 2;
        let output = match finished.answer.output.take() {
            Some(bytes) if invoke::size_bytes(form, &bytes) > inline_bytes => {
                Output::Stored(self.registry.storage().put_output(&bytes).await?)
            }
            output => Output::Inline(output),
        };
        Ok(invoke::reply(form, finished, output, &self.worker))
    }
}
