//! A fleet with a module that serves HTTP, in one process or in three.

use std::net::SocketAddr;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wess_harness::{NatsServer, Process, Signal, binary, eventually, guest};

/// Every way that a request takes from a gateway to a worker.
pub const WAYS: [Way; 2] = [Way::InProcess, Way::ThroughNats];

/// How a gateway reaches its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    InProcess,
    ThroughNats,
}

/// The fleet, with the modules `web` and `add`.
pub struct Web {
    gateway: Process,
    /// The worker, where it is another process.
    worker: Option<Process>,
    _nats: NatsServer,
    _data: TempDir,
}

impl Web {
    pub fn start(way: Way) -> Self {
        let (nats, data) = (NatsServer::start(), TempDir::new().unwrap());
        let url = nats.url();
        let with = |name: &str, args: &[&str]| {
            let mut command = binary(name);
            command
                .args(args)
                .args(["--nats", &url, "--admin", "127.0.0.1:0"]);
            command
        };
        let folder = data.path().to_str().unwrap();
        let (gateway, worker) = match way {
            Way::InProcess => {
                let mut up = with("wess", &["up", "--http", "127.0.0.1:0", "--data", folder]);
                (Process::start(&mut up), None)
            }
            Way::ThroughNats => {
                let worker = Process::start(&mut with("wess-worker", &["--data", folder]));
                let mut gateway = with("wess-gateway", &["--listen", "127.0.0.1:0"]);
                (Process::start(&mut gateway), Some(worker))
            }
        };
        for name in ["web", "add"] {
            let path = data.path().join(name);
            std::fs::write(&path, guest(name)).unwrap();
            let mut store = binary("wess");
            store.args(["store", name]).arg(path).env("WESS_NATS_URL", &url);
            assert!(store.output().unwrap().status.success());
        }
        Self {
            gateway,
            worker,
            _nats: nats,
            _data: data,
        }
    }

    fn worker(&self) -> &Process {
        self.worker.as_ref().unwrap_or(&self.gateway)
    }

    /// What the worker has logged so far.
    pub fn worker_log(&self) -> String {
        self.worker().stderr()
    }

    /// Kills the worker.
    pub fn kill_worker(&mut self) {
        self.worker().signal(Signal::KILL);
    }

    /// Where its gateway listens.
    pub fn address(&self) -> SocketAddr {
        let url = self.gateway.value("http");
        url.trim_start_matches("http://").parse().unwrap()
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
        peak_bytes(self.gateway.pid()).max(peak_bytes(self.worker().pid()))
    }

    /// A number of its worker's; zero while it is not shown.
    pub async fn metric(&self, name: &str) -> u64 {
        let mut pages = page(&self.worker().value("admin")).await;
        if self.worker.is_some() {
            pages += &page(&self.gateway.value("admin")).await;
        }
        let mut lines = pages
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
    let mut stream = TcpStream::connect(admin.trim_start_matches("http://"))
        .await
        .unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    page
}
