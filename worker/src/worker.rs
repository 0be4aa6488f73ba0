//! A running worker: its registry, its executors and its control plane, and the door to them in this process.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::registry::Registry as Metrics;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;
use wess_schemas::WorkerId;
use wess_schemas::subject::Subjects;
use wess_service::lifecycle::{Failure, Lifecycle};
use wess_service::nats::Connection;
use wess_service::queue::overdue::Overdue;
use wess_service::upkeep;

use crate::bindings::answer::Outputs;
use crate::bindings::mirror::Mirror;
use crate::bindings::records::Records as BindingRecords;
use crate::bindings::stats::BindingStats;
use crate::bindings::{Host, consumers::Consumers};
use crate::config::Config;
use crate::control::{Control, ControlParts};
use crate::door::Door;
use crate::durable::{Durable, DurableParts};
use crate::endpoints::bindings::BindingsEndpoint;
use crate::endpoints::chain::{Chains, MAX_CHAINS_KIB};
use crate::endpoints::discovery::{CountRequests, EndpointCounts, EndpointName};
use crate::endpoints::invoke::Form;
use crate::endpoints::store::StoreEndpoint;
use crate::executor::tally::{Tallies, Tally};
use crate::executor::{self, Common, Executors};
use crate::files;
use crate::fleet::{CountSlots, Fleet, SlotCounts};
use crate::guest::{Compiler, MemoryBudget, Ticker};
use crate::outbound::Outbound;
use crate::queue::dead::Letters;
use crate::queue::keyed::KeyedCalls;
use crate::queue::known::KnownJobs;
use crate::queue::records::Records as JobRecords;
use crate::queue::shares::shares;
use crate::queue::spill::{CallQueue, CallQueueParts};
use crate::registry::Registry;
use crate::{memory, metrics};

/// How long a start waits for the catalog in JetStream before it serves from the local copy.
const CATALOG_PATIENCE: Duration = Duration::from_secs(5);

/// A worker that answers. It drains when its lifecycle shuts down.
pub struct Worker {
    id: WorkerId,
    subjects: Subjects,
    executors: Executors,
    control: Control,
    under_way: TaskTracker,
    runtime: Handle,
}

impl Worker {
    /// Opens everything. Once this returns, the server knows every subscription, and the worker beats.
    pub async fn start(
        config: Config,
        lifecycle: &Lifecycle,
        metrics: &mut Metrics,
    ) -> Result<Self, Failure> {
        let id = WorkerId::generate();
        config.nats.register(metrics);
        let connection = config.nats.connect(&format!("wess-worker-{id}")).await?;
        let registry = open_registry(&config, &connection, lifecycle).await?;
        upkeep::spawn(lifecycle, &connection, config.assets.clone());
        let subjects = &config.nats.subjects;
        let fleet = Fleet::listen(id.clone(), subjects, &connection, registry.revision(), lifecycle)
            .await
            .map_err(Failure::unavailable)?;
        let common = Arc::new(Common::new(&id, &config, registry.clone(), fleet, metrics)?);
        let executors = start_executors(config.executors.get(), Arc::clone(&common), lifecycle).await?;
        let tallies = Tallies(executors.tallies());
        let chains = chains(&common, &executors);
        let store = Arc::new(StoreEndpoint::new(&config, &registry, &common.fleet));
        let durable = Durable::new(DurableParts {
            config: &config,
            client: connection.client.clone(),
            registry: registry.clone(),
            store: Arc::clone(&store),
            chains: chains.clone(),
        })?;
        let (jobs, dead) = durable.endpoints();
        let (bindings, host, mirror) = bindings(&id, &config, &connection, &chains, &registry, lifecycle);
        let control = Control::new(ControlParts {
            worker: id,
            subjects: subjects.clone(),
            registry: registry.clone(),
            fleet: common.fleet.clone(),
            store,
            jobs,
            dead,
            bindings,
            chains,
            call_counts: count_calls(tallies.clone()),
        });
        control
            .serve(&connection.client, lifecycle)
            .await
            .map_err(Failure::unavailable)?;
        common
            .fleet
            .beat(count_slots(tallies, config.bounds.slots), lifecycle);
        let shares = shares(executors.slots(), config.weights);
        let call_queue = call_queue(&common, connection, &executors, &control, shares.calls);
        let metrics_of_worker = metrics.sub_registry_with_prefix("wess_worker");
        registry.stats().register(metrics_of_worker);
        call_queue.stats().register(metrics_of_worker);
        call_queue.serve(lifecycle);
        durable.serve(shares.jobs, lifecycle, metrics_of_worker);
        host.stats.register(metrics_of_worker);
        host.serve(mirror);
        let worker = Self {
            id: common.worker.clone(),
            subjects: common.subjects.clone(),
            executors,
            control,
            under_way: common.inside.clone(),
            runtime: Handle::current(),
        };
        worker.register(&common, &call_queue, metrics);
        let bytes = memory::forget_start_up_code();
        tracing::debug!(bytes, "gave back what the start needed of the program");
        Ok(worker)
    }

