//! The seed protocol from end to end: a process, a real nats-server, a real worker.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use wess_harness::{NatsServer, Process, Signal, eventually, guest};

use crate::http::get;
use crate::process::{address, gateway};
use crate::socket::{Client, code_of, line};

/// A gateway with a socket, a worker, and the folder of their test.
struct Fleet {
    gateway: Process,
    worker: Option<Process>,
    socket: PathBuf,
    nats: NatsServer,
    folder: TempDir,
}

impl Fleet {
    fn start() -> Self {
        let (nats, folder) = (NatsServer::start(), TempDir::new().unwrap());
        let socket = folder.path().join("s");
        let worker = Some(Process::start(&mut worker(&nats, &folder)));
        let gateway = Process::start(&mut command(&nats, &socket));
        Self {
            gateway,
            worker,
            socket,
            nats,
            folder,
        }
    }

    async fn client(&self) -> Client {
        Client::connect(&self.socket).await
    }

    fn file(&self, name: &str, guest_name: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, guest(guest_name)).unwrap();
        path.into_os_string().into_string().unwrap()
    }
}

fn command(nats: &NatsServer, socket: &std::path::Path) -> Command {
    let mut command = gateway(&["--nats", &nats.url(), "--socket"]);
    command.arg(socket);
    command
}

fn worker(nats: &NatsServer, folder: &TempDir) -> Command {
    let mut command = wess_harness::binary("wess-worker");
    command.args(["--nats", &nats.url(), "--admin", "127.0.0.1:0", "--data"]);
    command.arg(folder.path().join("worker"));
    command
}

async fn load(client: &mut Client, path: &str) -> Value {
    let loaded = client.ask("LoadBinary", json!({"path": path})).await;
    assert_eq!(loaded["success"], true, "{loaded}");
    loaded["data"].clone()
}

