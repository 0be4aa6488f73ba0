//! What became of guests' requests, counted.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::OutboundFault;

/// Requests by how they ended.
#[derive(Debug, Clone, Default)]
pub struct OutboundStats(Family<Outcome, Counter>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

impl OutboundStats {
    /// Shows them.
    pub fn register(&self, metrics: &mut Registry) {
        metrics.register(
            "outbound_requests",
            "HTTP requests of guests by how they ended",
            self.0.clone(),
        );
    }

    /// One request's response was read to its end.
    pub(super) fn answered(&self) {
        self.count("answered");
    }

    /// Nobody read one request's response to its end.
    pub(super) fn left(&self) {
        self.count("left");
    }

    /// One request failed.
    pub(super) fn failed(&self, fault: OutboundFault) {
        self.count(fault.as_str());
    }

    fn count(&self, outcome: &'static str) {
        self.0.get_or_create(&Outcome { outcome }).inc();
    }
}
