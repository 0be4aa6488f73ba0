//! HTTP requests over NATS, as a client without a gateway sends them: one message out, one back, or frames.

use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};
use wess_harness::eventually;
use wess_schemas::header::{
    HTTP_BODY, HTTP_CREDIT, HTTP_FRAME, HTTP_HEADERS, HTTP_PATH, HTTP_SEQ, HTTP_STATUS, HTTP_WINDOW,
    TIMEOUT_MS,
};
use wess_schemas::{ErrorBody, ErrorCode};

use crate::rig::Rig;

fn facts(lines: &[(&str, &str)]) -> HeaderMap {
    let mut facts = HeaderMap::new();
    for (name, value) in lines {
        facts.insert(*name, *value);
    }
    facts
}

async fn client(rig: &Rig) -> async_nats::Client {
    async_nats::connect(rig.nats.url()).await.unwrap()
}

/// The reply to a plain request.
async fn ask(rig: &Rig, lines: &[(&str, &str)], payload: &'static str) -> async_nats::Message {
    let request = async_nats::Request::new()
        .headers(facts(lines))
        .payload(payload.into());
    let client = client(rig).await;
    client.send_request("wess.http.web", request).await.unwrap()
}

async fn refused(rig: &Rig, lines: &[(&str, &str)]) -> (ErrorCode, String) {
    let reply = ask(rig, lines, "").await;
    let headers = reply.headers.unwrap();
    assert!(headers.get("Nats-Service-Error-Code").is_some(), "{headers:?}");
    let error: ErrorBody = serde_json::from_slice(&reply.payload).unwrap();
    (error.code(), error.error.message)
}

