//! The seed protocol on a Unix socket: newline-delimited JSON, for clients on this machine that the file lets in.
//!
//! Takes connections while there is room for them; a failing `accept` is tried again. Knows no tokens: who may open the
//! socket may do all that its commands do.

mod binaries;
mod commands;
mod connection;
mod file;
mod lines;
mod options;
mod outbox;
mod request;
mod run;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;

pub use file::{SocketError, SocketFile};
pub use options::{SocketConfig, SocketOptions};

use crate::app::App;
use crate::config::Bounds;
use commands::Commands;
use connection::{Connection, Patience};
use lines::Lines;

/// How long to leave the socket alone after `accept` failed, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves one socket.
pub struct SocketServer {
    file: SocketFile,
    app: Arc<App>,
    commands: Commands,
    connections: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    patience: Patience,
}

impl SocketServer {
    /// Serves an open socket by way of `app`; a client may leave what it was sent for `send`.
    pub fn new(file: SocketFile, app: Arc<App>, config: &SocketConfig, send: Duration) -> Self {
        let patience = Patience {
            line: app.bounds.body_timeout,
            send,
        };
        Self {
            file,
            commands: Commands::new(app.clone()),
            app,
            connections: Arc::new(Semaphore::new(config.max_connections)),
            requests: Arc::new(Semaphore::new(config.max_in_flight)),
            patience,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Accepts until shutdown, then removes the socket. The connections are tasks of the lifecycle, which waits for them.
    pub async fn run(self) {
        let lifecycle = self.app.lifecycle.clone();
        while let Some((stream, room)) = lifecycle.shutdown.run_until_cancelled(self.accept()).await {
            lifecycle.spawn_brief("socket connection", self.connection(stream, room));
        }
    }

    async fn accept(&self) -> (UnixStream, OwnedSemaphorePermit) {
        loop {
            let room = self.connections.clone().acquire_owned().await;
            let room = room.expect("nobody closes the semaphore");
            match self.file.listener.accept().await {
                Ok((stream, _)) => return (stream, room),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection to the socket");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn connection(&self, stream: UnixStream, room: OwnedSemaphorePermit) -> impl Future<Output = ()> + use<> {
        let counted = self.app.metrics.socket_connection();
        let lines = Lines::new(self.app.admission.clone(), Bounds::JSON_BYTES as usize);
        let requests = PollSemaphore::new(self.requests.clone());
        let connection = Connection::new(stream, self.commands.clone(), requests, lines, self.patience);
        let (shutdown, cut) = (
            self.app.lifecycle.shutdown.clone(),
            self.app.lifecycle.cut.clone(),
        );
        async move {
            let _held = (counted, room);
            let served = cut.run_until_cancelled(connection.serve(shutdown)).await;
            if let Some(Err(error)) = served {
                tracing::debug!(%error, "a connection to the socket ended");
            }
        }
    }
}
