//! The generator that does not wait: so many calls a second whatever comes back, and what became of each.
//!
//! Invariant: every call has a reply subject of its own, so that none is taken for another; one that is answered twice ends
//! the run, as a wrong answer does.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use async_nats::{Client, ConnectOptions, Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use wess_schemas::header::SERVICE_ERROR_CODE;
use wess_schemas::{ErrorBody, ErrorCode};

use super::load::Expected;

/// Answers that may lie unread: all that come while something else is measured. The client would drop more.
const UNREAD: usize = 1 << 20;
/// Calls sent before answers are looked at again.
const BURST: u64 = 64;
/// How often calls are sent, while there are none to catch up with.
const STEP: Duration = Duration::from_millis(1);
/// How long the last answers may take: a call waits for 30 s in the queue unless it says otherwise.
const LAST_ANSWERS: Duration = Duration::from_secs(45);

/// What to send, how often and for how long.
#[derive(Debug, Clone)]
pub struct Flood {
    /// Where to.
    pub subject: String,
    /// What.
    pub payload: Bytes,
    /// What must come back, unless a refusal does.
    pub expected: Expected,
    /// How many a second.
    pub calls_per_s: f64,
    /// How long.
    pub duration: Duration,
}

/// What became of the calls.
#[derive(Debug, Default)]
pub struct Fates {
    /// How long it took to send them all.
    pub sending: Duration,
    /// How many were sent.
    pub sent: u64,
    /// Answered, whenever.
    pub answered: u64,
    /// Answered while others were still sent.
    pub answered_meanwhile: u64,
    /// Refused, by code.
    pub refused: BTreeMap<String, u64>,
    /// By number, whether its end is known.
    pub(super) settled: Vec<bool>,
}

impl Fates {
    /// Calls of which nothing is known.
    pub fn lost(&self) -> u64 {
        self.sent - self.answered - self.refused.values().sum::<u64>()
    }
}

/// One connection with its inbox.
pub struct Flooder {
    client: Client,
    inbox: String,
    answers: Subscriber,
}

impl Flooder {
    /// Connects and subscribes the inbox.
    pub async fn connect(url: &str) -> anyhow::Result<Self> {
        let options = ConnectOptions::new().subscription_capacity(UNREAD);
        let client = options.connect(url).await?;
        let inbox = client.new_inbox();
        let answers = client.subscribe(format!("{inbox}.*")).await?;
        client.flush().await?;
        Ok(Self {
            client,
            inbox,
            answers,
        })
    }

    /// Sends until the time is over, and takes what comes meanwhile.
    pub async fn offer(&mut self, flood: &Flood) -> anyhow::Result<Fates> {
        let mut fates = Fates::default();
        let started = Instant::now();
        while started.elapsed() < flood.duration {
            let due = (started.elapsed().as_secs_f64() * flood.calls_per_s) as u64;
            let burst = due.saturating_sub(fates.sent).min(BURST);
            for _ in 0..burst {
                self.send(flood, &mut fates).await?;
            }
            while let Some(Some(answer)) = self.answers.next().now_or_never() {
                fates.take(&answer, flood)?;
            }
            if burst < BURST {
                self.take_for(STEP, flood, &mut fates).await?;
            } else {
                tokio::task::yield_now().await;
            }
        }
        fates.sending = started.elapsed();
        fates.answered_meanwhile = fates.answered;
        Ok(fates)
    }

    /// Waits for the end of those that have none yet.
    pub async fn settle(&mut self, flood: &Flood, fates: &mut Fates) -> anyhow::Result<()> {
        let until = Instant::now() + LAST_ANSWERS;
        while fates.lost() > 0 && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            self.take_for(left, flood, fates).await?;
        }
        Ok(())
    }

    /// Takes the next answer, if one comes in time.
    async fn take_for(&mut self, time: Duration, flood: &Flood, fates: &mut Fates) -> anyhow::Result<()> {
        match tokio::time::timeout(time, self.answers.next()).await {
            Ok(answer) => fates.take(&answer.context("the connection is gone")?, flood),
            Err(_) => Ok(()),
        }
    }

    async fn send(&self, flood: &Flood, fates: &mut Fates) -> anyhow::Result<()> {
        let reply = format!("{}.{}", self.inbox, fates.sent);
        fates.sent += 1;
        fates.settled.push(false);
        let subject = flood.subject.clone();
        Ok(self
            .client
            .publish_with_reply(subject, reply, flood.payload.clone())
            .await?)
    }
}

