//! One run for one message: what the guest gets, and what counts as its failure.

use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use bytes::Bytes;
use tokio::sync::oneshot;
use wess_schemas::binding::{Binding, ENV_SEQUENCE, ENV_STREAM, ENV_SUBJECT};
use wess_schemas::limits::MAX_INPUT_BYTES;
use wess_schemas::{ErrorBody, ErrorCode, Invocation, JobId};
use wess_service::trace_context::TraceParent;

use super::answer::Outgoing;
use super::fit;
use super::origin::{self, Origin};
use crate::call::{Call, CallResult, Finished};
use crate::endpoints::invoke;

/// A message that a binding got.
pub struct Delivered<'a> {
    /// The binding.
    pub binding: &'a Binding,
    /// The message's subject.
    pub subject: &'a str,
    /// Its stream and its number in it, if it has one.
    pub place: Option<(&'a str, u64)>,
    /// Its headers.
    pub headers: Option<&'a HeaderMap>,
    /// Its body.
    pub payload: &'a Bytes,
}

impl Delivered<'_> {
    /// The run that it asks for, without its input.
    pub fn invocation(&self) -> Invocation {
        let mut invocation = fit::invocation(self.binding);
        let env = &mut invocation.env;
        env.insert(ENV_SUBJECT.into(), self.subject.into());
        if let Some((stream, sequence)) = self.place {
            env.insert(ENV_STREAM.into(), stream.into());
            env.insert(ENV_SEQUENCE.into(), sequence.to_string());
        }
        invocation
    }

    /// The call that runs it, waiting at most so long for a slot.
    pub fn call(&self, job_id: JobId, wait: Duration) -> Result<Call, ErrorBody> {
        origin::check_hops(self.hops())?;
        if self.payload.len() as u64 > MAX_INPUT_BYTES {
            let text = format!("the message has more than {MAX_INPUT_BYTES} bytes");
            return Err(ErrorBody::new(ErrorCode::PayloadTooLarge, text));
        }
        let mut call = invoke::from_invocation(self.invocation(), Instant::now())?;
        call.job_id = job_id;
        call.input.input = Some(self.payload.clone());
        call.wait = wait;
        call.trace = self.trace();
        Ok(call)
    }

    /// Whose it is, as its letter and its output say.
    pub fn origin(&self) -> Origin {
        Origin {
            binding: self.binding.name.clone(),
            publish_to: self.binding.publish_to.clone(),
            hops: self.hops(),
        }
    }

    /// How its output goes to a subject.
    pub fn outgoing<'b>(&'b self, target: &'b str, once: Option<&'b JobId>) -> Outgoing<'b> {
        Outgoing {
            binding: &self.binding.name,
            target,
            hops: self.hops(),
            trace: self.trace(),
            once,
        }
    }

    /// Through how many bindings it came.
    pub fn hops(&self) -> u32 {
        self.headers.map_or(0, origin::hops)
    }

    /// Which trace it belongs to.
    pub fn trace(&self) -> Option<TraceParent> {
        self.headers.and_then(TraceParent::of)
    }
}

/// Waits for the end of a call that an executor has.
pub async fn ended(answered: oneshot::Receiver<CallResult>) -> CallResult {
    let stopped = || ErrorBody::new(ErrorCode::Internal, "the worker stopped during the run");
    answered.await.unwrap_or_else(|_| Err(stopped()))
}

/// A guest that says by its exit code that it failed has failed: nobody else would see it.
pub fn succeeded(ended: CallResult) -> CallResult {
    match ended {
        Ok(Finished { answer, .. }) if answer.exit_code.is_some_and(|code| code != 0) => {
            let code = answer.exit_code.unwrap_or_default();
            let text = format!("the guest ended with exit code {code}");
            let failed = ErrorBody::new(ErrorCode::GuestTrapped, text);
            Err(failed.with("trap", "exit_code").with("exit_code", code))
        }
        ended => ended,
    }
}
