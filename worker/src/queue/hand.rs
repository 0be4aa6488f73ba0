//! One call from the queue, from its message to its reply and its ack.
//!
//! Invariant: a message is acked once its reply is on its way, or once the queue holds it again; a guest that may have run
//! runs again only for a caller who gave a key.

use std::time::{Duration, Instant};

use async_nats::Subject;
use async_nats::jetstream::{self, AckKind, message::Acker};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::MissedTickBehavior;
use wess_schemas::limits::MAX_WAIT_MS;
use wess_schemas::subject::Endpoint;
use wess_schemas::{ErrorBody, ErrorCode, JobId, header};
use wess_service::bus::{Reply, Request};
use wess_service::queue::QueueError;
use wess_service::queue::calls::QueuedCall;
use wess_service::queue::overdue::Overdue;

use super::spill::{Inner, Taker};
use crate::call::{Call, QueuedAnswer, QueuedResult};
use crate::control;
use crate::endpoints::error_reply;
use crate::endpoints::invoke::{self, Form, Output};
use crate::executor::respond::{Responder, Sending};
use crate::executor::{Arrival, expired};

/// A heartbeat is sent so often within the time after which a message would be given to somebody else.
const BEATS: u32 = 3;

/// A call that this worker has taken.
pub(super) struct InHand {
    call: QueuedCall,
    endpoint: Endpoint,
    /// The name of its message, made when it was queued.
    id: JobId,
    /// Its number in the queue.
    number: u64,
    queued_ms: u64,
    is_redelivered: bool,
    acker: Acker,
    heartbeat: Duration,
    permit: OwnedSemaphorePermit,
}

/// A message that is no call of ours.
struct Unread {
    acker: Acker,
    /// Who is told what, if it says so much.
    told: Option<(Subject, ErrorBody)>,
}

/// Why a call is not begun.
enum Verdict {
    /// Its caller is told.
    Answer(Box<ErrorBody>),
    /// Its wait has ended: its caller is told, unless who queued it does.
    Overdue(Box<ErrorBody>),
    /// Nobody is told.
    Drop,
}

impl Taker {
    /// Begins a call, or puts it back if it is not welcome. Gives whether it is kept, and was not too late.
    pub(super) fn take(
        &self,
        message: jetstream::Message,
        permit: OwnedSemaphorePermit,
        ack_wait: Duration,
        is_welcome: bool,
    ) -> bool {
        self.queue.0.stats.taken.inc();
        let taker = self.clone();
        let hand = match self.read(message, permit, ack_wait) {
            Ok(hand) => hand,
            Err(unread) => {
                self.spawn(async move { taker.drop_unread(*unread).await });
                return false;
            }
        };
        match self.judge(&hand) {
            Err(Verdict::Drop) => self.spawn(async move { hand.settle(AckKind::Term).await }),
            Err(Verdict::Answer(error)) => {
                self.queue.0.stats.refused.fail_from_anywhere(error.code());
                self.spawn(async move { taker.answer(hand, error_reply(&error)).await });
            }
            Err(Verdict::Overdue(error)) => {
                self.spawn(async move { taker.answer_overdue(hand, *error).await });
            }
            Ok(()) if is_welcome => {
                self.begin(hand);
                return true;
            }
            Ok(()) => self.spawn(async move { taker.put_back_or_begin(hand).await }),
        }
        false
    }

    fn read(
        &self,
        message: jetstream::Message,
        permit: OwnedSemaphorePermit,
        ack_wait: Duration,
    ) -> Result<InHand, Box<Unread>> {
        let subjects = &self.queue.0.parts.subjects;
        // One that does not say how often it was delivered counts as delivered before.
        let (delivered, number, queued_ms) = message.info().map_or((2, 0, 0), |info| {
            let published_ms = info.published.unix_timestamp_nanos() / 1_000_000;
            let queued_ms = u64::try_from(published_ms).unwrap_or(0);
            (info.delivered, info.stream_sequence, queued_ms)
        });
        let (message, acker) = message.split();
        let garbage = |acker, why: &dyn std::fmt::Display| {
            tracing::warn!(%why, "dropped a message from the queue of calls");
            Box::new(Unread { acker, told: None })
        };
        let id = match subjects.parse_queued(&message.subject) {
            Ok((.., id)) => id,
            Err(why) => return Err(garbage(acker, &why)),
        };
        let call = match QueuedCall::read(message) {
            Ok(call) => call,
            Err(why) => return Err(garbage(acker, &why)),
        };
        let endpoint = match subjects.parse(&call.subject) {
            Ok(endpoint) => endpoint,
            Err(why) => {
                let error = ErrorBody::new(ErrorCode::InvalidRequest, why.to_string());
                let told = call.reply.map(|reply| (reply, error));
                return Err(Box::new(Unread { acker, told }));
            }
        };
        Ok(InHand {
            call,
            endpoint,
            id,
            number,
            queued_ms,
            is_redelivered: delivered > 1,
            acker,
            heartbeat: ack_wait / BEATS,
            permit,
        })
    }

