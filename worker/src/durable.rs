//! Everything of a worker that has to do with durable jobs, put together: what answers for them, and what runs them.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use prometheus_client::registry::Registry as Metrics;
use tokio::sync::Semaphore;
use wess_schemas::limits::LimitPolicy;
use wess_schemas::subject::Subjects;
use wess_service::lifecycle::{Failure, Lifecycle};

use crate::bindings::answer::Outputs;
use crate::config::Config;
use crate::endpoints::admit::{Admit, MAX_COPIES};
use crate::endpoints::chain::Chains;
use crate::endpoints::dead::DeadEndpoint;
use crate::endpoints::jobs::JobsEndpoint;
use crate::endpoints::store::StoreEndpoint;
use crate::queue::dead::Letters;
use crate::queue::fetch::Pool;
use crate::queue::known::KnownJobs;
use crate::queue::payload_sweep::PayloadSweep;
use crate::queue::records::Records;
use crate::queue::run::Runner;
use crate::queue::serve::Queues;
use crate::queue::settle::Settler;
use crate::queue::stats::JobStats;
use crate::queue::sweep::Sweep;
use crate::queue::tell::Teller;
use crate::queue::webhook::Webhooks;
use crate::registry::Registry;

/// Advisories seen to at once.
const MAX_SWEEPS: usize = 4;

/// What durable jobs need of the worker.
pub struct DurableParts<'a> {
    /// Its configuration.
    pub config: &'a Config,
    /// Its connection.
    pub client: Client,
    /// Its modules.
    pub registry: Registry,
    /// What stores modules.
    pub store: Arc<StoreEndpoint>,
    /// Where guests run.
    pub chains: Chains,
}

/// Durable jobs on one worker.
pub struct Durable {
    settler: Arc<Settler>,
    sweep: Sweep,
    webhooks: Webhooks,
    stats: JobStats,
    admission: (Registry, LimitPolicy, Arc<StoreEndpoint>),
    subjects: Subjects,
    results_age: Duration,
}

impl Durable {
    /// Puts it together; nothing runs yet.
    pub fn new(parts: DurableParts<'_>) -> Result<Self, Failure> {
        let DurableParts {
            config,
            client,
            registry,
            store,
            chains,
        } = parts;
        let subjects = config.nats.subjects.clone();
        let storage = registry.storage().clone();
        let webhooks = Webhooks::new(&config.webhooks).map_err(Failure::internal)?;
        let (records, stats) = (Records::new(storage.clone()), JobStats::default());
        let letters = Letters::new(storage.clone(), subjects.clone());
        let settler = Arc::new(Settler {
            worker: chains.worker.clone(),
            subjects: subjects.clone(),
            client: client.clone(),
            records: records.clone(),
            letters: letters.clone(),
            runner: Runner {
                outputs: Outputs {
                    client: client.clone(),
                    storage: storage.clone(),
                    worker: chains.worker.clone(),
                },
                subjects: subjects.clone(),
                chains,
                store: Arc::clone(&store),
            },
            teller: Teller {
                client,
                subjects: subjects.clone(),
                webhooks: webhooks.clone(),
            },
            ack_wait: config.assets.ack_wait(),
            clock: config.clock,
            stats: stats.clone(),
        });
        let sweep = Sweep {
            storage,
            letters,
            records,
            clock: config.clock,
            stats: stats.clone(),
            subjects: subjects.clone(),
        };
        Ok(Self {
            settler,
            sweep,
            webhooks,
            stats,
            admission: (registry, config.policy, store),
            subjects,
            results_age: config.assets.results_age(),
        })
    }

    /// What answers for jobs and for those that were given up.
    pub fn endpoints(&self) -> (JobsEndpoint, DeadEndpoint) {
        let (registry, policy, store) = self.admission.clone();
        let Sweep {
            storage,
            letters,
            records,
            clock,
            ..
        } = self.sweep.clone();
        let jobs = JobsEndpoint {
            admit: Admit {
                registry,
                policy,
                store,
                webhooks: self.webhooks.clone(),
                subjects: self.subjects.clone(),
                storage: storage.clone(),
                copies: Arc::new(Semaphore::new(MAX_COPIES)),
            },
            known: KnownJobs::new(storage.clone(), self.subjects.clone()),
            clock,
        };
        let dead = DeadEndpoint {
            letters,
            records,
            storage,
            subjects: self.subjects.clone(),
        };
        (jobs, dead)
    }

    /// Begins to take jobs, at most `most` at once.
    pub fn serve(self, most: usize, lifecycle: &Lifecycle, metrics: &mut Metrics) {
        self.stats.register(metrics);
        metrics.register(
            "webhooks_failed",
            "Webhooks that nobody took",
            self.webhooks.failed.clone(),
        );
        let chains = &self.settler.runner.chains;
        let (executors, under_way) = (chains.executors.clone(), chains.under_way.clone());
        let payloads = PayloadSweep {
            storage: self.sweep.storage.clone(),
            records: self.sweep.records.clone(),
            subjects: self.subjects.clone(),
            results_age: self.results_age,
        };
        let queues = Queues {
            storage: self.sweep.storage.clone(),
            subjects: self.subjects,
            lifecycle: lifecycle.clone(),
            under_way,
        };
        queues.serve_jobs(Pool::new(most, Some(executors)), self.settler);
        queues.serve_sweep(Pool::new(MAX_SWEEPS, None), self.sweep);
        queues.serve_timers();
        queues.sweep_payloads(payloads);
    }
}