impl Fates {
    fn take(&mut self, answer: &Message, flood: &Flood) -> anyhow::Result<()> {
        let number = answer.subject.rsplit('.').next();
        let number: Option<usize> = number.and_then(|number| number.parse().ok());
        let settled = number.and_then(|number| self.settled.get_mut(number));
        let settled = settled.context("an answer to nothing that was asked")?;
        ensure!(!std::mem::replace(settled, true), "a call was answered twice");
        match refusal(answer) {
            Some(code) => *self.refused.entry(code).or_default() += 1,
            None if flood.expected.is_met_by(&answer.payload) => self.answered += 1,
            None => bail!("{} answered {:?}", flood.subject, answer.payload),
        }
        Ok(())
    }
}

/// The code of an answer that is a refusal.
fn refusal(answer: &Message) -> Option<String> {
    if answer.status == Some(StatusCode::NO_RESPONDERS) {
        return Some(ErrorCode::NoWorkers.as_str().into());
    }
    answer.headers.as_ref()?.get(SERVICE_ERROR_CODE)?;
    let body = serde_json::from_slice::<ErrorBody>(&answer.payload);
    Some(body.map_or_else(|_| "without a code".into(), |body| body.code().as_str().into()))
}

#[cfg(test)]
mod tests {
    use async_nats::HeaderMap;

    use super::*;

    fn flood() -> Flood {
        Flood {
            subject: "subject".into(),
            payload: "a".into(),
            expected: Expected::Exactly("A".into()),
            calls_per_s: 1.0,
            duration: Duration::ZERO,
        }
    }

    fn answer(number: u32, payload: Vec<u8>, headers: Option<HeaderMap>) -> Message {
        Message {
            subject: format!("_INBOX.x.{number}").into(),
            reply: None,
            payload: payload.into(),
            headers,
            status: None,
            description: None,
            length: 0,
        }
    }

    fn sent(count: usize) -> Fates {
        Fates {
            sent: count as u64,
            settled: vec![false; count],
            ..Fates::default()
        }
    }

    #[test]
    fn each_call_is_answered_refused_by_its_code_or_lost() {
        let mut fates = sent(4);
        fates.take(&answer(0, b"A".into(), None), &flood()).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(SERVICE_ERROR_CODE, "503");
        let body = ErrorBody::new(ErrorCode::Overloaded, "too much");
        let refused = answer(2, serde_json::to_vec(&body).unwrap(), Some(headers));
        fates.take(&refused, &flood()).unwrap();
        let nobody = Message {
            status: Some(StatusCode::NO_RESPONDERS),
            ..answer(3, Vec::new(), None)
        };
        fates.take(&nobody, &flood()).unwrap();
        assert_eq!((fates.answered, fates.lost()), (1, 1));
        let codes: Vec<_> = fates.refused.into_iter().collect();
        assert_eq!(codes, [("no_workers".into(), 1), ("overloaded".into(), 1)]);
    }

    #[test]
    fn what_is_answered_twice_wrongly_or_unasked_ends_the_run() {
        let mut fates = sent(2);
        fates.take(&answer(0, b"A".into(), None), &flood()).unwrap();
        assert!(fates.take(&answer(0, b"A".into(), None), &flood()).is_err());
        assert!(fates.take(&answer(1, b"a".into(), None), &flood()).is_err());
        assert!(fates.take(&answer(2, b"A".into(), None), &flood()).is_err());
    }
}