#[tokio::test]
async fn one_message_is_answered_by_one() {
    let rig = Rig::start(&["web"]).await;
    let client = client(&rig).await;
    let reply = client.request("wess.http.web", "".into()).await.unwrap();
    assert_eq!(reply.payload, "hello from wess\n");
    let headers = reply.headers.unwrap();
    assert_eq!(headers.get(HTTP_STATUS).unwrap().as_str(), "200");
    let lines: Value = serde_json::from_str(headers.get(HTTP_HEADERS).unwrap().as_str()).unwrap();
    assert_eq!(lines, json!([["content-type", "text/plain; charset=utf-8"]]));
    let echoed = ask(
        &rig,
        &[(HTTP_PATH, "/echo"), (HTTP_HEADERS, r#"[["x-mine","1"]]"#)],
        "the body",
    )
    .await;
    assert_eq!(echoed.payload, "the body");
    assert!(
        echoed
            .headers
            .unwrap()
            .get(HTTP_HEADERS)
            .unwrap()
            .as_str()
            .contains("x-mine")
    );
    rig.is_unharmed().await;
}

#[tokio::test]
async fn what_cannot_be_answered_in_one_message_is_refused_by_code() {
    let rig = Rig::start(&["web"]).await;
    for (lines, code, words) in [
        (
            &[(HTTP_PATH, "/big")][..],
            ErrorCode::OutputTooLarge,
            "larger than a message",
        ),
        (
            &[(HTTP_PATH, "/short")],
            ErrorCode::GuestTrapped,
            "did not finish",
        ),
        (&[(HTTP_PATH, "/trap")], ErrorCode::GuestTrapped, "unreachable"),
        (
            &[(HTTP_PATH, "/loop"), (TIMEOUT_MS, "100")],
            ErrorCode::DeadlineExceeded,
            "100 ms",
        ),
        (&[(HTTP_BODY, "stream")], ErrorCode::InvalidRequest, HTTP_WINDOW),
        (
            &[(HTTP_BODY, "stream"), (HTTP_WINDOW, "much")],
            ErrorCode::InvalidRequest,
            HTTP_WINDOW,
        ),
        (&[(HTTP_PATH, "x")], ErrorCode::InvalidRequest, HTTP_PATH),
        (&[(HTTP_HEADERS, "{}")], ErrorCode::InvalidRequest, HTTP_HEADERS),
    ] {
        let (found, text) = refused(&rig, lines).await;
        assert_eq!(found, code, "{lines:?}: {text}");
        assert!(text.contains(words), "{lines:?}: {text}");
    }
    rig.is_unharmed().await;
}

/// An exchange by hand: our inbox, and where the worker listens.
struct Talk {
    client: async_nats::Client,
    inbox: async_nats::Subscriber,
    own: String,
    worker: String,
}

impl Talk {
    async fn start(rig: &Rig, path: &str, window: &str) -> Self {
        let client = client(rig).await;
        let own = client.new_inbox();
        let mut inbox = client.subscribe(own.clone()).await.unwrap();
        let lines = [
            (HTTP_PATH, path),
            (HTTP_BODY, "stream"),
            (HTTP_WINDOW, window),
            (TIMEOUT_MS, "60000"),
        ];
        let sent =
            client.publish_with_reply_and_headers("wess.http.web", own.clone(), facts(&lines), "".into());
        sent.await.unwrap();
        let first = inbox.next().await.unwrap();
        assert_eq!(kind(&first), "credit");
        Self {
            client,
            inbox,
            own,
            worker: first.reply.unwrap().into_string(),
        }
    }

    async fn send(&self, lines: &[(&str, &str)], payload: Vec<u8>) {
        let sent = self.client.publish_with_reply_and_headers(
            self.worker.clone(),
            self.own.clone(),
            facts(lines),
            Bytes::from(payload),
        );
        sent.await.unwrap();
    }

    /// The next message that is no beat.
    async fn next(&mut self) -> async_nats::Message {
        loop {
            let message = self.inbox.next().await.unwrap();
            if kind(&message) != "beat" {
                return message;
            }
        }
    }
}

fn kind(message: &async_nats::Message) -> String {
    let headers = message.headers.as_ref().unwrap();
    headers
        .get(HTTP_FRAME)
        .map_or("head".into(), |kind| kind.as_str().to_owned())
}

#[tokio::test]
async fn a_worker_sends_no_more_than_it_was_granted() {
    let rig = Rig::start(&["web"]).await;
    let mut talk = Talk::start(&rig, "/big", "10000").await;
    assert_eq!(kind(&talk.next().await), "head");
    for (granted, seq) in [(10_000, 0), (5_000, 1)] {
        let mut bytes = 0;
        while bytes < granted {
            let data = talk.next().await;
            assert_eq!(kind(&data), "data");
            bytes += data.payload.len();
        }
        assert_eq!(bytes, granted, "after grant {seq}");
        talk.send(&[(HTTP_FRAME, "credit"), (HTTP_CREDIT, "5000")], vec![])
            .await;
    }
    drop(talk);
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_caller_that_breaks_the_rules_or_goes_away_is_broken_off_and_its_guest_ended() {
    let rig = Rig::start(&["web"]).await;
    let data = |seq: &'static str| [(HTTP_FRAME, "data"), (HTTP_SEQ, seq)];
    // A part is missing; more than was granted; no such frame.
    for (lines, bytes) in [
        (data("1"), 1),
        (data("0"), 600_000),
        ([(HTTP_FRAME, "nonsense"), (HTTP_SEQ, "0")], 1),
    ] {
        let mut talk = Talk::start(&rig, "/echo", "100000").await;
        assert_eq!(kind(&talk.next().await), "head");
        talk.send(&lines, vec![0; bytes]).await;
        assert_eq!(kind(&talk.next().await), "abort", "{lines:?}");
        rig.worker.comes_to_rest().await;
    }
    let mut gone = Talk::start(&rig, "/echo", "100000").await;
    assert_eq!(kind(&gone.next().await), "head");
    gone.inbox.unsubscribe().await.unwrap();
    eventually("the guest to end", async || {
        rig.worker.comes_to_rest().await;
        Some(())
    })
    .await;
    rig.is_unharmed().await;
}

#[tokio::test]
async fn nobody_listens_where_a_record_could_be_forged() {
    let rig = Rig::start(&["web"]).await;
    let client = client(&rig).await;
    let mut forged = client.subscribe("wess.modules.list").await.unwrap();
    let published = client.publish_with_reply("wess.http.web", "wess.modules.list", "".into());
    published.await.unwrap();
    client.flush().await.unwrap();
    rig.is_unharmed().await;
    forged.unsubscribe().await.unwrap();
    assert!(forged.next().await.is_none(), "a reply was sent");
}
