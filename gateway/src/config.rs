//! The options of the HTTP side, as flags and as `WESS_…` variables, and their validation.
//!
//! Refuses to listen beyond loopback without tokens.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::value_parser;
use wess_schemas::limits::{MAX_INPUT_BYTES, MIB};
use wess_schemas::route;
use wess_service::admin::AdminOptions;
use wess_service::assets::AssetOptions;
use wess_service::config::{ConfigError, Problems};
use wess_service::nats::{NatsConfig, NatsOptions};
use wess_service::telemetry::TelemetryOptions;

use crate::auth::{Door, TokenFile};
use crate::scaler::ScalerOptions;
use crate::socket::{SocketConfig, SocketOptions};

/// HTTP for Wess: stores modules and invokes them, over workers that NATS reaches.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "wess-gateway", version)]
pub struct Cli {
    /// Where to serve HTTP; port 0 takes a free one.
    #[arg(
        long,
        env = "WESS_LISTEN",
        default_value = "127.0.0.1:8080",
        value_name = "ADDR"
    )]
    pub listen: SocketAddr,
    /// Threads that serve HTTP, each with its own connection to NATS; as many as there are cores unless told.
    #[arg(long, env = "WESS_THREADS", value_name = "N", value_parser = value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// HTTP.
    #[command(flatten)]
    pub http: HttpOptions,
    /// The admin port.
    #[command(flatten)]
    pub admin: AdminOptions,
    /// NATS.
    #[command(flatten)]
    pub nats: NatsOptions,
    /// JetStream.
    #[command(flatten)]
    pub assets: AssetOptions,
    /// KEDA.
    #[command(flatten)]
    pub scaler: ScalerOptions,
    /// Logs.
    #[command(flatten)]
    pub telemetry: TelemetryOptions,
    /// How long requests in flight may take to finish when the process is told to stop, in seconds.
    #[arg(long, env = "WESS_GRACE_S", default_value_t = 25, value_parser = value_parser!(u64).range(0..=3600))]
    pub grace_s: u64,
}

/// A [`Cli`] that was found right.
#[derive(Debug)]
pub struct Config {
    /// HTTP.
    pub http: HttpConfig,
    /// NATS.
    pub nats: NatsConfig,
    /// How assets in JetStream are made.
    pub assets: AssetOptions,
}

impl Cli {
    /// How many threads shall serve HTTP.
    pub fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.map_or_else(cores, usize::from)
    }

    /// Checks everything, and reports every mistake.
    pub fn validate(&self) -> Result<Config, ConfigError> {
        let mut problems = Problems::default();
        let http = problems.take(self.http.validate("--listen", self.listen));
        let nats = problems.take(self.nats.validate());
        match (http, nats) {
            (Some(http), Some(nats)) => {
                let assets = AssetOptions {
                    subjects: nats.subjects.clone(),
                    ..self.assets.clone()
                };
                Ok(Config { http, nats, assets })
            }
            _ => Err(problems
                .finish()
                .err()
                .unwrap_or_else(|| ConfigError::new("--listen", "is wrong"))),
        }
    }
}

