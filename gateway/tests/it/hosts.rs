//! Hosts that modules claim, with a worker, a gateway and a nats-server as they are.

use std::net::SocketAddr;

use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use wess_harness::{NatsServer, Process, eventually, guest};
use wess_schemas::ErrorCode;

use crate::auth::{entry, write};
use crate::from_zero::worker;
use crate::http::{Answer, read_to_end, send};
use crate::process::{address, gateway};

const HELLO: &str = "hello from wess\n";

/// Asks a gateway as somebody does who takes it for `host`.
pub async fn ask(http: SocketAddr, host: &str, path: &str, line: &str) -> Answer {
    let mut stream = TcpStream::connect(http).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{line}Connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    read_to_end(&mut stream).await
}

/// A worker and a gateway.
struct Fleet {
    nats: NatsServer,
    http: SocketAddr,
    _processes: [Process; 2],
    _data: TempDir,
}

impl Fleet {
    fn start(options: &[&str]) -> Self {
        let (nats, data) = (NatsServer::start(), TempDir::new().unwrap());
        let worker = Process::start(&mut worker(&nats, &data));
        let gateway = Process::start(gateway(&["--nats", &nats.url()]).args(options));
        Self {
            nats,
            http: address(&gateway, "http"),
            _processes: [worker, gateway],
            _data: data,
        }
    }

