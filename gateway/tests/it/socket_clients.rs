//! The socket's clients: how they send, how much, what they leave, and when they go.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use wess_harness::eventually;

use crate::socket::{Client, ID, Seed, echoing, execute};
use crate::support::{Workers, raw};

#[tokio::test]
async fn what_overtakes_waits_for_its_turn() {
    let (slow, count) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (gate, counted) = (slow.clone(), count.clone());
    let workers = Workers::new(move |request| {
        let (gate, first) = (gate.clone(), counted.fetch_add(1, Ordering::SeqCst) == 0);
        async move {
            if first {
                gate.notified().await;
            }
            Ok(raw(request.payload, &[]))
        }
        .boxed()
    });
    let seed = Seed::start(workers).await;
    let mut client = seed.client().await;
    client.send(execute("a") + &execute("b") + &execute("c")).await;
    eventually("all three asked", async || {
        (count.load(Ordering::SeqCst) == 3).then_some(())
    })
    .await;
    slow.notify_one();
    for expected in ["a", "b", "c"] {
        assert_eq!(client.reply().await.unwrap()["data"]["output"], expected);
    }
}

#[tokio::test]
async fn lines_may_come_in_any_pieces_and_the_last_without_an_end() {
    let seed = Seed::start(echoing()).await;
    let mut client = seed.client().await;
    for byte in execute("one").bytes() {
        client.send([byte]).await;
    }
    assert_eq!(client.reply().await.unwrap()["data"]["output"], "one");
    let two = execute("two");
    client
        .send(format!("\n  \r\n{}\r\n{}", two.trim(), execute("three").trim()))
        .await;
    assert_eq!(client.reply().await.unwrap()["data"]["output"], "two");
    client.writer.shutdown().await.unwrap();
    assert_eq!(client.reply().await.unwrap()["data"]["output"], "three");
    assert_eq!(client.reply().await, None);
}