    async fn drop_unread(&self, Unread { acker, told }: Unread) {
        if let Some((reply, error)) = told
            && !self.is_forged(&reply)
        {
            let client = &self.queue.0.parts.connection.client;
            control::send(client, reply, error_reply(&error)).await;
        }
        settle(&acker, AckKind::Term).await;
    }

    fn is_forged(&self, reply: &Subject) -> bool {
        let parts = &self.queue.0.parts;
        let forged = !parts.subjects.may_reply_to(reply);
        if forged {
            parts.control.forged_replies().inc();
            tracing::warn!(%reply, "a call in the queue named a reply subject that nobody may reply to");
        }
        forged
    }

    /// Whether a call may be begun at all.
    fn judge(&self, hand: &InHand) -> Result<(), Verdict> {
        let parts = &self.queue.0.parts;
        if hand
            .call
            .reply
            .as_ref()
            .is_some_and(|reply| self.is_forged(reply))
        {
            return Err(Verdict::Drop);
        }
        let named = |error: ErrorBody| {
            Box::new(match hand.key() {
                Some(key) => error.for_job(key),
                None => error,
            })
        };
        if hand.call.time_left((parts.clock)().unix_ms()).is_none() {
            return Err(Verdict::Overdue(named(expired())));
        }
        if hand.is_redelivered && !may_repeat(&hand.endpoint, hand.key().is_some()) {
            return Err(Verdict::Answer(named(lost(&hand.endpoint))));
        }
        Ok(())
    }

    /// Gives a call to an executor, at once and so in the order of the queue, or a request to the control plane.
    fn begin(&self, hand: InHand) {
        let taker = self.clone();
        if let Endpoint::Invoke | Endpoint::InvokeRaw(..) = hand.endpoint {
            let form = invoke::form(&hand.endpoint, Some(&hand.call.headers));
            let dispatched = self.dispatch(&hand, form);
            self.spawn(async move { taker.finish(hand, form, dispatched).await });
        } else {
            self.spawn(async move { taker.request(hand).await });
        }
    }

    fn dispatch(&self, hand: &InHand, form: Form) -> Result<oneshot::Receiver<QueuedResult>, ErrorBody> {
        let call = self
            .parse(hand)
            .map_err(|error| error.for_job(JobId::generate()))?;
        let (job_id, (answer, answered)) = (call.job_id.clone(), oneshot::channel());
        let arrival = Arrival::Queued(Box::new(call), form, answer);
        let dispatched = self.queue.0.parts.executors.dispatch_to_idlest(arrival);
        dispatched.map_err(|error| error.for_job(job_id))?;
        Ok(answered)
    }

    /// The call as an executor takes it: it came when it was queued, and may wait until its deadline.
    fn parse(&self, hand: &InHand) -> Result<Call, ErrorBody> {
        let QueuedCall { headers, payload, .. } = &hand.call;
        let (now, now_ms) = (Instant::now(), (self.queue.0.parts.clock)().unix_ms());
        let in_queue = Duration::from_millis(now_ms.saturating_sub(hand.queued_ms).min(MAX_WAIT_MS));
        let arrived = now.checked_sub(in_queue).unwrap_or(now);
        let mut call = invoke::parse(hand.endpoint.clone(), Some(headers), payload.clone(), arrived)?;
        call.wait = now.duration_since(arrived) + hand.call.time_left(now_ms).unwrap_or_default();
        Ok(call)
    }

