//! `wess up --socket`: the seed protocol in process, at the command line's own speed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use wess_harness::{Signal, eventually, guest};

use crate::wess::{Door, Wess};

struct Client(BufReader<UnixStream>);

impl Client {
    fn connect(path: &Path) -> Self {
        Self(BufReader::new(UnixStream::connect(path).unwrap()))
    }

    fn send(&mut self, kind: &str, payload: Value) {
        let line = json!({"type": kind, "payload": payload}).to_string() + "\n";
        self.0.get_mut().write_all(line.as_bytes()).unwrap();
    }

    fn reply(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    fn ask(&mut self, kind: &str, payload: Value) -> Value {
        self.send(kind, payload);
        self.reply()
    }
}

#[test]
fn a_client_of_the_seed_is_served_in_process_and_finds_its_files_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("wess.sock");
    let flags = [
        "--nats-listen",
        "127.0.0.1:0",
        "--socket",
        socket.to_str().unwrap(),
    ];
    let mut wess = Wess::up_in(folder, &flags);
    assert_eq!(wess.process.value("socket"), socket.to_str().unwrap());
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let (upper, mut client) = (wess.file("upper.wasm", &guest("upper")), Client::connect(&socket));
    let loaded = client.ask("LoadBinary", json!({"path": upper}));
    let id = loaded["data"]["binary_id"].clone();
    let run = json!({"binary_id": id, "input": "hello"});
    let ran = client.ask("Execute", run.clone());
    assert_eq!(
        (&ran["data"]["output"], &ran["data"]["return_code"]),
        (&"HELLO".into(), &0.into()),
        "{ran}"
    );
    let chain = json!({"binary_ids": [id, id, id], "input": "abc"});
    assert_eq!(client.ask("ExecuteChain", chain)["data"]["output"], "ABC");
    for number in 0..1000 {
        client.send("Execute", json!({"binary_id": id, "input": format!("n{number}")}));
    }
    for number in 0..1000 {
        assert_eq!(client.reply()["data"]["output"], format!("N{number}"));
    }
    let big = "x".repeat(9 << 20);
    let ran = client.ask("Execute", json!({"binary_id": id, "input": big}));
    assert_eq!(
        ran["data"]["output"].as_str().map(str::len),
        Some(big.len()),
        "{:.300}",
        ran.to_string()
    );
    // To everybody else it is a module like any other.
    let called = wess.must(Door::Http, &["invoke", id.as_str().unwrap(), "abc"]);
    assert_eq!(called, "ABC");

    drop(client);
    assert_eq!(wess.process.stop().code(), Some(0), "{}", wess.process.stderr());
    assert!(!socket.exists());
    let Wess { folder, .. } = wess;
    let _wess = Wess::up_in(folder, &flags);
    let mut client = Client::connect(&socket);
    assert_eq!(client.ask("Execute", run)["data"]["output"], "HELLO");
    let again = client.ask("LoadBinary", json!({"path": upper}));
    assert_eq!(
        (&again["data"]["binary_id"], &again["data"]["version"]),
        (&id, &1.into())
    );
}

/// What the admin port tells of the process.
fn metrics(wess: &Wess) -> String {
    let admin = wess.process.value("admin");
    let mut stream = TcpStream::connect(admin.trim_start_matches("http://")).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[tokio::test]
async fn a_stop_answers_what_is_in_hand() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("s");
    let flags = [
        "--nats-listen",
        "127.0.0.1:0",
        "--socket",
        socket.to_str().unwrap(),
    ];
    let mut wess = Wess::up_in(folder, &flags);
    let looping = wess.file("loop.wasm", &guest("start_loop"));
    let mut client = Client::connect(&socket);
    let loaded = client.ask("LoadBinary", json!({"path": looping}));
    let config = json!({"timeout_ms": 1500});
    let run = json!({"binary_id": loaded["data"]["binary_id"], "input": [], "config": config});
    client.send("Execute", run);
    eventually("the run", async || {
        metrics(&wess)
            .contains("wess_worker_slots_busy 1\n")
            .then_some(())
    })
    .await;
    wess.process.signal(Signal::TERM);
    let reply = client.reply();
    assert_eq!(reply["failure"]["code"], "deadline_exceeded", "{reply}");
    assert_eq!(
        wess.process.wait_exit().code(),
        Some(0),
        "{}",
        wess.process.stderr()
    );
    assert!(!socket.exists());
}