    fn register(&self, common: &Common, call_queue: &CallQueue, metrics: &mut Metrics) {
        let mut counted = Tallies(self.executors.tallies());
        counted.0.push(call_queue.stats().refused());
        metrics::register(
            metrics,
            counted,
            &common.registry,
            Arc::clone(&common.budget),
            self.control.forged_replies(),
            common.fleet.clone(),
            self.executors.slots(),
        );
    }

    /// This worker, as replies and beats name it.
    pub fn id(&self) -> &WorkerId {
        &self.id
    }

    /// The runtimes of its executors. Whoever comes by the door from one of them is served on that thread; each runs for as
    /// long as a door is held.
    pub fn runtimes(&self) -> impl Iterator<Item = Handle> {
        self.executors.runtimes()
    }

    /// The way to this worker from inside its process. While any is held the worker's drain goes on: whoever came in by
    /// it may still be sending.
    pub fn door(&self) -> Door {
        Door {
            subjects: self.subjects.clone(),
            executors: self.executors.clone(),
            control: self.control.clone(),
            control_runtime: self.runtime.clone(),
            _held: self.under_way.token(),
        }
    }
}

impl Common {
    fn new(
        id: &WorkerId,
        config: &Config,
        registry: Registry,
        fleet: Fleet,
        metrics: &mut Metrics,
    ) -> Result<Self, Failure> {
        let inside = TaskTracker::new();
        let outbound = Outbound::open(config.outbound, inside.clone()).map_err(Failure::internal)?;
        outbound
            .stats()
            .register(metrics.sub_registry_with_prefix("wess_worker"));
        Ok(Self {
            worker: id.clone(),
            subjects: config.nats.subjects.clone(),
            registry,
            policy: config.policy,
            secrets: config.secrets.clone(),
            budget: MemoryBudget::new(config.memory_bytes),
            ticker: Ticker::start().map_err(Failure::internal)?,
            bounds: config.bounds,
            max_prepared: files::modules_per_executor(config.executors),
            nats: config.nats.clone(),
            assets: config.assets.clone(),
            outbound,
            inside,
            chain_room: Arc::new(Semaphore::new(MAX_CHAINS_KIB)),
            fleet,
            clock: config.clock,
            overdue: Overdue::default(),
            room: watch::Sender::default(),
            executors: OnceLock::new(),
        })
    }
}

async fn open_registry(
    config: &Config,
    connection: &Connection,
    lifecycle: &Lifecycle,
) -> Result<Registry, Failure> {
    let compiler = Compiler::new().map_err(Failure::internal)?;
    let assets = config.assets.clone();
    let registry = Registry::open(&config.registry, assets, connection, compiler, lifecycle).await?;
    if !registry.replayed(CATALOG_PATIENCE).await {
        tracing::warn!(
            modules = registry.modules(),
            "JetStream is away: starting from the local copy"
        );
    }
    Ok(registry)
}

