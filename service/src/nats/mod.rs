//! The connection to NATS: its options, its settings, and what it is doing now.
//!
//! Reconnects for ever; only the first connect may fail, and then the process exits with a code.

mod credentials;
mod leave;
mod options;
mod watch;

use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions, ServerAddr};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use wess_schemas::subject::Subjects;

pub use credentials::{Credentials, CredentialsError};
pub use leave::leave;
pub use options::{DEFAULT_URL, NatsOptions, Secret, TlsFiles};
pub use watch::{ConnectionState, ConnectionWatch};

/// How often the server is asked whether it is still there; it is given up after two silent intervals.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Bounds one attempt to connect, handshake and TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bounds a request that states no timeout of its own: asset and catalog calls, never an invocation.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages that a subscription holds; what comes after is dropped. More than one read of a connection's socket can bring,
/// because whoever subscribes looks after each. Takes no memory until they come.
const SUBSCRIPTION_CAPACITY: usize = 1 << 19;
/// A restarted server is found again within this time.
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(2);

/// How to reach NATS, validated. Made by [`NatsOptions::validate`].
#[derive(Debug, Clone)]
pub struct NatsConfig {
    /// The subjects under `--prefix`.
    pub subjects: Subjects,
    pub(crate) servers: Vec<ServerAddr>,
    pub(crate) credentials: Credentials,
    pub(crate) tls: TlsFiles,
    pub(crate) wait: bool,
    pub(crate) slow_consumers: Counter,
}

/// One connection, and what it is doing now.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The client. Cheap to clone.
    pub client: Client,
    /// Whether it is connected, and how often it was.
    pub watch: ConnectionWatch,
}

/// The first connect failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to NATS at {servers}")]
pub struct ConnectFailed {
    /// The servers tried, without credentials.
    pub servers: String,
    /// What the last one said.
    pub source: async_nats::ConnectError,
}

impl NatsConfig {
    /// Shows what its connections have lost, all of them together.
    pub fn register(&self, metrics: &mut Registry) {
        metrics.register(
            "wess_nats_slow_consumers",
            "Messages dropped because a subscription was full; should stay 0",
            self.slow_consumers.clone(),
        );
    }

    /// Connects as `name`, which NATS shows to its operators.
    ///
    /// Waits for a server that is not there yet only with `--nats-wait`; a server that refuses us is never waited for.
    pub async fn connect(&self, name: &str) -> Result<Connection, ConnectFailed> {
        let mut attempts = 0;
        loop {
            match self.try_connect(name).await {
                Ok(connection) => return Ok(connection),
                Err(error) if self.wait && may_heal(error.source.kind()) => {
                    attempts += 1;
                    tracing::warn!(attempts, %error, cause = %error.source, "waiting for NATS");
                    tokio::time::sleep(reconnect_delay(attempts)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn try_connect(&self, name: &str) -> Result<Connection, ConnectFailed> {
        let (options, mut watch) = self.connect_options(name);
        let connected = options.connect(self.servers.as_slice()).await;
        let client = connected.map_err(|source| ConnectFailed {
            servers: self.server_names(),
            source,
        })?;
        watch.connected().await;
        Ok(Connection { client, watch })
    }

    /// The settings of every connection of ours, and the watch that they feed.
    pub fn connect_options(&self, name: &str) -> (ConnectOptions, ConnectionWatch) {
        let (watch, observer) = watch::channel(self.slow_consumers.clone());
        let options = self
            .tls
            .apply(self.credentials.clone().into_connect_options())
            .name(name)
            .ping_interval(PING_INTERVAL)
            .subscription_capacity(SUBSCRIPTION_CAPACITY)
            .connection_timeout(CONNECT_TIMEOUT)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .max_reconnects(None)
            .reconnect_delay_callback(reconnect_delay)
            .event_callback(move |event| {
                observer.observe(&event);
                std::future::ready(())
            });
        (options, watch)
    }

    /// The servers as `host:port`, for people: what a URL says of users stays out.
    pub fn server_names(&self) -> String {
        let names = self
            .servers
            .iter()
            .map(|server| format!("{}:{}", server.host(), server.port()));
        names.collect::<Vec<_>>().join(", ")
    }
}

/// At once at first, then doubling from 40 ms.
fn reconnect_delay(attempts: usize) -> Duration {
    match attempts {
        0 | 1 => Duration::ZERO,
        _ => Duration::from_millis(10 << attempts.min(10)).min(MAX_RECONNECT_DELAY),
    }
}

fn may_heal(kind: ConnectErrorKind) -> bool {
    match kind {
        ConnectErrorKind::Dns | ConnectErrorKind::TimedOut | ConnectErrorKind::Io => true,
        ConnectErrorKind::ServerParse
        | ConnectErrorKind::Authentication
        | ConnectErrorKind::AuthorizationViolation
        | ConnectErrorKind::Tls
        | ConnectErrorKind::MaxReconnects => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reconnect_is_immediate_and_no_delay_exceeds_the_cap() {
        assert_eq!(reconnect_delay(1), Duration::ZERO);
        assert_eq!(reconnect_delay(2), Duration::from_millis(40));
        assert!((1..100).all(|attempt| reconnect_delay(attempt) <= reconnect_delay(attempt + 1)));
        assert_eq!(reconnect_delay(usize::MAX), MAX_RECONNECT_DELAY);
    }
}