    /// Waits for a call's guest, and answers its caller. A call that a stopping worker did not run goes back.
    async fn finish(
        &self,
        hand: InHand,
        form: Form,
        dispatched: Result<oneshot::Receiver<QueuedResult>, ErrorBody>,
    ) {
        let stopped = || ErrorBody::new(ErrorCode::Internal, "the worker stopped during the call");
        let refused = dispatched.as_ref().err().map(ErrorBody::code);
        let result = match dispatched {
            Ok(answered) => hand.keep(answered).await.unwrap_or_else(|_| Err(stopped())),
            Err(error) => Err(error),
        };
        let was_not_run =
            |error: &ErrorBody| error.code() == ErrorCode::Unavailable && !error.error.guest_ran;
        if self.lifecycle.shutdown.is_cancelled()
            && result.as_ref().is_err_and(was_not_run)
            && self.put_back(&hand).await.is_ok()
        {
            return;
        }
        let Inner { parts, stats, .. } = &*self.queue.0;
        if let Some(code) = refused {
            stats.refused.fail_from_anywhere(code);
        }
        let responder = Responder::Nats(form, hand.call.reply.clone());
        let inline_bytes = parts.connection.client.max_payload() / 2;
        let result = match result {
            Ok(QueuedAnswer::Returned) => return self.put_back_or_begin(hand).await,
            Ok(QueuedAnswer::Reply(reply)) => return self.answer(hand, reply).await,
            Ok(QueuedAnswer::Finished(finished)) => Ok(finished),
            Err(error) => Err(error),
        };
        let sending = match responder.answer(result, inline_bytes, &parts.worker) {
            Sending::Store(finished, output, responder) => {
                let job_id = finished.job_id.clone();
                let reply = match hand.keep(parts.storage.put_output(&output)).await {
                    Ok(stored) => invoke::reply(form, *finished, Output::Stored(stored), &parts.worker),
                    Err(error) => error_reply(&error.for_job(job_id)),
                };
                responder.deliver(reply)
            }
            sending => sending,
        };
        match sending {
            Sending::Publish(_, reply) => self.answer(hand, reply).await,
            Sending::Done | Sending::Store(..) | Sending::Respond(_) => hand.settle(AckKind::Ack).await,
        }
    }

    /// Has the control plane answer a request.
    async fn request(&self, mut hand: InHand) {
        let Inner { parts, requests, .. } = &*self.queue.0;
        if hand.endpoint != Endpoint::Chain
            && let Ok(permit) = hand.keep(requests.clone().acquire_owned()).await
        {
            // It runs no guest, so it needs no share of the slots.
            hand.permit = permit;
        }
        let mut headers = hand.call.headers.clone();
        if hand.endpoint == Endpoint::JobsSubmit && hand.key().is_none() && !names_job(&hand.call.payload) {
            // Were it delivered again, it would be the same job.
            headers.insert(header::MSG_ID, hand.id.as_str());
        }
        let request = Request {
            subject: hand.call.subject.clone(),
            trace: None,
            headers,
            payload: hand.call.payload.clone(),
            timeout: Duration::default(),
        };
        let inline_bytes = parts.connection.client.max_payload() / 2;
        let handling = self
            .lifecycle
            .cut
            .run_until_cancelled(parts.control.handle(request, inline_bytes));
        let reply = hand.keep(handling).await;
        let reply = reply.unwrap_or_else(|| parts.control.cut_short(&hand.call.subject));
        self.answer(hand, reply).await;
    }

    /// Sends a reply, then settles the message: both go over one connection, in this order.
    async fn answer(&self, hand: InHand, reply: Reply) {
        if let Some(subject) = hand.call.reply.clone() {
            control::send(&self.queue.0.parts.connection.client, subject, reply).await;
        }
        hand.settle(AckKind::Ack).await;
    }

    /// Tells a caller that its wait has ended, unless who queued the call has found that out meanwhile.
    async fn answer_overdue(&self, hand: InHand, error: ErrorBody) {
        let Inner {
            parts,
            jetstream,
            stats,
            ..
        } = &*self.queue.0;
        if !Overdue::is_to_tell(jetstream, &parts.subjects, hand.number).await {
            return hand.settle(AckKind::Ack).await;
        }
        stats.expired.inc();
        stats.refused.fail_from_anywhere(error.code());
        self.answer(hand, error_reply(&error)).await;
    }

    async fn put_back_or_begin(&self, hand: InHand) {
        match self.put_back(&hand).await {
            Ok(()) => {}
            Err(error @ QueueError::Unknown { .. }) => {
                let told = ErrorBody::new(ErrorCode::Internal, error.to_string());
                self.answer(hand, error_reply(&told)).await;
            }
            Err(_) => self.begin(hand),
        }
    }

