//! What a scrape of a gateway shows of the queue and of the fleet: levels that others read and hear.
//!
//! Shows nothing rather than 0 where nothing is known. Does no I/O.

use std::fmt;
use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::backlog::Backlog;
use crate::fleet::FleetState;

/// Where a scrape looks. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Levels(Arc<OnceLock<(watch::Receiver<Backlog>, watch::Receiver<FleetState>)>>);

impl Levels {
    /// Shows them to scrapes of `registry`, from when there is something to show.
    pub fn register(registry: &mut Registry) -> Self {
        let levels = Self::default();
        registry.register_collector(Box::new(levels.clone()));
        levels
    }

    /// Says what to show. Only the first time counts.
    pub fn show(&self, backlog: watch::Receiver<Backlog>, fleet: watch::Receiver<FleetState>) {
        let _ = self.0.set((backlog, fleet));
    }
}

impl Collector for Levels {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some((backlog, fleet)) = self.0.get() else {
            return Ok(());
        };
        let (backlog, fleet) = (*backlog.borrow(), *fleet.borrow());
        for (name, help, level) in levels(backlog, fleet) {
            if let Some(level) = level {
                let descriptor = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                ConstGauge::new(level as i64).encode(descriptor)?;
            }
        }
        Ok(())
    }
}

/// Name, help and level of each gauge.
fn levels(backlog: Backlog, fleet: FleetState) -> [(&'static str, &'static str, Option<u64>); 11] {
    let Backlog {
        jobs,
        calls,
        bound,
        dead_letters,
    } = backlog;
    let heard = |level: u64| fleet.known.then_some(level);
    [
        (
            "wess_jobs_pending",
            "Durable jobs that no worker has",
            jobs.map(|lag| lag.pending),
        ),
        (
            "wess_jobs_ack_pending",
            "Durable jobs that a worker has and has not settled",
            jobs.map(|lag| lag.ack_pending),
        ),
        (
            "wess_calls_pending",
            "Queued synchronous calls that no worker has",
            calls.map(|lag| lag.pending),
        ),
        (
            "wess_calls_ack_pending",
            "Queued synchronous calls that a worker has and has not settled",
            calls.map(|lag| lag.ack_pending),
        ),
        (
            "wess_bound_pending",
            "Messages of bound streams that no worker has",
            bound.known().map(|lag| lag.pending),
        ),
        (
            "wess_bound_ack_pending",
            "Messages of bound streams that a worker has and has not settled",
            bound.known().map(|lag| lag.ack_pending),
        ),
        ("wess_dead_letters", "Jobs that were given up", dead_letters),
        (
            "wess_gateway_fleet_workers",
            "Workers that beat and take work",
            heard(fleet.taking.into()),
        ),
        (
            "wess_gateway_fleet_slots",
            "Guests that may run or be suspended at once, on workers that take work",
            heard(fleet.slots_total),
        ),
        (
            "wess_gateway_fleet_slots_busy",
            "Guests running or suspended on all workers that beat",
            heard(fleet.slots_busy),
        ),
        (
            "wess_gateway_fleet_waiting",
            "Calls that wait for a slot on all workers that beat",
            heard(fleet.waiting),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backlog::Lag;

    fn scrape(registry: &Registry) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn what_is_not_known_is_not_shown() {
        let mut registry = Registry::default();
        let levels = Levels::register(&mut registry);
        assert_eq!(scrape(&registry), "");
        let (backlog, fleet) = (
            watch::Sender::new(Backlog::default()),
            watch::Sender::new(FleetState::default()),
        );
        levels.show(backlog.subscribe(), fleet.subscribe());
        assert_eq!(scrape(&registry), "");
        backlog.send_replace(Backlog {
            jobs: Some(Lag {
                pending: 3,
                ack_pending: 2,
            }),
            dead_letters: Some(0),
            ..Backlog::default()
        });
        assert_eq!(
            scrape(&registry),
            "wess_jobs_pending 3\nwess_jobs_ack_pending 2\nwess_dead_letters 0"
        );
        fleet.send_modify(|fleet| fleet.known = true);
        assert!(scrape(&registry).contains("wess_gateway_fleet_workers 0"));
    }
}