/// The HTTP options of every command line that has a gateway in it.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "HTTP")]
pub struct HttpOptions {
    /// Bearer tokens to accept: a TOML file of `[[token]]` with name, sha256 and scopes. Read again as it changes.
    #[arg(long, env = "WESS_TOKENS", value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// Hosts that modules may have, by name or as `*.` and a name; a module's claim of any other has no effect here.
    #[arg(
        long,
        env = "WESS_MODULE_HOSTS",
        value_delimiter = ',',
        default_value = "*.localhost",
        value_name = "HOST"
    )]
    pub module_hosts: Vec<String>,
    /// Most open connections; further ones wait to be accepted.
    #[arg(long, env = "WESS_HTTP_MAX_CONNECTIONS", default_value_t = 4096, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub http_max_connections: u32,
    /// Most requests in flight; further ones are refused with `overloaded`.
    #[arg(long, env = "WESS_HTTP_MAX_IN_FLIGHT", default_value_t = 1024, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub http_max_in_flight: u32,
    /// Most MiB of large bodies held in memory, in and out together; further ones are refused with `overloaded`.
    #[arg(long, env = "WESS_HTTP_MAX_BUFFERED_MB", default_value_t = 256, value_parser = value_parser!(u32).range(32..=65_536))]
    pub http_max_buffered_mb: u32,
    /// Largest module to take, in MiB; workers have their own limit.
    #[arg(long, env = "WESS_HTTP_MAX_MODULE_MB", default_value_t = 64, value_parser = value_parser!(u64).range(1..=4096))]
    pub http_max_module_mb: u64,
    /// How long a connection may take to send a request's head, from its opening or its last answer on, in seconds.
    #[arg(long, env = "WESS_HTTP_HEAD_TIMEOUT_S", default_value_t = 75, value_parser = value_parser!(u64).range(1..=3600))]
    pub http_head_timeout_s: u64,
    /// How long a client may take to send the body of an invocation, in seconds.
    #[arg(long, env = "WESS_HTTP_BODY_TIMEOUT_S", default_value_t = 60, value_parser = value_parser!(u64).range(1..=3600))]
    pub http_body_timeout_s: u64,
    /// How long a client may take to send a module, in seconds.
    #[arg(long, env = "WESS_HTTP_UPLOAD_TIMEOUT_S", default_value_t = 600, value_parser = value_parser!(u64).range(1..=86_400))]
    pub http_upload_timeout_s: u64,
    /// How long a run may take that states no timeout, in seconds. To be raised with the workers' --max-timeout-ms.
    #[arg(long, env = "WESS_HTTP_MAX_RUN_S", default_value_t = 60, value_parser = value_parser!(u64).range(1..=3600))]
    pub http_max_run_s: u64,
    /// How long a client may leave what it was sent unacknowledged, in seconds.
    #[arg(long, env = "WESS_HTTP_SEND_TIMEOUT_S", default_value_t = 30, value_parser = value_parser!(u64).range(1..=3600))]
    pub http_send_timeout_s: u64,
    /// The Unix socket.
    // Last, as its heading holds for every option after it.
    #[command(flatten)]
    pub socket: SocketOptions,
}

/// [`HttpOptions`] that were found right, and where to listen.
#[derive(Debug)]
pub struct HttpConfig {
    /// Hosts that modules may have.
    pub module_hosts: Vec<String>,
    pub(crate) listen: SocketAddr,
    pub(crate) door: Door,
    pub(crate) bounds: Bounds,
    pub(crate) max_in_flight: usize,
    pub(crate) max_buffered_mb: u32,
    pub(crate) max_run: Duration,
    pub(crate) connections: ConnectionBounds,
    pub(crate) socket: Option<SocketConfig>,
}

/// What bounds one request.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Largest module.
    pub module_bytes: u64,
    /// Longest time a module may take to come in.
    pub upload_timeout: Duration,
    /// Longest time any other body may take to come in.
    pub body_timeout: Duration,
}

impl Bounds {
    /// Largest raw input.
    pub const INPUT_BYTES: u64 = MAX_INPUT_BYTES;
    /// Largest JSON body: the largest input, every byte of it escaped by another, and what stands around it.
    pub const JSON_BYTES: u64 = 2 * MAX_INPUT_BYTES + MIB;
    /// Largest JSON body that has no input in it.
    pub const SMALL_JSON_BYTES: u64 = 64 * 1024;
}

/// What bounds the connections.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionBounds {
    pub(crate) max: usize,
    pub(crate) head_timeout: Duration,
    pub(crate) send_timeout: Duration,
}

