//! HTTP by hand: what is sent and what comes back, byte for byte.

use std::net::SocketAddr;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wess_gateway::problem::ProblemDocument;

pub struct Answer {
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no head in {:?}", String::from_utf8_lossy(bytes)));
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self {
            status,
            head,
            body: bytes[end + 4..].to_vec(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The problem, which must be a whole one.
    pub fn problem(&self) -> ProblemDocument {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{}",
            self.head
        );
        let problem: ProblemDocument = self.json();
        assert_eq!(problem.status, self.status);
        assert_eq!(Some(problem.request_id.as_str()), self.header("x-request-id"));
        assert_eq!(problem.kind, format!("urn:wess:error:{}", problem.code));
        problem
    }

    /// Whether the body is as long as the head says.
    pub fn is_whole(&self) -> bool {
        self.header("content-length") == Some(&self.body.len().to_string())
    }
}

pub fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")
}

/// One request on a connection of its own.
pub async fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl AsRef<[u8]>,
) -> Answer {
    let body = body.as_ref();
    let length = body.len().to_string();
    let mut all = headers.to_vec();
    all.extend([("Connection", "close"), ("Content-Length", length.as_str())]);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(head(method, path, &all).as_bytes())
        .await
        .unwrap();
    // A server that refuses by the head alone may close before all of the body is out.
    let _ = stream.write_all(body).await;
    read_to_end(&mut stream).await
}

/// As [`send`], to a server that may die meanwhile: then there is no answer.
pub async fn send_to_mortal(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<Answer> {
    let length = body.len().to_string();
    let mut all = headers.to_vec();
    all.extend([("Connection", "close"), ("Content-Length", length.as_str())]);
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = head("POST", path, &all) + body;
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.ok()?;
    let answer = (!bytes.is_empty()).then(|| Answer::parse(&bytes))?;
    answer.is_whole().then_some(answer)
}

pub async fn get(address: SocketAddr, path: &str) -> Answer {
    send(address, "GET", path, &[], "").await
}

pub async fn post(address: SocketAddr, path: &str, body: impl AsRef<[u8]>) -> Answer {
    send(address, "POST", path, &[], body).await
}

pub async fn read_to_end(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // A connection that was broken off ends with an error; what came before it counts.
    let _ = stream.read_to_end(&mut bytes).await;
    Answer::parse(&bytes)
}

/// One answer on a connection that stays open.
pub async fn read_one(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    loop {
        if bytes.windows(4).any(|window| window == b"\r\n\r\n") {
            let answer = Answer::parse(&bytes);
            if answer.is_whole() {
                return answer;
            }
        }
        assert_ne!(
            stream.read_buf(&mut bytes).await.unwrap(),
            0,
            "the connection ended"
        );
    }
}
