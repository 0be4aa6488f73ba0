//! Secrets: sealed wherever they lie or travel, open to the guests of one module, masked in their logs.

use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;
use wess_harness::{DEADLINE, NatsServer};
use wess_schemas::secret::SealedSecret;
use wess_schemas::{ErrorCode, Module};
use wess_service::secrets::{OpeningKeys, SealingKey};

use crate::rig::{Answered, Caller, Rig, Worker, refused, refused_naming, wat};

const SECRET: &str = "Salut-from-a-vault";

/// A fleet's keys, and a file of them.
struct Keys {
    key: SealingKey,
    file: PathBuf,
    _folder: TempDir,
}

impl Keys {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (file, seed) = (folder.path().join("keys"), OpeningKeys::new_seed().unwrap());
        std::fs::write(&file, &seed).unwrap();
        let key = OpeningKeys::parse(&seed).unwrap().sealing_key().unwrap();
        Self {
            key: SealingKey::parse(&key).unwrap(),
            file,
            _folder: folder,
        }
    }

    fn flags(&self) -> [&str; 2] {
        ["--secrets-keys", self.file.to_str().unwrap()]
    }

    fn seal(&self, module: &str, name: &str) -> SealedSecret {
        self.key.seal(&module.parse().unwrap(), name, SECRET).unwrap()
    }
}

impl Caller {
    async fn keep(&self, module: &str, secrets: Value) -> Answered<Module> {
        let newest: Module = self
            .ask_json(&format!("wess.modules.get.{module}"), &json!({}))
            .await?;
        let request = json!({"name": module, "digest": newest.digest, "settings": {"secrets": secrets}});
        self.ask_json("wess.store", &request).await
    }
}

#[tokio::test]
async fn a_guest_reads_its_secret_and_nothing_else_shows_it() {
    let keys = Keys::new();
    let rig = Rig::with(&keys.flags(), &["greet"]).await;
    let mut lines = rig.caller.client.subscribe("wess.logs.greet").await.unwrap();
    let sealed = keys.seal("greet", "GREETING");
    let stored = rig
        .caller
        .keep("greet", json!({"GREETING": sealed}))
        .await
        .unwrap();
    assert!(!serde_json::to_string(&stored).unwrap().contains(SECRET));
    assert_eq!(stored.settings.secrets["GREETING"], sealed);

    // No caller changes it.
    let call = json!({"module": "greet", "input": SECRET, "env": {"GREETING": "Hi"}});
    let outcome = rig.caller.invoke(call).await.unwrap();
    assert_eq!(outcome.output.unwrap(), format!("{SECRET}, {SECRET}!"));
    let line = timeout(DEADLINE, lines.next()).await.unwrap().unwrap();
    assert_eq!(line.payload, "greeting [secret]");
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_copied_box_a_box_for_others_and_plain_text_are_refused_by_name() {
    let keys = Keys::new();
    let rig = Rig::with(&keys.flags(), &["greet", "upper"]).await;
    let copied = rig
        .caller
        .keep("greet", json!({"GREETING": keys.seal("upper", "GREETING")}))
        .await;
    refused_naming(ErrorCode::InvalidRequest, "GREETING", copied);
    let renamed = rig
        .caller
        .keep("greet", json!({"GREETING": keys.seal("greet", "OTHER")}))
        .await;
    refused_naming(ErrorCode::InvalidRequest, "GREETING", renamed);
    let foreign = Keys::new().seal("greet", "GREETING");
    let foreign = rig.caller.keep("greet", json!({"GREETING": foreign})).await;
    refused_naming(ErrorCode::InvalidRequest, "another key", foreign);
    let plain = rig.caller.keep("greet", json!({"GREETING": SECRET})).await;
    let refusal = refused_naming(ErrorCode::InvalidRequest, "wess seal", plain);
    assert!(!refusal.error.message.contains(SECRET));
    let module: Module = rig
        .caller
        .ask_json("wess.modules.get.greet", &json!({}))
        .await
        .unwrap();
    assert_eq!(module.version, 1);
}

#[tokio::test]
async fn a_worker_without_the_keys_runs_and_stores_nothing_that_needs_them() {
    let keys = Keys::new();
    let nats = NatsServer::start();
    let rig = Rig::on(nats, &keys.flags(), &["greet"]).await;
    let sealed = keys.seal("greet", "GREETING");
    rig.caller
        .keep("greet", json!({"GREETING": sealed}))
        .await
        .unwrap();
    let Rig { worker, caller, nats } = rig;
    let info: Value = serde_json::from_slice(
        &caller
            .client
            .request("$SRV.INFO.wess", "".into())
            .await
            .unwrap()
            .payload,
    )
    .unwrap();
    assert!(info["metadata"]["sealing_key"].as_str().unwrap().starts_with('X'));
    worker.stop();

    let keyless = Worker::start(&nats, &[]);
    let call = json!({"module": "greet", "input": "Ada"});
    let ran = caller.invoke(call.clone()).await;
    refused_naming(ErrorCode::Unavailable, "--secrets-keys", ran);
    let kept = caller
        .keep("greet", json!({"OTHER": keys.seal("greet", "OTHER")}))
        .await;
    refused_naming(ErrorCode::Unavailable, "--secrets-keys", kept);
    // The version without them runs.
    let first = caller.invoke(json!({"module": "greet@1", "input": "Ada"})).await;
    assert_eq!(first.unwrap().output.unwrap(), "Hello, Ada!");
    keyless.stop();
}

/// Logs its environment, answers with its input, and traps when there is none.
fn logs_its_environment() -> Vec<u8> {
    wat(
        r#"(module (import "host" "log" (func $log (param i32 i32))) (memory (export "memory") 2)
        (func (export "process") (param $at i32) (param $len i32) (param $env i32) (param $env-len i32) (result i32)
          (call $log (local.get $env) (local.get $env-len))
          (if (i32.eqz (local.get $len)) (then unreachable))
          (i32.const 0)))"#,
    )
}

