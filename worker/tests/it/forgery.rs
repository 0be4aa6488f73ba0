//! A reply subject that a caller made up to write somewhere else: such a request is neither run nor answered.

use async_nats::jetstream;
use futures_util::StreamExt;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use wess_harness::{NatsServer, guest};
use wess_schemas::ErrorCode;

use crate::faults::answers_again;
use crate::rig::{Rig, refused};

/// Reply subjects that nobody may reply to.
const FORGED: [&str; 9] = [
    "$KV.wess-modules.default.add",
    "$JS.API.STREAM.DELETE.KV_wess-modules",
    "$O.wess-blobs.M.x",
    "$SRV.PING",
    "wess.invoke.add",
    "wess.worker.beat",
    "wess",
    "some.*",
    "some.>",
];

/// Speaks the protocol by itself: client libraries may refuse what an attacker would send.
struct Attacker(BufReader<TcpStream>);

impl Attacker {
    async fn connect(nats: &NatsServer) -> Self {
        let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", nats.port())).await.unwrap());
        stream
            .get_mut()
            .write_all(b"CONNECT {\"verbose\":false,\"headers\":true,\"echo\":true}\r\n")
            .await
            .unwrap();
        Self(stream)
    }

    async fn publish(&mut self, subject: &str, reply: &str, headers: &str, payload: &[u8]) {
        self.publish_head(subject, reply, &format!("NATS/1.0\r\n{headers}\r\n"), payload)
            .await;
    }

    async fn publish_head(&mut self, subject: &str, reply: &str, head: &str, payload: &[u8]) {
        let line = format!(
            "HPUB {subject} {reply} {} {}\r\n",
            head.len(),
            head.len() + payload.len()
        );
        let message = [line.as_bytes(), head.as_bytes(), payload, b"\r\n"].concat();
        self.0.get_mut().write_all(&message).await.unwrap();
    }

    /// Waits until the server has taken everything.
    async fn flush(&mut self) {
        self.0.get_mut().write_all(b"PING\r\n").await.unwrap();
        let mut line = String::new();
        while line.trim_end() != "PONG" {
            line.clear();
            assert_ne!(
                self.0.read_line(&mut line).await.unwrap(),
                0,
                "the server hung up"
            );
            assert!(!line.starts_with("-ERR"), "{line}");
        }
    }
}

#[tokio::test]
async fn a_call_with_a_forged_reply_subject_is_neither_run_nor_answered_and_the_record_stays() {
    let rig = Rig::start(&["upper"]).await;
    let modules = jetstream::new(rig.caller.client.clone())
        .get_key_value("wess-modules")
        .await
        .unwrap();
    let before = modules.entry("default.add").await.unwrap().unwrap();
    let mut anything = rig.caller.client.subscribe("some.>").await.unwrap();
    rig.caller.client.flush().await.unwrap();
    let mut attacker = Attacker::connect(&rig.nats).await;
    for reply in FORGED {
        attacker.publish("wess.invoke.upper", reply, "", b"forged").await;
        attacker
            .publish("wess.invoke", reply, "", br#"{"module":"add","args":[2,3]}"#)
            .await;
    }
    attacker.flush().await;
    rig.worker
        .shows("wess_worker_forged_replies_total", 2 * FORGED.len() as u64)
        .await;
    let metrics = rig.worker.metrics().await;
    let ran = ["ok", "invalid_request", "internal"]
        .map(|code| metrics.read(&format!("wess_worker_calls_total{{code=\"{code}\"}}")));
    assert_eq!(ran, [0, 0, 0]);
    let after = modules.entry("default.add").await.unwrap().unwrap();
    assert_eq!((after.revision, after.value), (before.revision, before.value));
    rig.is_unharmed().await;
    anything.unsubscribe().await.unwrap();
    assert!(anything.next().await.is_none(), "a forged reply was sent");
}

#[tokio::test]
async fn a_change_with_a_forged_reply_subject_changes_nothing() {
    let rig = Rig::start(&[]).await;
    let mut attacker = Attacker::connect(&rig.nats).await;
    let upper = guest("upper");
    for reply in FORGED {
        attacker
            .publish("wess.store", reply, "Wess-Module: forged\r\n", &upper)
            .await;
        attacker.publish("wess.modules.delete.add", reply, "", b"").await;
        attacker
            .publish("wess.chain", reply, "", br#"{"steps":["add"],"input":[2,3]}"#)
            .await;
        attacker.publish("$SRV.INFO", reply, "", b"").await;
    }
    attacker.flush().await;
    rig.worker
        .shows(
            "wess_worker_forged_control_replies_total",
            4 * FORGED.len() as u64,
        )
        .await;
    rig.is_unharmed().await;
    refused(ErrorCode::ModuleNotFound, rig.caller.raw("forged", "").await);
    assert_eq!(
        rig.worker.metric("wess_worker_calls_total{code=\"ok\"}").await,
        1,
        "the good one"
    );
}

#[tokio::test]
async fn headers_that_do_not_parse_cost_a_reconnect_and_nothing_more() {
    let rig = Rig::start(&["upper"]).await;
    let mut attacker = Attacker::connect(&rig.nats).await;
    for head in [
        "NATS/1.0\r\nWess-Fuel\r\n\r\n",
        "NATS/1.0 abc\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "NATS/1.0\r\nA b: c\r\n\r\n",
        "NATS/1.0 503\r\n\r\n",
        "",
    ] {
        for subject in [
            "wess.invoke.upper",
            "wess.invoke",
            "wess.store",
            "wess.modules.list",
            "$SRV.PING",
        ] {
            attacker.publish_head(subject, "some.inbox", head, b"{}").await;
        }
    }
    attacker.flush().await;
    for target in ["upper", "add"] {
        answers_again(&rig.caller, target, "[2,3]").await;
    }
    rig.is_unharmed().await;
}
