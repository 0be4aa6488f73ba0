//! The seed protocol over a real socket: the gateway's own promises, with workers that answer by a script.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use wess_schemas::seed::{Execution, SeedReply};
use wess_schemas::{ErrorCode, Outcome};
use wess_service::bus::{Bus, BusError};

use crate::support::{House, Workers, failure, golden, json as json_reply, raw, refusal};

pub const ID: &str = "0193cf4e-7d2b-7c3a-9e3f-2b1f6a5d4c3b";

/// A gateway with a socket, in a folder of its own.
pub struct Seed {
    pub house: House,
    pub path: PathBuf,
    pub folder: TempDir,
}

impl Seed {
    pub async fn start(workers: Arc<dyn Bus>) -> Self {
        Self::with_options(workers, &[]).await
    }

    pub async fn with_options(workers: Arc<dyn Bus>, options: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("wess.sock");
        let mut all = vec!["--socket", path.to_str().unwrap()];
        all.extend(options);
        let house = House::with_options(workers, &all).await;
        Self { house, path, folder }
    }

    pub async fn client(&self) -> Client {
        Client::connect(&self.path).await
    }

    pub fn file(&self, name: &str, contents: &[u8]) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path.into_os_string().into_string().unwrap()
    }
}

/// A client that sends lines and reads lines.
pub struct Client {
    pub reader: BufReader<OwnedReadHalf>,
    pub writer: OwnedWriteHalf,
}

impl Client {
    pub async fn connect(path: &Path) -> Self {
        let (reader, writer) = UnixStream::connect(path).await.unwrap().into_split();
        Self {
            reader: BufReader::new(reader),
            writer,
        }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.writer.write_all(bytes.as_ref()).await.unwrap();
    }

    pub async fn ask(&mut self, kind: &str, payload: Value) -> Value {
        self.send(line(kind, payload)).await;
        self.reply().await.unwrap()
    }

    /// The next reply; none at the connection's end.
    pub async fn reply(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.reader.read_line(&mut line).await.unwrap();
        (!line.is_empty()).then(|| {
            assert!(line.ends_with('\n'), "half a line: {line}");
            serde_json::from_str(&line).unwrap()
        })
    }

    /// The code of the next reply, which must be a refusal that fits the contract.
    pub async fn refused(&mut self) -> (String, String) {
        code_of(&self.reply().await.unwrap())
    }
}

pub fn line(kind: &str, payload: Value) -> String {
    json!({"type": kind, "payload": payload}).to_string() + "\n"
}

pub fn execute(input: impl Into<Value>) -> String {
    line("Execute", json!({"binary_id": ID, "input": input.into()}))
}

/// The code and the sentence of a refusal.
pub fn code_of(reply: &Value) -> (String, String) {
    assert_eq!(reply["success"], false, "{reply}");
    let (code, message) = reply["error"].as_str().unwrap().split_once(": ").unwrap();
    assert_eq!(reply["failure"]["code"], code);
    assert_eq!(reply["failure"]["message"], message);
    (code.into(), message.into())
}

/// Workers that give back what they got, and say what it cost.
pub fn echoing() -> Arc<Workers> {
    Workers::answering(|request| {
        Ok(raw(
            request.payload,
            &[("Wess-Run-Us", "1234"), ("Wess-Exit-Code", "3")],
        ))
    })
}

#[tokio::test]
async fn a_run_is_asked_as_a_raw_call_and_told_in_the_seeds_words() {
    let workers = echoing();
    let seed = Seed::start(workers.clone()).await;
    let mut client = seed.client().await;
    let config = json!({"timeout_ms": 70, "memory_limit_mb": 8});
    let reply = client
        .ask(
            "Execute",
            json!({"binary_id": ID, "input": "hé\n", "config": config}),
        )
        .await;
    let data = json!({"return_code": 3, "output": "hé\n", "execution_time_ms": 1, "execution_time_us": 1234, "fuel_consumed": 0});
    assert_eq!(reply, json!({"success": true, "data": data}));
    let asked = workers.asked();
    assert_eq!(asked.subject, format!("wess.invoke.{ID}"));
    let header = |name: &str| asked.headers.get(name).map(|value| value.as_str().to_owned());
    assert_eq!(header("Wess-Timeout-Ms").as_deref(), Some("70"));
    assert_eq!(header("Wess-Memory-Mb").as_deref(), Some("8"));
    assert!(header("Wess-Facts").is_some());
}

