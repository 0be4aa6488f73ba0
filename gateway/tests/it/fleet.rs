//! A gateway hears workers beat over a real NATS.

use clap::Parser;
use wess_gateway::config::Cli;
use wess_gateway::fleet::{Fleet, FleetState};
use wess_harness::NatsServer;
use wess_schemas::WorkerId;
use wess_schemas::beat::WorkerBeat;
use wess_schemas::subject::Subjects;
use wess_service::lifecycle::Lifecycle;
use wess_service::nats::Connection;

async fn connect(nats: &NatsServer) -> Connection {
    let cli = Cli::try_parse_from(["wess-gateway", "--nats", &nats.url()]).unwrap();
    let config = cli.validate().unwrap().nats;
    config.connect("fleet test").await.unwrap()
}

#[tokio::test]
async fn workers_are_heard_while_they_beat_and_nobody_is_claimed_to_be_there_without_nats() {
    let mut nats = NatsServer::start();
    let (connection, lifecycle) = (connect(&nats).await, Lifecycle::default());
    let fleet = Fleet::listen(&connection, &Subjects::default(), &lifecycle)
        .await
        .unwrap();
    let mut state = fleet.state();
    assert!(!state.borrow().known);
    let nobody = FleetState {
        known: true,
        ..FleetState::default()
    };
    assert_eq!(*state.wait_for(|state| state.known).await.unwrap(), nobody);

    let beat = WorkerBeat {
        worker: WorkerId::generate(),
        slots_busy: 1,
        slots_total: 4,
        waiting: 0,
        catalog_revision: 0,
        draining: false,
        calls_answered: 0,
    };
    let body = serde_json::to_vec(&beat).unwrap();
    for garbage in [b"{]".to_vec(), body] {
        connection
            .client
            .publish("wess.worker.beat", garbage.into())
            .await
            .unwrap();
    }
    let heard = *state.wait_for(|state| state.taking == 1).await.unwrap();
    assert_eq!((heard.slots_busy, heard.slots_total), (1, 4));
    state.wait_for(|state| *state == nobody).await.unwrap();

    nats.kill();
    state.wait_for(|state| !state.known).await.unwrap();
    nats.restart();
    state.wait_for(|state| *state == nobody).await.unwrap();
    lifecycle.closed.cancel();
    assert!(state.wait_for(|state| !state.known).await.is_err());
}