/// Every file below a folder in which the secret stands.
fn told_in(folder: &Path) -> Vec<PathBuf> {
    let mut told = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => told.extend(told_in(&path)),
            false if tells(&std::fs::read(&path).unwrap()) => told.push(path),
            false => {}
        }
    }
    told
}

fn tells(bytes: &[u8]) -> bool {
    bytes
        .windows(SECRET.len())
        .any(|window| window == SECRET.as_bytes())
}

/// What the server hands out, each message of it.
struct Heard(async_nats::Subscriber);

impl Heard {
    /// Reads on to the next message on a subject; none before it holds the secret.
    async fn until(&mut self, subject: &str) -> async_nats::Message {
        loop {
            let message = timeout(DEADLINE, self.0.next()).await.unwrap().unwrap();
            let headers = format!("{:?}", message.headers);
            let told = tells(&message.payload) || tells(headers.as_bytes());
            assert!(!told, "told on {}", message.subject);
            if message.subject.as_str() == subject {
                return message;
            }
        }
    }
}

#[tokio::test]
async fn nothing_that_is_said_stored_or_logged_holds_a_secret_in_plain() {
    let (keys, data, mut nats) = (Keys::new(), tempfile::tempdir().unwrap(), NatsServer::start());
    let flags = [&keys.flags()[..], &["--log", "debug"]].concat();
    let mut worker = Worker::start_in(data.path(), &nats, &flags);
    let caller = Caller::connect(&nats).await;
    let mut heard = Heard(caller.listen(">").await);
    caller.store("teller", logs_its_environment()).await;
    let secrets = json!({"TOKEN": keys.seal("teller", "TOKEN")});
    caller.keep("teller", secrets).await.unwrap();

    let call = json!({"module": "teller", "input": "a"});
    let trap = json!({"module": "teller", "input": ""});
    assert_eq!(caller.invoke(call.clone()).await.unwrap().output.unwrap(), "a");
    refused(ErrorCode::GuestTrapped, caller.invoke(trap.clone()).await);
    for (id, invocation) in [("good", call), ("bad", trap)] {
        let retry = json!({"max_attempts": 2, "backoff_ms": [1]});
        let job = json!({"job_id": id, "invoke": invocation, "retry": retry});
        let _: Value = caller.ask_json("wess.jobs.submit", &job).await.unwrap();
        caller.end_of(id).await;
    }
    for question in ["dead.list", "modules.list", "modules.get.teller"] {
        let reply = caller.ask(&format!("wess.{question}"), &[], "").await.unwrap();
        assert!(!tells(&reply.payload), "{question}");
    }
    let (_, metrics) = worker.page("/metrics").await;
    assert!(!tells(metrics.as_bytes()));
    // Two calls, a job that succeeds at once and one that runs twice.
    for _ in 0..5 {
        let line = heard.until("wess.logs.teller").await;
        assert_eq!(line.payload, r#"{"TOKEN":"[secret]"}"#);
    }

    worker.process.stop();
    caller.publish("the-end", "").await;
    heard.until("the-end").await;
    let log = worker.process.stderr();
    assert!(log.contains("DEBUG"), "{log}");
    assert!(!tells(log.as_bytes()), "{log}");
    nats.stop();
    for folder in [data.path(), &nats.store()] {
        assert_eq!(told_in(folder), Vec::<PathBuf>::new());
    }
}
