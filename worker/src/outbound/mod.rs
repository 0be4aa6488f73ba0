//! HTTP requests of guests to the outside: who may be asked, how long, how much, and how many at once.
//!
//! Knows neither Wasmtime nor NATS. Follows no redirect, shares no connection between two requests, and connects to no
//! address that it has not looked at.

mod address;
mod allowance;
mod connect;
mod exchange;
mod fault;
mod stats;
mod target;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::RootCertStore;
use tokio_util::task::TaskTracker;

pub use allowance::Allowance;
pub use exchange::ResponseBody;
pub use fault::OutboundFault;
pub use stats::OutboundStats;

/// How long finding an address, connecting and the TLS handshake may take together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a response's head may take once connected, the request's body included.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a guest that reads a response's body waits for more of it.
pub const BETWEEN_BYTES_TIMEOUT: Duration = Duration::from_secs(30);
/// Most requests of one run.
pub const MAX_REQUESTS: usize = 64;
/// Most requests of one run under way at once; one is until its response's body has ended or was dropped.
pub const MAX_AT_ONCE: usize = 8;
/// Most requests of a worker under way at once: each is a socket.
pub const MAX_UNDER_WAY: usize = 512;
/// Most bytes of one request's body, and of one response's. They stream, so this bounds traffic and not memory.
pub const MAX_BODY_BYTES: u64 = 32 << 20;
/// Most bytes of the bodies of all requests of a run, and of all its responses.
pub const MAX_RUN_BYTES: u64 = 64 << 20;
/// Longest path and query.
pub const MAX_URI_BYTES: usize = 8 << 10;
/// Most names that are looked up at once: each takes a thread until the system has answered.
const MAX_LOOKUPS: usize = 32;

/// How far a module's grants reach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OutboundPolicy {
    /// As far as they say.
    #[default]
    Granted,
    /// To public addresses alone, whatever they say.
    Public,
    /// Nowhere.
    Off,
}

/// How long a guest lets each part of a request take, within the bounds here.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    connect: Duration,
    first_byte: Duration,
    between_bytes: Duration,
}

impl Timeouts {
    /// What a guest asks for, where that is shorter than ours.
    pub fn within(
        connect: Option<Duration>,
        first_byte: Option<Duration>,
        between_bytes: Option<Duration>,
    ) -> Self {
        let shorter = |asked: Option<Duration>, ours| asked.map_or(ours, |asked| asked.min(ours));
        Self {
            connect: shorter(connect, CONNECT_TIMEOUT),
            first_byte: shorter(first_byte, FIRST_BYTE_TIMEOUT),
            between_bytes: shorter(between_bytes, BETWEEN_BYTES_TIMEOUT),
        }
    }
}

/// A worker's way out. It has a thread of its own: handshakes and what servers send hold up neither executors nor the
/// control plane, and take one core at most.
pub struct Outbound {
    policy: OutboundPolicy,
    io: Handle,
    /// The thread ends when this goes.
    _io_thread: oneshot::Sender<()>,
    tasks: TaskTracker,
    under_way: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
    /// Made when first needed: reading what the machine trusts takes a while, keeping it a megabyte.
    tls: OnceCell<TlsConnector>,
    stats: OutboundStats,
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbound")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl Outbound {
    /// A way out, whose tasks this tracker knows. It trusts the certificates that the machine trusts.
    pub fn open(policy: OutboundPolicy, tasks: TaskTracker) -> io::Result<Arc<Self>> {
        Self::with(policy, tasks, OnceCell::new())
    }

    /// The same, trusting these certificates.
    #[cfg(test)]
    pub fn trusting(policy: OutboundPolicy, tasks: TaskTracker, roots: RootCertStore) -> Arc<Self> {
        let tls = connect::connector(roots).unwrap();
        Self::with(policy, tasks, OnceCell::new_with(Some(tls))).unwrap()
    }

    fn with(
        policy: OutboundPolicy,
        tasks: TaskTracker,
        tls: OnceCell<TlsConnector>,
    ) -> io::Result<Arc<Self>> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .thread_name("wess-outbound")
            .build()?;
        let (io, (alive, gone)) = (runtime.handle().clone(), oneshot::channel());
        std::thread::Builder::new()
            .name("wess-outbound".into())
            .spawn(move || runtime.block_on(gone).err())?;
        Ok(Arc::new(Self {
            policy,
            io,
            _io_thread: alive,
            tasks,
            under_way: Arc::new(Semaphore::new(MAX_UNDER_WAY)),
            lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            tls,
            stats: OutboundStats::default(),
        }))
    }

    /// What it counts.
    pub fn stats(&self) -> &OutboundStats {
        &self.stats
    }

    /// Requests under way.
    pub fn under_way(&self) -> usize {
        MAX_UNDER_WAY - self.under_way.available_permits()
    }

    fn permit(&self) -> Result<OwnedSemaphorePermit, OutboundFault> {
        let permit = Arc::clone(&self.under_way).try_acquire_owned();
        permit.map_err(|_| OutboundFault::TooManyAtOnce)
    }

    async fn tls(&self) -> Result<TlsConnector, OutboundFault> {
        let read = || async {
            let roots = tokio::task::spawn_blocking(machine_roots).await;
            connect::connector(roots.map_err(|_| OutboundFault::Internal)?)
        };
        self.tls.get_or_try_init(read).await.cloned()
    }
}

/// What the machine trusts; nothing, if that cannot be read.
fn machine_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a certificate that the machine trusts could not be read");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    roots
}
