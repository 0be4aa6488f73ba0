//! A port that takes connections while there is room for them, with the socket options that answers need.
//!
//! A connection beyond the bound stays in the kernel's queue. A failing `accept` is tried again, never the end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

#[cfg(target_os = "linux")]
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long to leave the listener alone after it failed, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end of a request's connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// One port.
#[derive(Debug)]
pub struct Listener {
    port: TcpListener,
    room: Arc<Semaphore>,
    send_timeout: Duration,
}

impl Listener {
    /// Opens a port for `max` connections, each of which may leave what it was sent unacknowledged for `send_timeout`.
    pub async fn bind(address: SocketAddr, max: usize, send_timeout: Duration) -> io::Result<Self> {
        Ok(Self {
            port: TcpListener::bind(address).await?,
            room: Arc::new(Semaphore::new(max)),
            send_timeout,
        })
    }

    /// The address that it got.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.port.local_addr()
    }

    /// Waits for room, then for a connection. The room is free again when the permit is dropped.
    pub async fn accept(&self) -> (TcpStream, OwnedSemaphorePermit) {
        loop {
            let room = self.room.clone().acquire_owned().await;
            let room = room.expect("nobody closes the semaphore");
            let accepted = self.port.accept().await;
            match accepted.and_then(|(stream, _)| self.prepare(stream)) {
                Ok(stream) => return (stream, room),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Without `TCP_NODELAY`, an answer in two segments waits for the client's delayed acknowledgement: 40 ms.
    fn prepare(&self, stream: TcpStream) -> io::Result<TcpStream> {
        stream.set_nodelay(true)?;
        #[cfg(target_os = "linux")]
        SockRef::from(&stream).set_tcp_user_timeout(Some(self.send_timeout))?;
        Ok(stream)
    }
}