impl HttpOptions {
    /// Checks the options together with the address to listen on, which is the value of `listen_option`.
    pub fn validate(
        &self,
        listen_option: &'static str,
        listen: SocketAddr,
    ) -> Result<HttpConfig, ConfigError> {
        let mut problems = Problems::default();
        let door = self.door(listen_option, listen, &mut problems);
        let wrong = |host: &&String| !route::is_below(host) && !route::is_route(host);
        if let Some(host) = self.module_hosts.iter().find(wrong) {
            problems.add(
                "--module-hosts",
                format!("{host:?} is neither a name nor *. and a name"),
            );
        }
        problems.finish()?;
        Ok(HttpConfig {
            listen,
            module_hosts: self.module_hosts.clone(),
            door,
            bounds: Bounds {
                module_bytes: self.http_max_module_mb * MIB,
                upload_timeout: Duration::from_secs(self.http_upload_timeout_s),
                body_timeout: Duration::from_secs(self.http_body_timeout_s),
            },
            max_in_flight: self.http_max_in_flight as usize,
            max_buffered_mb: self.http_max_buffered_mb,
            max_run: Duration::from_secs(self.http_max_run_s),
            connections: ConnectionBounds {
                max: self.http_max_connections as usize,
                head_timeout: Duration::from_secs(self.http_head_timeout_s),
                send_timeout: Duration::from_secs(self.http_send_timeout_s),
            },
            socket: self.socket.config(),
        })
    }

    fn door(&self, listen_option: &'static str, listen: SocketAddr, problems: &mut Problems) -> Door {
        let Some(path) = &self.tokens else {
            if !listen.ip().is_loopback() {
                problems.add(
                    listen_option,
                    format!("{listen} is not loopback: that needs --tokens"),
                );
            }
            return Door::Local;
        };
        let tokens = problems.parse("--tokens", TokenFile::open(path));
        tokens.map_or(Door::Local, |tokens| Door::Tokens(Arc::new(tokens)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn mistakes(args: &[&str]) -> Vec<&'static str> {
        let cli = Cli::try_parse_from(std::iter::once("wess-gateway").chain(args.iter().copied())).unwrap();
        cli.validate().map_or_else(
            |error| error.problems().map(|problem| problem.option).collect(),
            |_| Vec::new(),
        )
    }

    #[test]
    fn the_defaults_are_right() {
        assert_eq!(mistakes(&[]), [""; 0]);
        assert_eq!(mistakes(&["--listen", "[::1]:0"]), [""; 0]);
    }

    #[test]
    fn streams_hold_the_subjects_under_the_prefix() {
        let cli = Cli::try_parse_from(["wess-gateway", "--prefix", "fn", "--replicas", "3"]).unwrap();
        let config = cli.validate().unwrap();
        assert_eq!(config.assets.subjects, config.nats.subjects);
        assert_eq!(config.assets.replicas, 3);
        assert_eq!(config.assets.subjects.worker_beat(), "fn.worker.beat");
    }

    #[test]
    fn beyond_loopback_tokens_are_needed() {
        for listen in ["0.0.0.0:0", "[::]:0", "10.0.0.1:80"] {
            assert_eq!(mistakes(&["--listen", listen]), ["--listen"]);
        }
    }

    #[test]
    fn every_mistake_is_reported_by_name() {
        let args = [
            "--listen",
            "0.0.0.0:0",
            "--tokens",
            "/nowhere",
            "--module-hosts",
            "a.com,b:80",
            "--nats",
            "http://x",
        ];
        assert_eq!(mistakes(&args), ["--tokens", "--module-hosts", "--nats"]);
        assert_eq!(
            mistakes(&["--listen", "0.0.0.0:0", "--prefix", "a.b"]),
            ["--listen", "--prefix"]
        );
    }

    #[test]
    fn numbers_out_of_range_are_refused_by_name() {
        for option in [
            "--http-max-connections",
            "--http-max-in-flight",
            "--http-head-timeout-s",
        ] {
            let error = Cli::try_parse_from(["wess-gateway", option, "0"])
                .unwrap_err()
                .to_string();
            assert!(error.contains(option), "{error}");
        }
    }
}
