//! What the registry counts: its own faults and repairs, and the costly things that should stay rare.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// Counters of one registry. Cheap to clone; clones count together.
#[derive(Debug, Clone, Default)]
pub struct RegistryStats {
    /// Records of `wess-modules` that do not parse.
    pub garbage_records: Counter,
    /// Reads and writes that the local disk refused.
    pub disk_failures: Counter,
    /// Local databases thrown away and made anew.
    pub disk_repairs: Counter,
    /// Local files and blobs thrown away to stay within `--disk-mb`.
    pub disk_evictions: Counter,
    /// Compiled files that were not loaded, because their seal, owner or mode was wrong.
    pub seals_refused: Counter,
    /// Modules compiled.
    pub compilations: Counter,
    /// Compiled modules kept in memory, because the disk refused them.
    pub memory_artifacts: Counter,
    /// Modules fetched from the object store.
    pub blobs_fetched: Counter,
    /// Lookups that the mirror could not answer.
    pub leader_reads: Counter,
    /// Head updates that lost a race and were tried again.
    pub lost_races: Counter,
}

impl RegistryStats {
    /// Shows the counters on `/metrics`.
    pub fn register(&self, metrics: &mut Registry) {
        let all = [
            (
                "garbage_records",
                "Module records that do not parse",
                &self.garbage_records,
            ),
            (
                "disk_failures",
                "Reads and writes that the local disk refused",
                &self.disk_failures,
            ),
            ("disk_repairs", "Local databases made anew", &self.disk_repairs),
            (
                "disk_evictions",
                "Local copies thrown away to stay within the disk's bound",
                &self.disk_evictions,
            ),
            (
                "seals_refused",
                "Compiled files not loaded for their seal, owner or mode",
                &self.seals_refused,
            ),
            ("compilations", "Modules compiled", &self.compilations),
            (
                "memory_artifacts",
                "Compiled modules kept in memory for want of disk",
                &self.memory_artifacts,
            ),
            (
                "blobs_fetched",
                "Modules fetched from the object store",
                &self.blobs_fetched,
            ),
            (
                "leader_reads",
                "Lookups that the catalog could not answer",
                &self.leader_reads,
            ),
            (
                "lost_races",
                "Module changes that lost a race and were tried again",
                &self.lost_races,
            ),
        ];
        let registry = metrics.sub_registry_with_prefix("registry");
        for (name, help, counter) in all {
            registry.register(name, help, counter.clone());
        }
    }
}