    /// Puts a call back for another worker; it keeps its deadline.
    async fn put_back(&self, hand: &InHand) -> Result<(), QueueError> {
        let Inner {
            parts,
            jetstream,
            stats,
            ..
        } = &*self.queue.0;
        let call = hand.call.clone();
        let now_ms = (parts.clock)().unix_ms();
        let left = call.time_left(now_ms).unwrap_or_default();
        let number = call
            .enqueue(jetstream, &parts.subjects, now_ms)
            .await
            .inspect_err(|error| tracing::warn!(%error, "a call could not be put back into the queue"))?;
        if let Some(reply) = hand.call.reply.clone() {
            parts
                .overdue
                .add(tokio::time::Instant::now() + left, number, reply);
        }
        stats.handed_back.inc();
        settle(&hand.acker, AckKind::Ack).await;
        Ok(())
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks
            .spawn(self.lifecycle.brief("answer a call from the queue", task));
    }
}

impl InHand {
    /// The caller's idempotency key.
    fn key(&self) -> Option<JobId> {
        let key = self.call.headers.get(header::MSG_ID)?;
        key.as_str().parse().ok()
    }

    /// Waits for something, telling the server that the call is still in hand.
    async fn keep<T>(&self, wait: impl Future<Output = T>) -> T {
        let mut wait = std::pin::pin!(wait);
        let begins = tokio::time::Instant::now() + self.heartbeat;
        let mut beats = tokio::time::interval_at(begins, self.heartbeat.max(Duration::from_millis(1)));
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                come = &mut wait => return come,
                _ = beats.tick() => settle(&self.acker, AckKind::Progress).await,
            }
        }
    }

    async fn settle(self, kind: AckKind) {
        settle(&self.acker, kind).await;
        drop(self.permit);
    }
}

async fn settle(acker: &Acker, kind: AckKind) {
    if let Err(error) = acker.ack_with(kind).await {
        tracing::debug!(%error, "a message from the queue of calls was not settled");
    }
}

/// What may simply be done again when it is not known whether it was done.
fn may_repeat(endpoint: &Endpoint, has_key: bool) -> bool {
    match endpoint {
        Endpoint::Invoke | Endpoint::InvokeRaw(..) | Endpoint::Chain => has_key,
        Endpoint::Http(_)
        | Endpoint::ModulesDelete(_)
        | Endpoint::DeadRedrive(_)
        | Endpoint::DeadPurge
        | Endpoint::BindingsDelete(_) => false,
        Endpoint::Store
        | Endpoint::ModulesList
        | Endpoint::ModulesGet(_)
        | Endpoint::ModulesTag(_)
        | Endpoint::ModulesFetch(_)
        | Endpoint::JobsSubmit
        | Endpoint::JobsGet(_)
        | Endpoint::JobsWait(_)
        | Endpoint::JobsCancel(_)
        | Endpoint::JobsList
        | Endpoint::DeadList
        | Endpoint::DeadGet(_)
        | Endpoint::BindingsPut(_)
        | Endpoint::BindingsList
        | Endpoint::BindingsGet(_) => true,
    }
}

fn lost(endpoint: &Endpoint) -> ErrorBody {
    match endpoint {
        Endpoint::Invoke | Endpoint::InvokeRaw(..) | Endpoint::Http(_) | Endpoint::Chain => ErrorBody::new(
            ErrorCode::Internal,
            "the worker that had this call was lost, and its guest may have run",
        ),
        _ => ErrorBody::new(
            ErrorCode::Internal,
            "the worker that had this request was lost, and it may have been done",
        )
        .before_guest(),
    }
}

/// Whether the body of a submission gives the job an id.
fn names_job(payload: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Named {
        job_id: Option<IgnoredAny>,
    }
    serde_json::from_slice::<Named>(payload).is_ok_and(|named| named.job_id.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_caller_with_a_key_has_a_guest_run_again() {
        let raw = Endpoint::InvokeRaw("upper".parse().unwrap(), None);
        for endpoint in [Endpoint::Invoke, raw, Endpoint::Chain] {
            assert!(may_repeat(&endpoint, true) && !may_repeat(&endpoint, false));
            assert!(lost(&endpoint).error.guest_ran);
        }
        for endpoint in [Endpoint::DeadPurge, Endpoint::ModulesDelete("a".parse().unwrap())] {
            assert!(!may_repeat(&endpoint, true) && !lost(&endpoint).error.guest_ran);
        }
        assert!(may_repeat(&Endpoint::Store, false) && may_repeat(&Endpoint::JobsSubmit, false));
    }

    #[test]
    fn a_submission_is_named_by_its_own_id_if_it_has_one() {
        assert!(names_job(br#"{"job_id":"a","invoke":{"module":"a"}}"#));
        for unnamed in [&br#"{"invoke":{"module":"a"}}"#[..], br#"{"job_id":null}"#, b"{]"] {
            assert!(!names_job(unnamed));
        }
    }
}