fn chains(common: &Common, executors: &Executors) -> Chains {
    let storage = common.registry.storage();
    Chains {
        executors: executors.clone(),
        storage: storage.clone(),
        keyed: KeyedCalls {
            jobs: KnownJobs::new(storage.clone(), common.subjects.clone()),
            worker: common.worker.clone(),
        },
        worker: common.worker.clone(),
        under_way: common.inside.clone(),
        room: Arc::clone(&common.chain_room),
    }
}

fn call_queue(
    common: &Common,
    connection: Connection,
    executors: &Executors,
    control: &Control,
    permits: usize,
) -> CallQueue {
    CallQueue::new(CallQueueParts {
        worker: common.worker.clone(),
        subjects: common.subjects.clone(),
        connection,
        storage: common.registry.storage().clone(),
        assets: common.assets.clone(),
        executors: executors.clone(),
        control: control.clone(),
        fleet: common.fleet.clone(),
        permits,
        clock: common.clock,
        inside: common.inside.clone(),
        overdue: common.overdue.clone(),
    })
}

/// What answers for bindings, and what runs them.
fn bindings(
    id: &WorkerId,
    config: &Config,
    connection: &Connection,
    chains: &Chains,
    registry: &Registry,
    lifecycle: &Lifecycle,
) -> (BindingsEndpoint, Host, Mirror) {
    let (storage, subjects) = (registry.storage().clone(), config.nats.subjects.clone());
    let (records, mirror) = (BindingRecords::new(storage.clone()), Mirror::default());
    let consumers = Consumers {
        storage: storage.clone(),
        records: records.clone(),
        ack_wait: config.assets.ack_wait(),
    };
    let host = Host {
        worker: id.clone(),
        subjects: subjects.clone(),
        connection: connection.clone(),
        outputs: Outputs {
            client: connection.client.clone(),
            storage: storage.clone(),
            worker: id.clone(),
        },
        registry: registry.clone(),
        policy: config.policy,
        executors: chains.executors.clone(),
        job_records: JobRecords::new(storage.clone()),
        letters: Letters::new(storage, subjects.clone()),
        consumers: consumers.clone(),
        stats: BindingStats::default(),
        ack_wait: config.assets.ack_wait(),
        lifecycle: lifecycle.clone(),
        under_way: chains.under_way.clone(),
    };
    let endpoint = BindingsEndpoint {
        registry: registry.clone(),
        policy: config.policy,
        subjects,
        records,
        mirror: mirror.clone(),
        consumers,
    };
    (endpoint, host, mirror)
}

async fn start_executors(
    count: usize,
    common: Arc<Common>,
    lifecycle: &Lifecycle,
) -> Result<Executors, Failure> {
    let mut executors = Vec::new();
    let (slots, room) = (common.bounds.slots, common.room.subscribe());
    for index in 0..count {
        executors.push(executor::start(index, Arc::clone(&common), lifecycle).await?);
    }
    let executors = Executors::new(executors, slots, room);
    // Nobody else sets it.
    let _ = common.executors.set(executors.clone());
    Ok(executors)
}

fn count_calls(tallies: Tallies) -> CountRequests {
    Arc::new(move |endpoint| match endpoint {
        EndpointName::Invoke => tallies.counts(&[Form::Json]),
        EndpointName::InvokeRaw => tallies.counts(&[Form::Raw, Form::Bare, Form::Traced]),
        EndpointName::Http => tallies.counts(&[Form::Http]),
        _ => EndpointCounts::default(),
    })
}

fn count_slots(tallies: Tallies, slots: usize) -> CountSlots {
    let total = (tallies.0.len() * slots) as u32;
    Arc::new(move || {
        let sum = |number: fn(&Tally) -> u64| tallies.sum(number) as u32;
        SlotCounts {
            busy: sum(|tally| tally.slots_busy.get()),
            total,
            waiting: sum(|tally| tally.waiting.get()),
            answered: tallies.sum(Tally::answers),
        }
    })
}
