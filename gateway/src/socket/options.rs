//! The options of the socket, as flags and as `WESS_…` variables.

use std::path::{Display, Path, PathBuf};

use clap::value_parser;

/// The socket's options, of every command line that has a gateway in it.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Socket")]
pub struct SocketOptions {
    /// Speak the seed protocol on this Unix socket. Its file is made anew, for this user alone, and removed at the end.
    #[arg(long, env = "WESS_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Most open connections of the socket; further ones wait to be accepted.
    #[arg(long, env = "WESS_SOCKET_MAX_CONNECTIONS", default_value_t = 1024, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub socket_max_connections: u32,
    /// Most requests of all connections of the socket in flight; further ones wait to be read.
    #[arg(long, env = "WESS_SOCKET_MAX_IN_FLIGHT", default_value_t = 1024, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub socket_max_in_flight: u32,
}

/// [`SocketOptions`] that name a socket.
#[derive(Debug, Clone)]
pub struct SocketConfig {
    pub(crate) path: PathBuf,
    pub(crate) max_connections: usize,
    pub(crate) max_in_flight: usize,
}

impl SocketOptions {
    /// The socket's path, to be shown.
    pub fn path(&self) -> Option<Display<'_>> {
        self.socket.as_deref().map(Path::display)
    }

    /// What was asked for, if anything was. Whether the path will do is seen when it is opened.
    pub fn config(&self) -> Option<SocketConfig> {
        Some(SocketConfig {
            path: self.socket.clone()?,
            max_connections: self.socket_max_connections as usize,
            max_in_flight: self.socket_max_in_flight as usize,
        })
    }
}
