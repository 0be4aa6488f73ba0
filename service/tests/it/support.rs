//! Options from arguments, connections to a test's server, and one HTTP request by hand.

use async_nats::jetstream::{self, Context};
use clap::Parser;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wess_harness::NatsServer;
use wess_service::assets::{AssetOptions, Assets, ensure_assets};
use wess_service::nats::{Connection, NatsConfig, NatsOptions};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    nats: NatsOptions,
}

pub fn config(args: &[&str]) -> NatsConfig {
    let cli = Cli::try_parse_from(std::iter::once("test").chain(args.iter().copied())).unwrap();
    cli.nats.validate().unwrap()
}

pub async fn connect(server: &NatsServer) -> Connection {
    config(&["--nats", &server.url()]).connect("test").await.unwrap()
}

pub async fn jetstream(server: &NatsServer) -> Context {
    jetstream::new(connect(server).await.client)
}

pub async fn assets(server: &NatsServer) -> Assets {
    ensure_assets(&jetstream(server).await, &AssetOptions::default())
        .await
        .unwrap()
}

/// Status and the whole answer, head included.
pub async fn http_get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}
