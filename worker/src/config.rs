//! What a worker is told at its start: options as written, then validated before anything opens.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;
use std::time::Duration;

use wess_schemas::limits::{EffectiveLimits, LimitPolicy, MAX_WAIT_MS, MIB};
use wess_schemas::timestamp::Timestamp;
use wess_service::assets::AssetOptions;
use wess_service::config::{ConfigError, Problems};
use wess_service::nats::{NatsConfig, NatsOptions};
use wess_service::secrets::{OpeningKeys, SecretsOptions};

use crate::executor::Bounds;
use crate::memory;
use crate::outbound::OutboundPolicy;
use crate::queue::Clock;
use crate::queue::shares::Weights;
use crate::queue::webhook::WebhookOptions;
use crate::registry::RegistryOptions;

/// Most executors a process may have.
const MAX_EXECUTORS: usize = 256;
/// Most slots of all executors together. Once modules of every kind were called a slot has reserved 75 GiB of address space:
/// 24 in the engines of each of three meterings, 3 in those of the fourth. A process has 128 TiB, and each executor's pools
/// have a slot more.
const MAX_SLOTS: usize = 1408;
/// Slots of an executor, unless told.
const DEFAULT_SLOTS: usize = 64;

/// A worker's options, as `wess-worker` and `wess up` take them.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Worker")]
pub struct WorkerOptions {
    /// Threads that answer calls [default: one per core].
    #[arg(long, env = "WESS_EXECUTORS", value_name = "N")]
    pub executors: Option<usize>,
    /// Guests running at once, per executor [default: 64, fewer on more than 22 executors].
    #[arg(long, env = "WESS_SLOTS", value_name = "N")]
    pub slots: Option<usize>,
    /// Calls waiting at once, per executor; the next one is refused as overloaded.
    #[arg(long, env = "WESS_QUEUE", default_value_t = 8192, value_name = "N")]
    pub queue: usize,
    /// How long a call may have to wait for those before it, in milliseconds; one that would wait longer is left to the queue
    /// that all workers share, and refused as overloaded when that is full.
    #[arg(long, env = "WESS_QUEUE_MS", default_value_t = 100, value_name = "MS")]
    pub queue_ms: u64,
    /// What waiting calls may hold together, per executor, in MiB.
    #[arg(long, env = "WESS_QUEUE_MB", default_value_t = 64, value_name = "MIB")]
    pub queue_mb: usize,
    /// How much of the slots submitted jobs get, in proportion to --call-weight.
    #[arg(long, env = "WESS_JOB_WEIGHT", default_value_t = 1, value_name = "N")]
    pub job_weight: u32,
    /// How much of the slots calls get that waited in the queue, in proportion to --job-weight.
    #[arg(long, env = "WESS_CALL_WEIGHT", default_value_t = 1, value_name = "N")]
    pub call_weight: u32,
    /// Memory of all guests together, in MiB [default: half of the memory this process may use].
    #[arg(long, env = "WESS_MEMORY_MB", value_name = "MIB")]
    pub memory_mb: Option<u64>,
    /// Largest memory one guest may be given, in MiB.
    #[arg(
        long,
        env = "WESS_MAX_GUEST_MEMORY_MB",
        default_value_t = 512,
        value_name = "MIB"
    )]
    pub max_guest_memory_mb: u64,
    /// Longest run a caller may ask for, in milliseconds.
    #[arg(
        long,
        env = "WESS_MAX_TIMEOUT_MS",
        default_value_t = 60_000,
        value_name = "MS"
    )]
    pub max_timeout_ms: u64,
    /// How long work may take to finish once the process is asked to stop, in seconds.
    #[arg(long, env = "WESS_GRACE_S", default_value_t = 25, value_name = "S")]
    pub grace_s: u64,
    /// How far modules' grants of HTTP reach: as they say, to public addresses alone, or nowhere.
    #[arg(
        long,
        env = "WESS_OUTBOUND",
        value_enum,
        default_value_t,
        value_name = "REACH"
    )]
    pub outbound: OutboundPolicy,
    /// How assets in JetStream are made.
    #[command(flatten)]
    pub assets: AssetOptions,
    /// What opens modules' secrets.
    #[command(flatten)]
    pub secrets: SecretsOptions,
    /// Where jobs may be told of.
    #[command(flatten)]
    pub webhooks: WebhookOptions,
    /// What the local disk may hold and what modules may be.
    // Last, as its heading holds for every option after it.
    #[command(flatten)]
    pub registry: RegistryOptions,
}

