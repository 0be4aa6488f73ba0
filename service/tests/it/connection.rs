//! The connection comes back by itself and says so; only the first connect may fail.

use async_nats::ConnectErrorKind;
use wess_harness::NatsServer;

use crate::support::{config, connect};

#[tokio::test]
async fn a_killed_server_is_found_again_and_each_reconnect_is_reported() {
    let mut server = NatsServer::start();
    let mut connection = connect(&server).await;
    assert_eq!(connection.watch.state().connects, 1);
    for connects in 2..4 {
        server.restart();
        let state = connection.watch.reconnected().await.unwrap();
        assert_eq!((state.connected, state.connects), (true, connects));
        connection.client.flush().await.unwrap();
    }
}

#[tokio::test]
async fn a_lost_server_is_seen() {
    let mut server = NatsServer::start();
    let mut connection = connect(&server).await;
    server.kill();
    while connection.watch.state().connected {
        connection.watch.changed().await.unwrap();
    }
}

#[tokio::test]
async fn nobody_there_at_the_first_connect_is_an_error_that_names_the_server() {
    let mut server = NatsServer::start();
    let url = server.url();
    server.kill();
    let error = config(&["--nats", &url]).connect("test").await.unwrap_err();
    assert_eq!(error.source.kind(), ConnectErrorKind::Io);
    assert!(error.to_string().contains(&server.port().to_string()), "{error}");
}

#[tokio::test]
async fn with_nats_wait_a_late_server_is_waited_for() {
    let mut server = NatsServer::start();
    let config = config(&["--nats", &server.url(), "--nats-wait"]);
    server.kill();
    let (connection, ()) = tokio::join!(config.connect("test"), async {
        tokio::task::yield_now().await;
        server.restart();
    });
    assert_eq!(connection.unwrap().watch.state().connects, 1);
}

#[tokio::test]
async fn one_server_of_several_is_enough() {
    let (mut gone, server) = (NatsServer::start(), NatsServer::start());
    let urls = format!("{},{}", gone.url(), server.url());
    gone.kill();
    config(&["--nats", &urls]).connect("test").await.unwrap();
}
