//! A fleet with a module that serves HTTP, in one process or in three.

use std::net::SocketAddr;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wess_harness::eventually;

use crate::wess::{Door, Wess};

/// Every way that a request takes from a gateway to a worker.
pub const WAYS: [Way; 1] = [Way::InProcess];

/// How a gateway reaches its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    InProcess,
}

/// The fleet, with the modules `web` and `add`.
pub struct Web {
    up: Wess,
}

impl Web {
    pub fn start(way: Way) -> Self {
        let Way::InProcess = way;
        let up = Wess::up_in(TempDir::new().unwrap(), &["--nats-listen", "127.0.0.1:0"]);
        up.store(Door::Nats, "web", "web");
        up.store(Door::Nats, "add", "add");
        Self { up }
    }

    /// Where its gateway listens.
    pub fn address(&self) -> SocketAddr {
        let url = self.up.process.value("http");
        url.strip_prefix("http://").unwrap().parse().unwrap()
    }

    pub fn at(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    /// A path of the gateway for a path of the guest.
    pub fn path(&self, below: &str) -> String {
        format!("/v1/http/web{below}")
    }

    pub fn url(&self, below: &str) -> String {
        self.at(&self.path(below))
    }

    /// The most memory that any of its processes has ever held.
    pub fn peak_bytes(&self) -> u64 {
        peak_bytes(self.up.process.pid())
    }

    /// A number of its worker's; zero while it is not shown.
    pub async fn metric(&self, name: &str) -> u64 {
        let page = page(&self.up.process.value("admin")).await;
        let mut lines = page
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        lines.next().map_or(0, |number| number.parse().unwrap())
    }

    /// Waits until no guest runs and no guest memory is held.
    pub async fn is_at_rest(&self) {
        for level in [
            "wess_worker_slots_busy",
            "wess_worker_waiting",
            "wess_worker_guest_memory_bytes",
            "wess_gateway_http_requests_in_flight",
        ] {
            eventually(level, async || (self.metric(level).await == 0).then_some(())).await;
        }
    }
}

fn peak_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib * 1024
}

async fn page(admin: &str) -> String {
    let mut stream = TcpStream::connect(admin.strip_prefix("http://").unwrap())
        .await
        .unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    page
}