#[tokio::test]
async fn every_command_works_as_a_client_of_the_seed_would_use_it() {
    let fleet = Fleet::start();
    assert_eq!(fleet.gateway.value("socket"), fleet.socket.display().to_string());
    let mut client = fleet.client().await;
    let upper = load(&mut client, &fleet.file("upper.wasm", "upper")).await;
    let add = load(&mut client, &fleet.file("add.wasm", "add")).await;
    let (upper_id, add_id) = (&upper["binary_id"], &add["binary_id"]);

    let config = json!({"timeout_ms": 5000, "memory_limit_mb": 64});
    let run = json!({"binary_id": upper_id, "input": "hé\"\n", "config": config});
    let ran = client.ask("Execute", run).await;
    let data = &ran["data"];
    assert_eq!(
        (&data["output"], &data["return_code"]),
        (&"Hé\"\n".into(), &0.into()),
        "{ran}"
    );
    assert!(data["execution_time_us"].as_u64() > Some(0) && data["execution_time_ms"].is_u64());
    assert_eq!(data["fuel_consumed"], 0);
    let sum = client
        .ask("Execute", json!({"binary_id": add_id, "input": [2, 3]}))
        .await;
    assert_eq!(
        (&sum["data"]["output"], &sum["data"]["return_code"]),
        (&"5".into(), &0.into())
    );

    let three = json!({"binary_ids": [upper_id, upper_id, upper_id], "input": "abc", "config": config});
    let chained = client.ask("ExecuteChain", three).await;
    assert_eq!(chained["data"]["output"], "ABC", "{chained}");
    assert_eq!(chained["data"]["steps"].as_array().unwrap().len(), 3);
    let typed_last = json!({"binary_ids": [upper_id, add_id], "input": "[2,3]"});
    assert_eq!(
        client.ask("ExecuteChain", typed_last).await["data"]["output"],
        "5"
    );
    let fails = json!({"binary_ids": [upper_id, add_id], "input": "abc"});
    let failed = client.ask("ExecuteChain", fails).await;
    assert_eq!(code_of(&failed).0, "invalid_arguments");
    assert_eq!(failed["failure"]["detail"]["failed_step"], 1);
    assert_eq!(failed["failure"]["detail"]["steps"][0]["output"], "ABC");

    client.send("{\"type\":\"ListBinaries\"}\n").await;
    let listed = client.reply().await.unwrap();
    let ids: Vec<_> = listed["data"]["binaries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["binary_id"])
        .collect();
    assert_eq!(ids, [add_id, upper_id], "{listed}");

    let gone = client.ask("UnloadBinary", json!({"binary_id": add_id})).await;
    assert_eq!(
        (&gone["success"], &gone["data"]["name"]),
        (&true.into(), &add["name"])
    );
    let missing = client
        .ask("Execute", json!({"binary_id": add_id, "input": [2, 3]}))
        .await;
    assert_eq!(code_of(&missing).0, "module_not_found");
}

#[tokio::test]
async fn a_file_keeps_its_id_through_new_contents_and_new_gateways() {
    let mut fleet = Fleet::start();
    let path = fleet.file("guest.wasm", "upper");
    let first = load(&mut fleet.client().await, &path).await;
    let again = load(&mut fleet.client().await, &path).await;
    assert_eq!(
        (&again["binary_id"], &again["version"]),
        (&first["binary_id"], &1.into())
    );
    assert_eq!(fleet.gateway.stop().code(), Some(0), "{}", fleet.gateway.stderr());
    assert!(!fleet.socket.exists());

    fleet.gateway = Process::start(&mut command(&fleet.nats, &fleet.socket));
    let mut client = fleet.client().await;
    let run = json!({"binary_id": first["binary_id"], "input": "abc"});
    assert_eq!(client.ask("Execute", run.clone()).await["data"]["output"], "ABC");
    fleet.file("guest.wasm", "cat");
    let changed = load(&mut client, &path).await;
    assert_eq!(
        (&changed["binary_id"], &changed["version"]),
        (&first["binary_id"], &2.into())
    );
    assert_eq!(client.ask("Execute", run).await["data"]["output"], "abc");
    let linked = fleet.folder.path().join("link.wasm");
    std::os::unix::fs::symlink(&path, &linked).unwrap();
    let other = load(&mut client, linked.to_str().unwrap()).await;
    assert_ne!(other["binary_id"], first["binary_id"]);
}

#[tokio::test]
async fn guests_that_fail_are_told_by_code_and_the_next_one_runs() {
    let fleet = Fleet::start();
    let mut client = fleet.client().await;
    let spin = load(&mut client, &fleet.file("loop.wasm", "start_loop")).await;
    let upper = load(&mut client, &fleet.file("upper.wasm", "upper")).await;
    let no_wasm = fleet.folder.path().join("text");
    std::fs::write(&no_wasm, "hello").unwrap();
    client.send(line("LoadBinary", json!({"path": no_wasm}))).await;
    assert_eq!(client.refused().await.0, "invalid_module");
    let looping = json!({"binary_id": spin["binary_id"], "input": [], "config": {"timeout_ms": 50}});
    client.send(line("Execute", looping)).await;
    let next = json!({"binary_id": upper["binary_id"], "input": "next"});
    client.send(line("Execute", next)).await;
    let too_much = json!({"binary_id": upper["binary_id"], "config": {"memory_limit_mb": 1_000_000}});
    client.send(line("Execute", too_much)).await;
    assert_eq!(client.refused().await.0, "deadline_exceeded");
    assert_eq!(client.reply().await.unwrap()["data"]["output"], "NEXT");
    let (code, message) = client.refused().await;
    assert!(
        code == "invalid_request" && message.contains("memory_mb"),
        "{code}: {message}"
    );
}

#[tokio::test]
async fn a_thousand_runs_sent_at_once_come_back_in_order() {
    let fleet = Fleet::start();
    let mut client = fleet.client().await;
    let upper = load(&mut client, &fleet.file("upper.wasm", "upper")).await;
    let run = |number: i32| {
        line(
            "Execute",
            json!({"binary_id": upper["binary_id"], "input": format!("n{number}")}),
        )
    };
    let all: String = (0..1000).map(run).collect();
    let Client { writer, reader } = &mut client;
    let reading = async {
        use tokio::io::AsyncBufReadExt;
        let mut lines = reader.lines();
        for number in 0..1000 {
            let reply: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
            assert_eq!(reply["data"]["output"], format!("N{number}"), "{reply}");
        }
    };
    let (sent, ()) = tokio::join!(writer.write_all(all.as_bytes()), reading);
    sent.unwrap();
}

#[tokio::test]
async fn without_a_worker_a_run_waits_for_one_or_is_told() {
    let mut fleet = Fleet::start();
    let mut client = fleet.client().await;
    let upper = load(&mut client, &fleet.file("upper.wasm", "upper")).await;
    assert!(fleet.worker.take().unwrap().stop().success());
    client
        .send(line(
            "Execute",
            json!({"binary_id": upper["binary_id"], "input": "later"}),
        ))
        .await;
    fleet.worker = Some(Process::start(&mut worker(&fleet.nats, &fleet.folder)));
    assert_eq!(client.reply().await.unwrap()["data"]["output"], "LATER");
    fleet.nats.kill();
    let never = json!({"binary_id": upper["binary_id"], "input": "never"});
    loop {
        client.send(line("Execute", never.clone())).await;
        match &*client.refused().await.0 {
            "unavailable" => break,
            // Until the gateway has noticed, a run may have been sent, and its guest may have run.
            code => assert_eq!(code, "internal"),
        }
    }
}

#[tokio::test]
async fn a_socket_in_use_is_refused_a_dead_one_replaced_and_a_stop_waits_for_what_is_in_hand() {
    let mut fleet = Fleet::start();
    let mut second = Process::spawn(&mut command(&fleet.nats, &fleet.socket));
    assert_eq!(second.wait_exit().code(), Some(64));
    let named = format!("{}", fleet.socket.display());
    assert!(
        second.stderr().contains(&named) && second.stderr().contains("in use"),
        "{}",
        second.stderr()
    );
    let file = fleet.file("no-socket", "upper");
    let mut third = Process::spawn(&mut command(&fleet.nats, file.as_ref()));
    assert_eq!(third.wait_exit().code(), Some(64));
    assert!(third.stderr().contains("no socket"), "{}", third.stderr());

    fleet.gateway.signal(Signal::KILL);
    fleet.gateway.wait_exit();
    assert!(fleet.socket.exists());
    fleet.gateway = Process::start(&mut command(&fleet.nats, &fleet.socket));
    let mut client = fleet.client().await;
    let spin = load(&mut client, &fleet.file("loop.wasm", "start_loop")).await;
    let run = json!({"binary_id": spin["binary_id"], "input": [], "config": {"timeout_ms": 1500}});
    client.send(line("Execute", run)).await;
    let admin = address(&fleet.gateway, "admin");
    let worker_admin = fleet.worker.as_ref().unwrap().value("admin");
    let worker_admin = worker_admin.trim_start_matches("http://").parse().unwrap();
    eventually("the run", async || {
        get(worker_admin, "/metrics")
            .await
            .text()
            .contains("wess_worker_slots_busy 1\n")
            .then_some(())
    })
    .await;
    fleet.gateway.signal(Signal::TERM);
    eventually("the drain", async || {
        get(admin, "/readyz")
            .await
            .text()
            .contains("draining")
            .then_some(())
    })
    .await;
    assert_eq!(client.refused().await.0, "deadline_exceeded");
    assert_eq!(client.reply().await, None);
    assert_eq!(
        fleet.gateway.wait_exit().code(),
        Some(0),
        "{}",
        fleet.gateway.stderr()
    );
    assert!(!fleet.socket.exists());
}