#[tokio::test]
async fn bytes_that_are_no_text_and_fuel_are_told_too() {
    let answer = |_| Ok(raw(&b"\xff\xfe"[..], &[("Wess-Fuel-Used", "99")]));
    let seed = Seed::start(Workers::answering(answer)).await;
    let mut client = seed.client().await;
    let reply = client
        .ask("Execute", json!({"binary_id": ID, "input_base64": "//4="}))
        .await;
    assert_eq!(reply["data"]["output_base64"], "//4=");
    assert_eq!(reply["data"]["fuel_consumed"], 99);
    assert_eq!(reply["data"].get("output"), None);
    let read: SeedReply<Execution<'_>> = serde_json::from_value(reply).unwrap();
    assert!(read.success);
}

#[tokio::test]
async fn a_chain_has_the_last_output_and_the_time_of_all() {
    let outcome: Outcome = serde_json::from_value(golden("outcome")).unwrap();
    let workers = Workers::answering(move |request| {
        assert_eq!(request.subject, "wess.chain");
        let body: Value = serde_json::from_slice(&request.payload).unwrap();
        assert_eq!(body, json!({"steps": [ID, ID], "input": {"a": 1}}));
        let mut chain = golden("chain-outcome");
        let mut step = serde_json::to_value(&outcome).unwrap();
        step["stats"]["run_us"] = 600.into();
        step["exit_code"] = 7.into();
        chain["steps"] = json!([step, step]);
        chain["output"] = "é\"".into();
        Ok(json_reply(&chain))
    });
    let seed = Seed::start(workers).await;
    let mut client = seed.client().await;
    let payload = json!({"binary_ids": [ID, ID], "input": {"a": 1}});
    let reply = client.ask("ExecuteChain", payload).await;
    let data = &reply["data"];
    assert_eq!(
        (&data["output"], &data["return_code"]),
        (&"é\"".into(), &7.into()),
        "{reply}"
    );
    assert_eq!(
        (&data["execution_time_ms"], &data["execution_time_us"]),
        (&1.into(), &1200.into())
    );
    assert_eq!(data["steps"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn every_failure_has_its_code_and_the_connection_goes_on() {
    let asked = AtomicUsize::new(0);
    let refuses = move |_| {
        let code = ErrorCode::ALL[asked.fetch_add(1, Ordering::SeqCst)];
        Ok(refusal(&failure(code)))
    };
    let seed = Seed::start(Workers::answering(refuses)).await;
    let mut client = seed.client().await;
    for code in ErrorCode::ALL {
        client.send(execute("x")).await;
        let reply = client.reply().await.unwrap();
        assert_eq!(code_of(&reply).0, code.as_str());
        assert_eq!(reply["failure"]["detail"]["fact"], 7);
    }
    let nobody = |request: wess_service::bus::Request| {
        Err(BusError::NoWorkers {
            subject: request.subject,
        })
    };
    let seed = Seed::start(Workers::answering(nobody)).await;
    let mut client = seed.client().await;
    client.send(execute("x")).await;
    assert_eq!(client.refused().await.0, "no_workers");
    let panicking = Seed::start(Workers::none()).await;
    let mut client = panicking.client().await;
    client.send(execute("x")).await;
    assert_eq!(client.refused().await.0, "internal");
    assert!(!panicking.house.lifecycle.shutdown.is_cancelled());
}

#[tokio::test]
async fn a_thousand_requests_sent_at_once_are_answered_in_order() {
    let seed = Seed::start(echoing()).await;
    let mut client = seed.client().await;
    let all: String = (0..1000).map(|number| execute(number.to_string())).collect();
    let sending = client.writer.write_all(all.as_bytes());
    let reading = async {
        let mut lines = (&mut client.reader).lines();
        for number in 0..1000 {
            let line = lines.next_line().await.unwrap().unwrap();
            let reply: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(reply["data"]["output"], number.to_string());
        }
    };
    let (sent, ()) = tokio::join!(sending, reading);
    sent.unwrap();
    assert!(
        seed.house
            .metrics()
            .contains(r#"wess_gateway_socket_requests_total{command="Execute",code="ok"} 1000"#)
    );
}