/// A worker's configuration, valid.
#[derive(Debug, Clone)]
pub struct Config {
    /// How to reach NATS.
    pub nats: NatsConfig,
    /// What the local disk may hold and what modules may be.
    pub registry: RegistryOptions,
    /// How many executors.
    pub executors: NonZeroUsize,
    /// Bounds of each.
    pub bounds: Bounds,
    /// How the slots are shared between what waits in the queue.
    pub weights: Weights,
    /// What deadlines in the queue, and the times in records of jobs, are told by.
    pub clock: Clock,
    /// Memory of all guests together, in bytes.
    pub memory_bytes: u64,
    /// What callers may ask.
    pub policy: LimitPolicy,
    /// How long work may take to finish.
    pub grace: Duration,
    /// How far modules' grants of HTTP reach.
    pub outbound: OutboundPolicy,
    /// How assets in JetStream are made.
    pub assets: AssetOptions,
    /// Where jobs may be told of.
    pub webhooks: WebhookOptions,
    /// What opens modules' secrets.
    pub secrets: OpeningKeys,
}

impl WorkerOptions {
    /// Checks everything and names every mistake.
    pub fn validate(&self, nats: &NatsOptions) -> Result<Config, ConfigError> {
        let mut problems = Problems::default();
        let nats = problems.take(nats.validate());
        let executors = self
            .executors
            .unwrap_or_else(|| available_parallelism().map_or(1, NonZeroUsize::get));
        let most_slots = MAX_SLOTS / executors.clamp(1, MAX_EXECUTORS);
        let slots = self.slots.unwrap_or(DEFAULT_SLOTS.min(most_slots));
        self.check_bounds(executors, slots, most_slots, &mut problems);
        let secrets = problems.parse("--secrets-keys", self.secrets.read());
        problems.finish()?;
        let (Some(nats), Some(executors), Some(secrets)) = (nats, NonZeroUsize::new(executors), secrets)
        else {
            unreachable!("a missing value is a problem, and problems have returned")
        };
        let assets = AssetOptions {
            subjects: nats.subjects.clone(),
            ..self.assets.clone()
        };
        Ok(Config {
            nats,
            registry: self.registry.clone(),
            executors,
            bounds: Bounds {
                slots,
                waiting: self.queue,
                waiting_bytes: self.queue_mb * MIB as usize,
                patience: Duration::from_millis(self.queue_ms),
            },
            weights: Weights {
                jobs: self.job_weight,
                calls: self.call_weight,
            },
            clock: Timestamp::now,
            memory_bytes: self
                .memory_mb
                .map_or_else(memory::default_budget_bytes, |mb| mb * MIB),
            policy: self.policy(),
            grace: Duration::from_secs(self.grace_s),
            outbound: self.outbound,
            assets,
            webhooks: self.webhooks.clone(),
            secrets,
        })
    }

    fn check_bounds(&self, executors: usize, slots: usize, most_slots: usize, problems: &mut Problems) {
        let mut within = |option, value: u64, least: u64, most: u64| {
            if !(least..=most).contains(&value) {
                problems.add(option, format!("is {value}, but must be from {least} to {most}"));
            }
        };
        within("--executors", executors as u64, 1, MAX_EXECUTORS as u64);
        within("--slots", slots as u64, 1, most_slots as u64);
        within("--queue", self.queue as u64, 1, 1_000_000);
        within("--queue-ms", self.queue_ms, 1, MAX_WAIT_MS);
        within("--queue-mb", self.queue_mb as u64, 16, 1 << 20);
        within("--job-weight", u64::from(self.job_weight), 1, 100);
        within("--call-weight", u64::from(self.call_weight), 1, 100);
        within("--memory-mb", self.memory_mb.unwrap_or(1), 1, 1 << 30);
        within(
            "--max-guest-memory-mb",
            self.max_guest_memory_mb,
            1,
            LimitPolicy::default().ceiling.memory_bytes / MIB,
        );
        within("--max-timeout-ms", self.max_timeout_ms, 1, 3_600_000);
        within("--grace-s", self.grace_s, 0, 3600);
    }

    /// What callers may ask: what the operator says, and else what is so untold.
    fn policy(&self) -> LimitPolicy {
        let defaults = LimitPolicy::default();
        let ceiling = EffectiveLimits {
            timeout_ms: self.max_timeout_ms,
            memory_bytes: self.max_guest_memory_mb * MIB,
            ..defaults.ceiling
        };
        let default = EffectiveLimits {
            timeout_ms: defaults.default.timeout_ms.min(ceiling.timeout_ms),
            memory_bytes: defaults.default.memory_bytes.min(ceiling.memory_bytes),
            ..defaults.default
        };
        LimitPolicy { default, ceiling }
    }
}
