//! The socket's files and large payloads: what is loaded, listed, unloaded, and what goes by reference.

use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use wess_schemas::payload::PayloadRef;
use wess_schemas::seed::SeedRequest;

use crate::socket::{Client, ID, Seed, execute, line};
use crate::support::{Workers, digest, golden, json as json_reply, noise, raw};

/// Puts an output where a worker would, and gives its reference.
async fn stored(seed: &Seed, output: &[u8]) -> PayloadRef {
    seed.house.payloads().put(output).await.unwrap()
}

/// What a client is told that sends a large line.
async fn ask_large(client: &mut Client, line: &str) -> Value {
    let mut lines = (&mut client.reader).lines();
    let (sent, reply) = tokio::join!(client.writer.write_all(line.as_bytes()), lines.next_line());
    sent.unwrap();
    serde_json::from_str(&reply.unwrap().unwrap()).unwrap()
}

#[tokio::test]
async fn large_inputs_and_outputs_go_by_reference_and_none_is_left() {
    let told: Arc<Mutex<Vec<PayloadRef>>> = Arc::default();
    let known = told.clone();
    let workers = Workers::answering(move |request| {
        let known = known.lock().unwrap();
        if request.subject == "wess.chain" {
            let body: Value = serde_json::from_slice(&request.payload).unwrap();
            assert!(body["input_ref"].is_object(), "{body}");
            let mut chain = golden("chain-outcome");
            chain["steps"] = json!([golden("outcome"), golden("outcome")]);
            chain["steps"][0]["output_ref"] = json!(known[0]);
            chain["steps"][1]["output_ref"] = json!(known[1]);
            chain["output_ref"] = json!(known[1]);
            chain.as_object_mut().unwrap().remove("output");
            return Ok(json_reply(&chain));
        }
        assert!(request.payload.is_empty() && request.headers.get("Wess-Input-Ref").is_some());
        let output = serde_json::to_string(&known[1]).unwrap();
        Ok(raw("", &[("Wess-Output-Ref", output.as_str())]))
    });
    let seed = Seed::start(workers).await;
    let mut client = seed.client().await;
    let (input, output) = ("z".repeat(2 << 20), "\"é".repeat(1 << 20));
    let chain = line("ExecuteChain", json!({"binary_ids": [ID, ID], "input": input}));
    for line in [execute(input.clone()), chain] {
        let references = [
            stored(&seed, b"passing").await,
            stored(&seed, output.as_bytes()).await,
        ];
        *told.lock().unwrap() = references.to_vec();
        let reply = ask_large(&mut client, &line).await;
        assert!(
            reply["data"]["output"].as_str() == Some(&output),
            "{:.300}",
            reply.to_string()
        );
        assert!(seed.house.payloads().get(&references[1], u64::MAX).await.is_err());
        let passing = seed.house.payloads().get(&references[0], u64::MAX).await;
        assert_eq!(passing.is_err(), line.contains("ExecuteChain"));
    }
}

#[tokio::test]
async fn a_file_is_stored_under_a_name_of_its_path_whatever_its_size() {
    let workers = Workers::new(|request| {
        async move {
            assert_eq!(request.subject, "wess.store");
            let mut module = golden("module");
            let told = request
                .headers
                .get("Wess-Module")
                .map(|name| name.as_str().to_owned());
            match told {
                Some(name) => module["name"] = name.into(),
                None => {
                    let body: Value = serde_json::from_slice(&request.payload).unwrap();
                    module["name"] = body["name"].clone();
                    module["digest"] = body["digest"].clone();
                }
            }
            Ok(json_reply(&module))
        }
        .boxed()
    });
    let seed = Seed::start(workers.clone()).await;
    let mut client = seed.client().await;
    let large = noise(3 * 1024 * 1024);
    let (small, big) = (seed.file("upper.wasm", b"\0asm"), seed.file("big.wasm", &large));
    let loaded = client.ask("LoadBinary", json!({"path": small})).await;
    assert_eq!(
        (&loaded["data"]["path"], &loaded["success"]),
        (&small.as_str().into(), &true.into())
    );
    assert!(
        loaded["data"]["name"]
            .as_str()
            .unwrap()
            .starts_with("file-upper-"),
        "{loaded}"
    );
    assert_eq!(loaded["data"]["binary_id"], golden("module")["id"]);
    let again = client.ask("LoadBinary", json!({"path": small})).await;
    assert_eq!(again, loaded);
    let loaded = client.ask("LoadBinary", json!({"path": big})).await;
    assert_eq!(loaded["data"]["digest"], digest(&large).to_string());
}

#[tokio::test]
async fn a_path_that_is_no_file_is_refused_by_name() {
    let seed = Seed::with_options(Workers::none(), &["--http-max-module-mb", "1"]).await;
    let mut client = seed.client().await;
    let fifo = seed.folder.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    let large = seed.file("large", &vec![0; (1 << 20) + 1]);
    for (path, code, said) in [
        ("/nowhere/x.wasm", "invalid_request", "No such file"),
        (
            seed.folder.path().to_str().unwrap(),
            "invalid_request",
            "no regular file",
        ),
        (fifo.to_str().unwrap(), "invalid_request", "no regular file"),
        ("/dev/zero", "invalid_request", "no regular file"),
        ("", "invalid_request", "cannot be opened"),
        ("a\u{0}b", "invalid_request", "cannot be opened"),
        (large.as_str(), "payload_too_large", "1048576"),
    ] {
        client.send(line("LoadBinary", json!({"path": path}))).await;
        let (told, message) = client.refused().await;
        assert!(
            told == code && message.contains(said),
            "{path:?}: {told}: {message}"
        );
    }
}

#[tokio::test]
async fn what_was_loaded_is_listed_page_by_page_and_unloaded_by_its_id() {
    let workers = Workers::answering(|request| {
        if request.subject == format!("wess.modules.delete.{ID}") {
            return Ok(json_reply(&golden("deleted")));
        }
        assert_eq!(request.subject, "wess.modules.list");
        let body: Value = serde_json::from_slice(&request.payload).unwrap();
        assert_eq!(body["prefix"], "file-");
        let mut list = golden("module-list");
        match body.get("after") {
            None => list["next"] = "file-next".into(),
            Some(after) => {
                assert_eq!(after, "file-next");
                list.as_object_mut().unwrap().remove("next");
            }
        }
        Ok(json_reply(&list))
    });
    let seed = Seed::start(workers).await;
    let mut client = seed.client().await;
    client
        .send(serde_json::to_string(&SeedRequest::ListBinaries).unwrap() + "\n")
        .await;
    let listed = client.reply().await.unwrap();
    let module = &golden("module-list")["modules"][0];
    let binaries = listed["data"]["binaries"].as_array().unwrap();
    assert_eq!(
        binaries.len(),
        2 * golden("module-list")["modules"].as_array().unwrap().len()
    );
    assert_eq!(
        (&binaries[0]["binary_id"], &binaries[0]["name"]),
        (&module["id"], &module["name"])
    );
    assert_eq!(listed["data"]["complete"], true);
    let unloaded = client.ask("UnloadBinary", json!({"binary_id": ID})).await;
    assert_eq!(unloaded["data"]["binary_id"], ID, "{unloaded}");
}
