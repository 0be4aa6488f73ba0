//! Secrets: sealed wherever they lie or travel, open to the guests of one module, masked in their logs.

use std::path::PathBuf;

use futures_util::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;
use wess_harness::{DEADLINE, NatsServer};
use wess_schemas::secret::SealedSecret;
use wess_schemas::{ErrorCode, Module};
use wess_service::secrets::{OpeningKeys, SealingKey};

use crate::rig::{Answered, Caller, Rig, Worker, refused_naming};

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