    async fn store(&self, name: &str, module: &str, routes: &str) -> Answer {
        let settings = format!(r#"{{"routes":{routes}}}"#);
        let headers = [
            ("Wess-Settings", settings.as_str()),
            ("Authorization", "Bearer owner"),
        ];
        let path = format!("/v1/modules?name={name}");
        send(self.http, "POST", &path, &headers, guest(module)).await
    }

    async fn configure(&self, name: &str, routes: &str) -> Answer {
        let settings = format!(r#"{{"settings":{{"routes":{routes}}}}}"#);
        let path = format!("/v1/modules/{name}/settings");
        let json = [("Content-Type", "application/json")];
        send(self.http, "PUT", &path, &json, settings).await
    }

    async fn delete(&self, reference: &str) {
        let path = format!("/v1/modules/{reference}");
        assert_eq!(send(self.http, "DELETE", &path, &[], "").await.status, 200);
    }

    /// What answers `/hello`, or the status of who does not.
    async fn hello(&self, host: &str) -> Result<(), u16> {
        let answer = ask(self.http, host, "/hello", "").await;
        match answer.status {
            // Whole or in one chunk, as its guest ended in its first turn or later.
            200 if answer.text().contains(HELLO) => Ok(()),
            status => Err(status),
        }
    }

    async fn until(&self, host: &str, expected: Result<(), u16>) {
        eventually(host, async || (self.hello(host).await == expected).then_some(())).await;
    }
}

#[tokio::test]
async fn requests_for_a_claimed_host_go_to_its_module_with_all_of_their_path() {
    let fleet = Fleet::start(&[]);
    assert_eq!(fleet.hello("a.localhost").await, Err(404));
    let stored = fleet
        .store("web", "web", r#"["a.localhost","*.shop.localhost"]"#)
        .await;
    assert_eq!(stored.status, 201, "{}", stored.text());
    fleet.until("a.localhost", Ok(())).await;
    for host in [
        "A.LocalHost",
        "a.localhost:8080",
        "b.shop.localhost",
        "c.b.shop.localhost:1",
    ] {
        assert_eq!(fleet.hello(host).await, Ok(()), "{host}");
    }
    for host in ["localhost", "b.localhost", "shop.localhost", "127.0.0.1"] {
        assert_eq!(fleet.hello(host).await, Err(404), "{host}");
    }
    // A guest that says its path, byte for byte; one that refuses, in the place of a route of ours.
    for path in ["/p/v1/modules?a=b%20c", "/p//x/"] {
        let answer = ask(fleet.http, "a.localhost", path, "").await;
        assert!(
            answer.text().lines().any(|line| line == path),
            "{}",
            answer.text()
        );
    }
    let refused = ask(fleet.http, "a.localhost", "/readyz", "").await.problem();
    assert_eq!(refused.code, ErrorCode::GuestTrapped);
    assert_eq!(ask(fleet.http, "localhost", "/readyz", "").await.status, 200);
    // Whoever is no program of this machine is served as little as below /v1/http.
    let foreign = ask(
        fleet.http,
        "a.localhost",
        "/hello",
        "Origin: https://evil.example\r\n",
    )
    .await;
    assert_eq!(foreign.problem().code, ErrorCode::Forbidden);
}

#[tokio::test]
async fn what_holds_is_what_the_newest_version_says() {
    let fleet = Fleet::start(&[]);
    fleet
        .store("web", "web", r#"["a.localhost","s.localhost"]"#)
        .await;
    fleet.until("a.localhost", Ok(())).await;
    let taken = fleet
        .store("other", "web", r#"["b.localhost","a.localhost"]"#)
        .await;
    let problem = taken.problem();
    assert_eq!(problem.code, ErrorCode::Conflict);
    assert!(
        problem
            .detail
            .contains("the module web has the route a.localhost"),
        "{problem:?}"
    );
    let typed = fleet.store("add", "add", r#"["b.localhost"]"#).await.problem();
    assert_eq!(typed.code, ErrorCode::InvalidRequest);

    let moved = fleet.configure("web", r#"["b.localhost","s.localhost"]"#).await;
    assert!(moved.status < 300, "{}", moved.text());
    fleet.until("b.localhost", Ok(())).await;
    assert_eq!(fleet.hello("a.localhost").await, Err(404));
    assert_eq!(fleet.hello("s.localhost").await, Ok(()));
    // What was given up may be claimed by another.
    assert_eq!(
        fleet.store("other", "web", r#"["c.localhost"]"#).await.status,
        201
    );
    fleet.until("c.localhost", Ok(())).await;

    fleet.delete("web@2").await;
    fleet.until("b.localhost", Err(404)).await;
    assert_eq!(fleet.hello("a.localhost").await, Ok(()));
    fleet.delete("web").await;
    fleet.until("a.localhost", Err(404)).await;
    assert_eq!(fleet.hello("s.localhost").await, Err(404));
    assert_eq!(fleet.hello("c.localhost").await, Ok(()));
    assert_eq!(fleet.configure("other", "[]").await.status, 201);
    fleet.until("c.localhost", Err(404)).await;
}

#[tokio::test]
async fn hosts_are_known_while_nats_is_away_and_followed_when_it_is_back() {
    let mut fleet = Fleet::start(&[]);
    fleet.store("web", "web", r#"["a.localhost"]"#).await;
    fleet.until("a.localhost", Ok(())).await;
    fleet.nats.kill();
    fleet.until("a.localhost", Err(503)).await;
    assert_eq!(fleet.hello("b.localhost").await, Err(404));
    fleet.nats.restart();
    eventually("a store", async || {
        let stored = fleet.store("other", "web", r#"["b.localhost"]"#).await;
        (stored.status < 300).then_some(())
    })
    .await;
    fleet.until("b.localhost", Ok(())).await;
    fleet.until("a.localhost", Ok(())).await;
}

#[tokio::test]
async fn with_tokens_any_host_is_served_to_whoever_may_invoke() {
    let folder = TempDir::new().unwrap();
    let tokens = entry("owner", r#""store""#) + &entry("caller", r#""invoke""#);
    let tokens = write(&folder, &tokens);
    let fleet = Fleet::start(&["--tokens", &tokens, "--module-hosts", "hello.example.com"]);
    let stored = fleet.store("web", "web", r#"["hello.example.com"]"#).await;
    assert_eq!(stored.status, 201, "{}", stored.text());
    let asked = async |token: &str| {
        let line = format!("Authorization: Bearer {token}\r\n");
        ask(fleet.http, "hello.example.com", "/hello", &line).await
    };
    eventually("the host", async || {
        asked("caller").await.text().contains(HELLO).then_some(())
    })
    .await;
    assert_eq!(asked("owner").await.problem().code, ErrorCode::Forbidden);
    let nobody = ask(fleet.http, "hello.example.com", "/hello", "").await;
    assert_eq!(nobody.problem().code, ErrorCode::Unauthorized);
    let echo = "Authorization: Bearer caller\r\nX-Forwarded-Prefix: /p\r\nForwarded: for=_x\r\n";
    let echo = ask(fleet.http, "hello.example.com", "/echo", echo).await;
    assert_eq!(echo.header("authorization"), None);
}
