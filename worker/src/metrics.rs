//! What a scrape of this worker shows besides what its parts count themselves.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry as Metrics;

use crate::executor::tally::Tallies;
use crate::fleet::Fleet;
use crate::guest::MemoryBudget;
use crate::registry::Registry;

/// Shows everything.
pub fn register(
    metrics: &mut Metrics,
    tallies: Tallies,
    registry: &Registry,
    budget: Arc<MemoryBudget>,
    forged: Counter,
    fleet: Fleet,
    slots: usize,
) {
    metrics.register(
        "wess_worker_forged_control_replies",
        "Requests other than calls refused for the reply subject they named",
        forged,
    );
    metrics.register_collector(Box::new(tallies));
    metrics.register_collector(Box::new(Levels {
        registry: registry.clone(),
        budget,
        fleet,
        slots,
    }));
}

/// Levels that are read when asked for.
struct Levels {
    registry: Registry,
    budget: Arc<MemoryBudget>,
    fleet: Fleet,
    slots: usize,
}

impl std::fmt::Debug for Levels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Levels")
    }
}

impl Collector for Levels {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let levels = [
            (
                "wess_worker_guest_memory_bytes",
                "Linear memory that guests hold",
                self.budget.used_bytes(),
            ),
            (
                "wess_worker_guest_memory_limit_bytes",
                "Linear memory that guests may hold",
                self.budget.limit_bytes(),
            ),
            (
                "wess_worker_modules",
                "Modules in the catalog",
                self.registry.modules() as u64,
            ),
            (
                "wess_worker_disk_bytes",
                "Local copies of modules and compiled code",
                self.registry.disk_bytes(),
            ),
            (
                "wess_worker_slots",
                "Guests that may run or be suspended at once",
                self.slots as u64,
            ),
            (
                "wess_worker_fleet_workers",
                "Workers whose beats are heard, this one included",
                self.fleet.workers() as u64,
            ),
        ];
        for (name, help, level) in levels {
            ConstGauge::new(level as i64).encode(encoder.encode_descriptor(
                name,
                help,
                None,
                MetricType::Gauge,
            )?)?;
        }
        Ok(())
    }
}