#[tokio::test]
async fn what_is_no_request_is_refused_by_code_and_the_next_line_is_understood() {
    let seed = Seed::start(echoing()).await;
    let mut client = seed.client().await;
    for (sent, code, said) in [
        (&b"hello\n"[..], "invalid_request", "JSON"),
        (b"{\"type\":\"Execute\"\n", "invalid_request", "JSON"),
        (b"{\"type\":\"\xff\"}\n", "invalid_request", "UTF-8"),
        (b"{\"type\":\"Format\"}\n", "invalid_request", "`Format`"),
        (
            b"{\"type\":\"ListBinaries\",\"colour\":1}\n",
            "invalid_request",
            "`colour`",
        ),
        (
            b"{\"type\":\"Execute\",\"payload\":{\"binary_id\":\"x\"}}\n",
            "invalid_request",
            "UUID",
        ),
    ] {
        client.send(sent).await;
        let (told, message) = client.refused().await;
        assert!(told == code && message.contains(said), "{told}: {message}");
        client.send(execute("next")).await;
        assert_eq!(client.reply().await.unwrap()["data"]["output"], "next");
    }
    let metrics = seed.house.metrics();
    assert!(
        metrics.contains(r#"{command="none",code="invalid_request"}"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_line_that_is_too_long_is_refused_and_not_held() {
    let seed = Seed::start(echoing()).await;
    let mut client = seed.client().await;
    let Client { reader, writer } = &mut client;
    let sending = async {
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..64 {
            writer.write_all(&piece).await.unwrap();
        }
        writer.write_all(b"\n").await.unwrap();
        writer.write_all(execute("next").as_bytes()).await.unwrap();
    };
    let reading = async {
        let mut lines = reader.lines();
        let refused = lines.next_line().await.unwrap().unwrap();
        let next = lines.next_line().await.unwrap().unwrap();
        (refused, next)
    };
    let ((), (refused, next)) = tokio::join!(sending, reading);
    assert!(
        refused.contains("payload_too_large") && next.contains("\"next\""),
        "{refused} {next}"
    );
}

#[tokio::test]
async fn a_line_that_does_not_end_is_not_waited_for_for_ever() {
    let seed = Seed::with_options(echoing(), &["--http-body-timeout-s", "1"]).await;
    let mut client = seed.client().await;
    client.send(execute("whole") + "{\"type\":").await;
    assert_eq!(client.reply().await.unwrap()["data"]["output"], "whole");
    assert!(client.refused().await.1.contains("not complete within 1s"));
    assert_eq!(client.reply().await, None);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_not_read_from_and_others_go_on() {
    let output = "y".repeat(32 * 1024);
    let workers = Workers::answering(move |_| Ok(raw(output.clone(), &[])));
    let options = ["--socket-max-in-flight", "200", "--http-send-timeout-s", "1"];
    let seed = Seed::with_options(workers.clone(), &options).await;
    let mut deaf = seed.client().await;
    let all: String = (0..20_000).map(|_| execute("x")).collect();
    let stuck = deaf.writer.write_all(all.as_bytes());
    let others = async {
        eventually("the first replies", async || {
            (workers.times_asked() > 8).then_some(())
        })
        .await;
        let mut other = seed.client().await;
        for _ in 0..300 {
            assert_eq!(
                other.ask("Execute", json!({"binary_id": ID})).await["success"],
                true
            );
        }
    };
    // Left alone for long enough, it is closed while it still sends.
    let (sent, ()) = tokio::join!(stuck, others);
    assert!(sent.is_err(), "all of it was taken");
    assert!(
        workers.times_asked() < 1000,
        "{} were begun",
        workers.times_asked()
    );
}

#[tokio::test]
async fn a_client_that_goes_away_takes_nothing_of_others() {
    let (gate, began) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (waits, counted) = (gate.clone(), began.clone());
    let workers = Workers::new(move |request| {
        counted.fetch_add(1, Ordering::SeqCst);
        let waits = waits.clone();
        async move {
            waits.notified().await;
            Ok(raw(request.payload, &[]))
        }
        .boxed()
    });
    let seed = Seed::start(workers).await;
    let (mut stays, mut goes) = (seed.client().await, seed.client().await);
    stays.send(execute("stays")).await;
    eventually("one", async || (began.load(Ordering::SeqCst) == 1).then_some(())).await;
    goes.send(execute("goes") + "{\"type\":\"Exe").await;
    eventually("two", async || (began.load(Ordering::SeqCst) == 2).then_some(())).await;
    drop(goes);
    for _ in 0..2 {
        gate.notify_one();
    }
    assert_eq!(stays.reply().await.unwrap()["data"]["output"], "stays");
    gate.notify_one();
    eventually("one connection", async || {
        seed.house
            .metrics()
            .contains("wess_gateway_socket_connections 1")
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn at_a_stop_what_is_in_hand_is_answered_and_the_file_goes() {
    let (gate, began) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (waits, tells) = (gate.clone(), began.clone());
    let workers = Workers::new(move |request| {
        let (waits, tells) = (waits.clone(), tells.clone());
        async move {
            tells.notify_one();
            waits.notified().await;
            Ok(raw(request.payload, &[]))
        }
        .boxed()
    });
    let seed = Seed::start(workers).await;
    let mode = std::fs::metadata(&seed.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (mut client, mut idle) = (seed.client().await, seed.client().await);
    client.send(execute("in hand")).await;
    began.notified().await;
    seed.house.lifecycle.stop();
    assert_eq!(idle.reply().await, None);
    eventually("the file to go", async || (!seed.path.exists()).then_some(())).await;
    // What comes now is not begun.
    let _ = client.writer.write_all(execute("late").as_bytes()).await;
    gate.notify_one();
    assert_eq!(client.reply().await.unwrap()["data"]["output"], "in hand");
    let mut rest = Vec::new();
    // A connection with something unread in it may end by a reset.
    let _ = client.reader.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
}

#[tokio::test]
async fn many_clients_are_served_at_once() {
    let seed = Seed::with_options(echoing(), &["--socket-max-connections", "16"]).await;
    let clients = (0..64).map(|number| {
        let path = seed.path.clone();
        async move {
            let mut client = Client::connect(&path).await;
            for round in 0..20 {
                let input = format!("{number}/{round}");
                client.send(execute(input.clone())).await;
                assert_eq!(client.reply().await.unwrap()["data"]["output"], input);
            }
        }
    });
    futures_util::future::join_all(clients).await;
}
