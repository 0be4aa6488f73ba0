//! `wess up` as a process: what it prints, how it stops, and what it leaves when it is killed.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use wess_harness::{NatsServer, Process, Signal, eventually};

use crate::wess::{DOORS, Door, Wess, binaries, code, command, runs, stderr};

#[test]
fn it_prints_one_line_and_stops_cleanly_with_its_nats_server() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut wess = Wess::up();
        let (nats, http) = (wess.nats_pid(), wess.process.value("http"));
        assert!(runs(nats) && http.starts_with("http://127.0.0.1:"));
        assert!(wess.process.value("admin").starts_with("http://127.0.0.1:"));
        wess.process.signal(signal);
        assert_eq!(
            wess.process.wait_exit().code(),
            Some(0),
            "{}",
            wess.process.stderr()
        );
        assert!(!runs(nats));
        assert_eq!(wess.process.stdout().lines().count(), 1);
    }
}

#[test]
fn what_it_says_to_try_works_as_it_stands_there() {
    let wess = Wess::up();
    let said = wess.process.stderr();
    let commands: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("  ")).collect();
    // The Go client is in no registry that tests may use.
    let (natscli, ours): (Vec<_>, Vec<_>) = commands.into_iter().partition(|line| line.starts_with("nats "));
    assert!(natscli[0].contains("req wess.invoke.add '[2,3]'"), "{said}");
    assert!(ours.len() >= 6, "{said}");
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", binaries().display());
    let script = format!("set -e\n{}", ours.join("\n"));
    let run = Command::new("sh")
        .args(["-c", &script])
        .env("PATH", path)
        .output()
        .unwrap();
    let printed = String::from_utf8(run.stdout).unwrap();
    assert!(
        run.status.success(),
        "{printed}{}",
        String::from_utf8(run.stderr).unwrap()
    );
    assert!(
        printed.contains("is stored as version 1") && printed.contains("(i32, i32) -> i32"),
        "{printed}"
    );
}

#[tokio::test]
async fn a_nats_server_that_is_killed_is_started_again_and_nothing_is_lost() {
    let wess = Wess::up();
    wess.store(Door::Nats, "add", "add");
    let (killed, url) = (wess.nats_pid(), wess.process.value("nats"));
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(killed as i32).unwrap(),
        Signal::KILL,
    )
    .unwrap();
    eventually("another nats-server", async || {
        (wess.nats_pid() != killed).then_some(())
    })
    .await;
    for door in DOORS {
        eventually("an answer", async || {
            let output = wess.ask(door, &["invoke", "add", "--args", "[2,3]"]);
            (output.stdout == b"5").then_some(())
        })
        .await;
    }
    assert_eq!(wess.process.value("nats"), url);
}

#[tokio::test]
async fn its_nats_server_ends_with_it_even_when_it_is_killed() {
    let mut wess = Wess::up();
    let nats = wess.nats_pid();
    wess.process.signal(Signal::KILL);
    wess.process.wait_exit();
    eventually("the end of the nats-server", async || (!runs(nats)).then_some(())).await;
    let again = Wess::up_in(wess.folder, &["--nats-listen", "127.0.0.1:0"]);
    again.must(Door::Nats, &["ls"]);
}

#[test]
fn what_was_stored_is_there_after_a_restart() {
    let mut wess = Wess::up();
    wess.store(Door::Http, "add", "add");
    assert_eq!(wess.process.stop().code(), Some(0));
    let again = Wess::up_in(wess.folder, &["--nats-listen", "127.0.0.1:0"]);
    for door in DOORS {
        assert_eq!(again.must(door, &["invoke", "add", "--args", "[2,3]"]), "5");
    }
}

#[test]
fn a_server_that_was_named_is_used_and_left_alone() {
    let server = NatsServer::start();
    let mut wess = Wess::up_in(tempfile::TempDir::new().unwrap(), &["--nats", &server.url()]);
    assert_eq!(wess.process.value("nats"), server.url());
    wess.store(Door::Nats, "add", "add");
    assert_eq!(wess.must(Door::Http, &["invoke", "add", "--args", "[2,3]"]), "5");
    assert!(!wess.process.stderr().contains("started a nats-server"));
    assert_eq!(wess.process.stop().code(), Some(0));
    assert!(runs(server.pid()));
}

