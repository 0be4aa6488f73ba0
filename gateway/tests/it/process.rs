//! The process `wess-gateway`, seen from outside: its options, its ready line, its signals.

use std::net::SocketAddr;
use std::process::Command;

use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use wess_harness::{NatsServer, Process, Signal, eventually, guest};

use crate::http::{get, head, post, read_to_end};
use crate::support::{golden, noise};

pub fn gateway(args: &[&str]) -> Command {
    let mut command = wess_harness::binary("wess-gateway");
    command
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .args(args);
    command
}

pub fn address(process: &Process, key: &str) -> SocketAddr {
    process.value(key).parse().unwrap()
}

#[test]
fn mistakes_are_told_by_name_and_end_it_with_64() {
    let cases: [(&[&str], &[&str]); 4] = [
        (
            &["--tokens", "/nowhere", "--nats", "http://x"],
            &["--tokens", "--nats"],
        ),
        (&["--http-max-in-flight", "0"], &["--http-max-in-flight"]),
        (&["--colour", "red"], &["--colour"]),
        (&["--log", "wess=loud"], &["--log"]),
    ];
    for (args, named) in cases {
        let mut process = Process::spawn(&mut gateway(args));
        assert_eq!(process.wait_exit().code(), Some(64), "{args:?}");
        for name in named {
            assert!(process.stderr().contains(name), "{}", process.stderr());
        }
    }
    let mut open = wess_harness::binary("wess-gateway");
    let mut process = Process::spawn(open.args(["--listen", "0.0.0.0:0"]));
    assert_eq!(process.wait_exit().code(), Some(64));
    assert!(process.stderr().contains("--tokens"), "{}", process.stderr());
}

#[test]
fn a_port_that_is_taken_ends_it_with_64_and_a_missing_nats_with_69() {
    let nats = NatsServer::start();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let mut command = wess_harness::binary("wess-gateway");
    command.args([
        "--admin",
        "127.0.0.1:0",
        "--listen",
        &listen,
        "--nats",
        &nats.url(),
    ]);
    let mut process = Process::spawn(&mut command);
    assert_eq!(process.wait_exit().code(), Some(64), "{}", process.stderr());
    let mut process = Process::spawn(&mut gateway(&["--nats", "nats://127.0.0.1:1"]));
    assert_eq!(process.wait_exit().code(), Some(69), "{}", process.stderr());
}

#[tokio::test]
async fn it_says_where_it_listens_follows_nats_and_stops_when_told() {
    let mut nats = NatsServer::start();
    let mut process = Process::start(&mut gateway(&["--nats", &nats.url()]));
    let (http, admin) = (address(&process, "http"), address(&process, "admin"));
    assert_eq!(get(http, "/readyz").await.status, 200);
    let metrics = get(admin, "/metrics").await;
    for counter in [
        "wess_gateway_http_requests_total{",
        "wess_nats_slow_consumers_total 0\n",
    ] {
        assert!(
            metrics.text().contains(counter),
            "{counter} in {}",
            metrics.text()
        );
    }
    nats.kill();
    eventually("not ready", async || {
        (get(http, "/readyz").await.status == 503).then_some(())
    })
    .await;
    nats.restart();
    eventually("ready again", async || {
        (get(http, "/readyz").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(process.stop().code(), Some(0), "{}", process.stderr());
}

#[tokio::test]
async fn sigterm_waits_for_what_is_in_flight_and_a_second_one_does_not() {
    let nats = NatsServer::start();
    let client = async_nats::connect(nats.url()).await.unwrap();
    let mut calls = client.subscribe("wess.invoke.>").await.unwrap();
    client.flush().await.unwrap();
    for (answers, exit) in [(true, 0), (false, 75)] {
        let mut process = Process::start(&mut gateway(&["--nats", &nats.url()]));
        let (http, admin) = (address(&process, "http"), address(&process, "admin"));
        let mut stream = TcpStream::connect(http).await.unwrap();
        stream
            .write_all(head("POST", "/v1/modules/a/invoke", &[("Content-Length", "0")]).as_bytes())
            .await
            .unwrap();
        let call = calls.next().await.unwrap();
        process.signal(Signal::TERM);
        eventually("the drain", async || {
            get(admin, "/readyz")
                .await
                .text()
                .contains("draining")
                .then_some(())
        })
        .await;
        if answers {
            client.publish(call.reply.unwrap(), "done".into()).await.unwrap();
            assert_eq!(read_to_end(&mut stream).await.text(), "done");
        } else {
            process.signal(Signal::TERM);
        }
        assert_eq!(process.wait_exit().code(), Some(exit), "{}", process.stderr());
    }
}

/// The most memory that a process ever had, in MiB.
fn peak_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[tokio::test]
async fn a_module_of_64_mib_is_never_whole_in_its_memory_on_the_way_in() {
    let nats = NatsServer::start();
    let client = async_nats::connect(nats.url()).await.unwrap();
    let mut asked = client.subscribe("wess.store").await.unwrap();
    client.flush().await.unwrap();
    let process = Process::start(&mut gateway(&["--nats", &nats.url()]));
    let (http, wasm) = (address(&process, "http"), noise(64 * 1024 * 1024));
    let worker = async {
        let question = asked.next().await.unwrap();
        let module = golden("module").to_string();
        client
            .publish(question.reply.unwrap(), module.into())
            .await
            .unwrap();
    };
    let (answer, ()) = tokio::join!(post(http, "/v1/modules?name=upper", &wasm), worker);
    assert_eq!(answer.status, 201);
    assert!(peak_mib(process.pid()) < 48, "{} MiB", peak_mib(process.pid()));
}

/// A module too large for a message: its bytes, and a section that no engine looks at.
fn large_module() -> Vec<u8> {
    const BYTES: u32 = 2 * 1024 * 1024;
    let mut wasm = guest("upper");
    // A custom section named x; its length is LEB128, in four bytes.
    wasm.push(0);
    wasm.extend([0, 7, 14].map(|shift| ((BYTES + 2) >> shift) as u8 & 0x7f | 0x80));
    wasm.push(((BYTES + 2) >> 21) as u8);
    wasm.extend([1, b'x']);
    wasm.extend(noise(BYTES as usize));
    wasm
}

#[tokio::test]
async fn what_one_gateway_takes_in_another_gives_out() {
    let (nats, folder) = (NatsServer::start(), tempfile::TempDir::new().unwrap());
    let servers = ["--nats", &nats.url()];
    let mut worker = wess_harness::binary("wess-worker");
    worker.args(servers).args(["--admin", "127.0.0.1:0"]);
    let _worker = Process::start(worker.arg("--data").arg(folder.path()));
    let gateways = [(); 2].map(|()| Process::start(&mut gateway(&servers)));
    let [one, other] = gateways.each_ref().map(|gateway| address(gateway, "http"));

    let wasm = large_module();
    let stored = post(one, "/v1/modules?name=upper", &wasm).await;
    assert_eq!(stored.status, 201, "{}", stored.text());
    assert!(get(other, "/v1/modules/upper/wasm").await.body == wasm);
    let called = post(other, "/v1/modules/upper/invoke", "hello").await;
    assert_eq!((called.status, called.text()), (200, "HELLO"));
}
