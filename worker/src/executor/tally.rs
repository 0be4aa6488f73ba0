//! What one executor has counted. Written by its thread alone, read by scrapes and discovery: without a lock, but for the
//! text of the last error.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use wess_schemas::{ErrorBody, ErrorCode, header};

use crate::endpoints::discovery::EndpointCounts;
use crate::endpoints::invoke::Form;

/// Upper bounds of the run time histogram, in microseconds.
const RUN_BOUNDS_US: [u64; 14] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 25_000, 100_000, 500_000, 2_500_000, 10_000_000,
];
const CODES: usize = ErrorCode::ALL.len();

/// A number that one thread writes and any may read.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds; only for the writing thread.
    pub fn add(&self, more: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(more),
            Ordering::Relaxed,
        );
    }

    /// Adds, from whatever thread.
    pub fn add_from_anywhere(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Sets; only for the writing thread.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Reads.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one endpoint has done, as the Services API tells it.
#[derive(Debug, Default)]
struct Answered {
    requests: Cell,
    errors: Cell,
    processing_us: Cell,
    last_error: Mutex<String>,
}

/// One executor's numbers.
#[derive(Debug, Default)]
pub struct Tally {
    /// Calls whose guest answered.
    pub succeeded: Cell,
    /// Calls refused or failed, by code in the order of [`ErrorCode::ALL`].
    failed: [Cell; CODES],
    /// Calls that had to load their module first.
    pub cold: Cell,
    /// Guests that changed to the slow lane.
    pub overstayed: Cell,
    /// Calls that had an instance which served others before.
    pub reused: Cell,
    /// Instances that wait for their next call; written under the lock of those.
    pub idle: Cell,
    /// Calls handed to the queue for want of a slot.
    pub spilled: Cell,
    /// Requests not answered because of the reply subject they named.
    pub forged_replies: Cell,
    /// Replies dropped because NATS was away for too long.
    pub replies_dropped: Cell,
    /// Log lines dropped because the log could not keep up.
    pub log_lines_dropped: Cell,
    /// Guests running or suspended.
    pub slots_busy: Cell,
    /// Calls waiting.
    pub waiting: Cell,
    /// Modules ready to run.
    pub prepared: Cell,
    /// What each form of `invoke` has done.
    answered: [Answered; Form::COUNT],
    run_us: Cell,
    run_buckets: [Cell; RUN_BOUNDS_US.len() + 1],
}

impl Tally {
    /// A guest ran for so long.
    pub fn ran(&self, run_us: u64) {
        let bucket = RUN_BOUNDS_US.partition_point(|bound| *bound < run_us);
        self.run_buckets[bucket].add(1);
        self.run_us.add(run_us);
    }

    /// A call was refused or failed.
    pub fn fail(&self, code: ErrorCode) {
        if let Some(at) = ErrorCode::ALL.iter().position(|other| *other == code) {
            self.failed[at].add(1);
        }
    }

    /// As [`Tally::fail`], from whatever thread.
    pub fn fail_from_anywhere(&self, code: ErrorCode) {
        if let Some(at) = ErrorCode::ALL.iter().position(|other| *other == code) {
            self.failed[at].add_from_anywhere(1);
        }
    }

    /// A request in one of the two forms was answered.
    pub fn answer(&self, form: Form, took_us: u64, error: Option<&ErrorBody>) {
        let answered = &self.answered[form as usize];
        answered.requests.add(1);
        answered.processing_us.add(took_us);
        if let Some(error) = error {
            answered.errors.add(1);
            *answered.last_error.lock().unwrap_or_else(PoisonError::into_inner) =
                header::header_line(&error.to_string());
        }
    }

    /// Calls answered, with results or with errors.
    pub fn answers(&self) -> u64 {
        self.succeeded.get() + self.failed.iter().map(Cell::get).sum::<u64>()
    }

    /// Time in guests, in microseconds.
    pub fn run_us(&self) -> u64 {
        self.run_us.get()
    }
}

/// A metric's name, its help, and where its number is.
type Shown = (&'static str, &'static str, fn(&Tally) -> &Cell);

/// What is counted, besides calls by their ends.
const COUNTERS: [Shown; 7] = [
    (
        "wess_worker_cold_calls",
        "Calls that had to load their module first",
        |tally| &tally.cold,
    ),
    (
        "wess_worker_overstayed",
        "Guests that changed to the slow lane",
        |tally| &tally.overstayed,
    ),
    (
        "wess_worker_reused_instances",
        "Calls that had an instance which served others before",
        |tally| &tally.reused,
    ),
    (
        "wess_worker_spilled_calls",
        "Calls handed to the queue for want of a slot",
        |tally| &tally.spilled,
    ),
    (
        "wess_worker_forged_replies",
        "Calls refused for the reply subject they named",
        |tally| &tally.forged_replies,
    ),
    (
        "wess_worker_log_lines_dropped",
        "Guest log lines that were dropped",
        |tally| &tally.log_lines_dropped,
    ),
    (
        "wess_worker_replies_dropped",
        "Replies dropped because NATS was away for too long",
        |tally| &tally.replies_dropped,
    ),
];

/// All executors' numbers as metrics of the process.
#[derive(Debug, Clone)]
pub struct Tallies(pub Vec<Arc<Tally>>);

impl Tallies {
    /// One number over all executors.
    pub fn sum(&self, number: impl Fn(&Tally) -> u64) -> u64 {
        self.0.iter().map(|tally| number(tally)).sum()
    }
}

impl Tallies {
    /// What some forms of `invoke` have done on all executors.
    pub fn counts(&self, forms: &[Form]) -> EndpointCounts {
        let each = |form: Form| self.0.iter().map(move |tally| &tally.answered[form as usize]);
        let answered = || forms.iter().flat_map(|form| each(*form));
        let last_error = |answered: &Answered| {
            answered
                .last_error
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone()
        };
        EndpointCounts {
            requests: answered().map(|answered| answered.requests.get()).sum(),
            errors: answered().map(|answered| answered.errors.get()).sum(),
            processing_ns: answered()
                .map(|answered| answered.processing_us.get() * 1000)
                .sum(),
            last_error: answered()
                .map(last_error)
                .find(|error| !error.is_empty())
                .unwrap_or_default(),
        }
    }
}

impl Collector for Tallies {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut calls = encoder.encode_descriptor(
            "wess_worker_calls",
            "Calls by how they ended",
            None,
            MetricType::Counter,
        )?;
        let succeeded = ConstCounter::new(self.sum(|tally| tally.succeeded.get()));
        succeeded.encode(calls.encode_family(&[("code", "ok")])?)?;
        for (at, code) in ErrorCode::ALL.iter().enumerate() {
            let failed = self.sum(|tally| tally.failed[at].get());
            if failed > 0 {
                ConstCounter::new(failed).encode(calls.encode_family(&[("code", code.as_str())])?)?;
            }
        }
        for (name, help, cell) in COUNTERS {
            let total = ConstCounter::new(self.sum(|tally| cell(tally).get()));
            total.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let gauges: [Shown; 4] = [
            ("wess_worker_slots_busy", "Guests running or suspended", |tally| {
                &tally.slots_busy
            }),
            (
                "wess_worker_waiting",
                "Calls waiting for a slot or their module",
                |tally| &tally.waiting,
            ),
            (
                "wess_worker_idle_instances",
                "Instances that wait for their module's next call",
                |tally| &tally.idle,
            ),
            (
                "wess_worker_prepared_modules",
                "Modules ready to run, once per executor",
                |tally| &tally.prepared,
            ),
        ];
        for (name, help, cell) in gauges {
            let total = ConstGauge::new(self.sum(|tally| cell(tally).get()) as i64);
            total.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        self.encode_run_time(&mut encoder)
    }
}

impl Tallies {
    fn encode_run_time(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let bounds = RUN_BOUNDS_US
            .iter()
            .map(|us| *us as f64 / 1e6)
            .chain([f64::INFINITY])
            .enumerate();
        let buckets: Vec<(f64, u64)> = bounds
            .map(|(at, bound)| (bound, self.sum(|tally| tally.run_buckets[at].get())))
            .collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let seconds = self.sum(Tally::run_us) as f64 / 1e6;
        encoder
            .encode_descriptor(
                "wess_worker_run_seconds",
                "From a guest's start to its end",
                None,
                MetricType::Histogram,
            )?
            .encode_histogram::<NoLabelSet>(seconds, count, &buckets, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_of_all_executors_add_up_in_a_scrape() {
        let tallies: Vec<_> = (0..2).map(|_| Arc::new(Tally::default())).collect();
        tallies[0].succeeded.add(2);
        tallies[1].succeeded.add(3);
        tallies[1].fail(ErrorCode::OutOfFuel);
        tallies[0].ran(10);
        tallies[1].ran(11);
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register_collector(Box::new(Tallies(tallies)));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "wess_worker_calls_total{code=\"ok\"} 5",
            "wess_worker_calls_total{code=\"out_of_fuel\"} 1",
            "wess_worker_run_seconds_bucket{le=\"0.00001\"} 1",
            "wess_worker_run_seconds_bucket{le=\"+Inf\"} 2",
            "wess_worker_run_seconds_count 2",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