#[test]
fn a_folder_or_port_that_is_taken_ends_it_and_is_named() {
    let wess = Wess::up();
    let ends = |mut process: Process, code: i32, said: &str| {
        assert_eq!(process.wait_exit().code(), Some(code), "{}", process.stderr());
        assert!(process.stderr().contains(said), "{said}: {}", process.stderr());
    };
    let second = command(&wess.folder, &["--nats-listen", "127.0.0.1:0"]);
    ends(Process::spawn(&mut { second }), 64, "another process uses");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::TempDir::new().unwrap();
    ends(
        Process::spawn(&mut command(&folder, &["--nats-listen", &address])),
        69,
        "another port by --nats-listen",
    );
    let http = ["--nats-listen", "127.0.0.1:0", "--http", &address];
    let mut command = wess_harness::binary("wess");
    command
        .args(["up", "--admin", "127.0.0.1:0", "--data"])
        .arg(folder.path())
        .args(http);
    ends(Process::spawn(&mut command), 64, &address);
}

#[test]
fn a_server_that_asks_for_no_credentials_stays_on_loopback() {
    let folder = tempfile::TempDir::new().unwrap();
    let flags = ["--nats-listen", "0.0.0.0:0", "--executors", "0"];
    let mut process = Process::spawn(&mut command(&folder, &flags));
    assert_eq!(process.wait_exit().code(), Some(64));
    let said = process.stderr();
    assert!(
        said.contains("--nats-listen: is not loopback") && said.contains("--executors"),
        "{said}"
    );
}

/// The SHA-256 of `hush`.
const HUSH: &str = "dc8331bcb2283e89d275a1c2fe66f7bf5ac3163ec1967f149dd7e27906365f0c";

#[test]
fn with_tokens_the_gateway_lets_in_who_has_one_with_the_right_scope() {
    let folder = tempfile::TempDir::new().unwrap();
    let tokens = folder.path().join("tokens.toml");
    let token = format!("[[token]]\nname = \"ci\"\nsha256 = \"{HUSH}\"\nscopes = [\"store\"]\n");
    std::fs::write(&tokens, token).unwrap();
    let flags = [
        "--nats-listen",
        "127.0.0.1:0",
        "--tokens",
        tokens.to_str().unwrap(),
    ];
    let wess = Wess::up_in(folder, &flags);
    let add = wess.file("add", &wess_harness::guest("add"));
    assert_eq!(code(&wess.ask(Door::Http, &["ls"])), 77);
    assert_eq!(code(&wess.ask(Door::Http, &["ls", "--token", "loud"])), 77);
    wess.must(Door::Http, &["store", "add", &add, "--token", "hush"]);
    let refused = wess.ask(Door::Http, &["invoke", "add", "[2,3]", "--token", "hush"]);
    assert!(
        stderr(&refused).contains("(forbidden)\nhint: give the gateway a token"),
        "{}",
        stderr(&refused)
    );
    assert_eq!(wess.must(Door::Nats, &["invoke", "add", "[2,3]"]), "5");
}

#[tokio::test]
async fn calls_that_run_when_it_is_stopped_are_answered_first() {
    let mut wess = Wess::up();
    wess.store(Door::Nats, "spin", "spin");
    let metrics = format!("{}/metrics", wess.process.value("admin"));
    let mut calls = DOORS.map(|door| {
        let mut command = wess.command(door, &["invoke", "spin.spin", "--timeout", "2s"]);
        command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    });
    eventually("two running guests", async || {
        let text = page(&metrics);
        let busy = text
            .lines()
            .find(|line| line.starts_with("wess_worker_slots_busy "))?;
        busy.ends_with(" 2").then_some(())
    })
    .await;
    wess.process.signal(Signal::TERM);
    for call in &mut calls {
        let status = call.wait().unwrap();
        let mut said = String::new();
        call.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(
            status.code() == Some(1) && said.contains("(deadline_exceeded)"),
            "{said}"
        );
    }
    assert_eq!(
        wess.process.wait_exit().code(),
        Some(0),
        "{}",
        wess.process.stderr()
    );
}

#[tokio::test]
async fn a_request_that_is_still_being_sent_when_it_is_stopped_is_answered() {
    let mut wess = Wess::up();
    wess.store(Door::Http, "upper", "upper");
    let http = wess.process.value("http");
    let address = http.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!("POST /v1/modules/upper/invoke HTTP/1.1\r\nHost: {address}\r\nContent-Length: 5\r\n");
    write!(stream, "{head}Connection: close\r\nExpect: 100-continue\r\n\r\n").unwrap();
    let mut asked = [0; 25];
    stream.read_exact(&mut asked).unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n", "the body is being read");
    wess.process.signal(Signal::TERM);
    eventually("the stop", async || {
        wess.process.stderr().contains("stopping").then_some(())
    })
    .await;
    stream.write_all(b"hello").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("HELLO"),
        "{answer}"
    );
    assert_eq!(
        wess.process.wait_exit().code(),
        Some(0),
        "{}",
        wess.process.stderr()
    );
}

fn page(url: &str) -> String {
    let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /{path} HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}
