//! The control plane on the main runtime: stores, questions about modules, chains and discovery, over NATS or from this
//! process.
//!
//! Runs no guest itself: the steps of chains run on executors. Publishes only where a caller may have meant it, and never stays silent: past its bounds it
//! answers `overloaded`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{Client, HeaderMap, Message, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::select_all;
use prometheus_client::metrics::counter::Counter;
use serde::Serialize;
use tokio_util::task::TaskTracker;
use wess_schemas::subject::{Endpoint, QUEUE_GROUP, Subjects};
use wess_schemas::{ErrorBody, ErrorCode, WorkerId};
use wess_service::bus::{Reply, Request};
use wess_service::lifecycle::Lifecycle;
use wess_service::nats::leave;

use crate::endpoints::bindings::BindingsEndpoint;
use crate::endpoints::chain::Chains;
use crate::endpoints::dead::DeadEndpoint;
use crate::endpoints::discovery::{
    CountRequests, Discovery, EndpointCounts, EndpointName, EndpointStats, Question,
};
use crate::endpoints::job_list;
use crate::endpoints::jobs::JobsEndpoint;
use crate::endpoints::modules::ModulesEndpoint;
use crate::endpoints::store::StoreEndpoint;
use crate::endpoints::{error_reply, json_reply};
use crate::fleet::Fleet;
use crate::registry::{Gate, Registry};

/// Stores at once, and waiting. Each may hold a whole module in memory.
const MAX_STORES: (usize, usize) = (4, 64);
/// Questions about modules at once, and waiting.
const MAX_QUERIES: (usize, usize) = (64, 1024);
/// Chains at once, and waiting.
const MAX_CHAINS: (usize, usize) = (64, 1024);
/// Requests that wait for the end of a job at once; each has a subscription.
const MAX_WAITS: usize = 4096;
/// Lists of jobs at once, and waiting: each has the server name every job there is.
const MAX_LISTS: (usize, usize) = (2, 64);
/// How long the last replies may take once grace was cut.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What headers and protocol add to a reply's body, at most.
const OVERHEAD_BYTES: usize = 4096;

/// What the control plane needs.
pub struct ControlParts {
    /// This worker.
    pub worker: WorkerId,
    /// Its subjects.
    pub subjects: Subjects,
    /// Its registry.
    pub registry: Registry,
    /// The fleet it is in.
    pub fleet: Fleet,
    /// What stores modules.
    pub store: Arc<StoreEndpoint>,
    /// Durable jobs.
    pub jobs: JobsEndpoint,
    /// Those that were given up.
    pub dead: DeadEndpoint,
    /// Which messages run which module.
    pub bindings: BindingsEndpoint,
    /// Chains of calls.
    pub chains: Chains,
    /// What the endpoints have done that executors serve.
    pub call_counts: CountRequests,
}

/// The control plane. Cheap to clone.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    subjects: Subjects,
    store: Arc<StoreEndpoint>,
    modules: ModulesEndpoint,
    chains: Chains,
    running_chains: Gate,
    discovery: Discovery,
    stores: Gate,
    queries: Gate,
    jobs: JobsEndpoint,
    dead: DeadEndpoint,
    bindings: BindingsEndpoint,
    waits: Gate,
    lists: Gate,
    stats: Arc<ControlStats>,
}

/// What the control plane has counted.
#[derive(Debug, Default)]
struct ControlStats {
    endpoints: [EndpointStats; EndpointName::ALL.len()],
    forged_replies: Counter,
}

impl Control {
    /// Puts it together; it serves nobody yet.
    pub fn new(parts: ControlParts) -> Self {
        let ControlParts {
            worker,
            subjects,
            registry,
            fleet,
            store,
            jobs,
            dead,
            bindings,
            chains,
            call_counts,
        } = parts;
        let (max_module_bytes, sealing_key) = (store.max_bytes, store.secrets.sealing_key());
        let stats = Arc::new(ControlStats::default());
        let counts = count_requests(stats.clone(), call_counts);
        Self(Arc::new(Inner {
            discovery: Discovery::new(worker, subjects.clone(), max_module_bytes, counts)
                .sealing_to(sealing_key),
            subjects,
            store,
            modules: ModulesEndpoint { registry, fleet },
            chains,
            running_chains: Gate::new("chains", MAX_CHAINS.0, MAX_CHAINS.1),
            stores: Gate::new("stores", MAX_STORES.0, MAX_STORES.1),
            queries: Gate::new("questions about modules", MAX_QUERIES.0, MAX_QUERIES.1),
            waits: Gate::new("waits for jobs", MAX_WAITS, 0),
            lists: Gate::new("lists of jobs", MAX_LISTS.0, MAX_LISTS.1),
            jobs,
            dead,
            bindings,
            stats,
        }))
    }

    /// Requests refused for the reply subject that they named.
    pub fn forged_replies(&self) -> Counter {
        self.0.stats.forged_replies.clone()
    }

    /// Answers one request for `store`, `modules` or `chain`, whichever door it came in by. Outputs that would make the
    /// reply larger than `inline_bytes` are stored instead.
    pub async fn handle(&self, request: Request, inline_bytes: usize) -> Reply {
        let started = Instant::now();
        let endpoint = match self.0.subjects.parse(&request.subject) {
            Ok(endpoint) => endpoint,
            Err(error) => return error_reply(&ErrorBody::new(ErrorCode::InvalidRequest, error.to_string())),
        };
        // Boxed, as all that endpoints do would not fit on every thread's stack.
        let result = Box::pin(self.answer(&endpoint, request, inline_bytes)).await;
        self.0.stats.endpoints[EndpointName::of(&endpoint) as usize]
            .count(started.elapsed(), result.as_ref().err());
        result.unwrap_or_else(|error| error_reply(&error))
    }

    /// What somebody is told whose request the process does not finish any more.
    pub(crate) fn cut_short(&self, subject: &str) -> Reply {
        let text = "the worker stopped before it was done";
        let endpoint = self.0.subjects.parse(subject);
        let error = match endpoint {
            Ok(Endpoint::Chain) => ErrorBody::new(ErrorCode::Internal, text),
            Ok(Endpoint::Store) => ErrorBody::new(ErrorCode::Internal, text).before_guest(),
            _ => ErrorBody::new(ErrorCode::Unavailable, text),
        };
        if let Ok(endpoint) = endpoint {
            self.0.stats.endpoints[EndpointName::of(&endpoint) as usize].count(Duration::ZERO, Some(&error));
        }
        error_reply(&error)
    }

    /// Lets a request through the gate of its kind.
    async fn answer(
        &self,
        endpoint: &Endpoint,
        request: Request,
        inline_bytes: usize,
    ) -> Result<Reply, ErrorBody> {
        let inner = &*self.0;
        let Request { headers, payload, .. } = request;
        match endpoint {
            Endpoint::Store => {
                let _pass = inner.stores.enter().await?;
                reply(Box::pin(inner.store.answer(&headers, payload)).await)
            }
            Endpoint::Chain => {
                let _room = inner.chains.hold(payload.len())?;
                let _pass = inner.running_chains.enter().await?;
                reply(Box::pin(inner.chains.answer(&headers, &payload, inline_bytes)).await)
            }
            Endpoint::JobsWait(job_id) => {
                let _pass = inner.waits.enter().await?;
                reply(Box::pin(inner.jobs.wait(job_id, &payload)).await)
            }
            Endpoint::JobsList => {
                let _pass = inner.lists.enter().await?;
                reply(Box::pin(job_list::jobs(&inner.jobs, &payload)).await)
            }
            Endpoint::DeadList => {
                let _pass = inner.lists.enter().await?;
                reply(Box::pin(inner.dead.list(&payload)).await)
            }
            _ => {
                let _pass = inner.queries.enter().await?;
                inner.query(endpoint, &headers, &payload).await
            }
        }
    }

    /// Serves NATS until the process stops. Once this returns, the server knows every subscription.
    pub async fn serve(&self, client: &Client, lifecycle: &Lifecycle) -> Result<(), async_nats::Error> {
        let mut requests = Vec::new();
        for subject in [
            self.0.subjects.endpoint(&Endpoint::Store),
            self.0.subjects.endpoint(&Endpoint::Chain),
            self.0.subjects.modules_wildcard(),
            self.0.subjects.jobs_wildcard(),
            self.0.subjects.dead_wildcard(),
            self.0.subjects.bindings_wildcard(),
        ] {
            requests.push(client.queue_subscribe(subject, QUEUE_GROUP.into()).await?);
        }
        let mut questions = Vec::new();
        for subject in Question::subjects(self.0.discovery.worker()) {
            questions.push(client.subscribe(subject).await?);
        }
        client.flush().await?;
        let server = || Server {
            control: self.clone(),
            client: client.clone(),
            lifecycle: lifecycle.clone(),
            tasks: TaskTracker::new(),
        };
        lifecycle.spawn(
            "control",
            server().serve(requests, |server, message| server.take(message)),
        );
        lifecycle.spawn(
            "discovery",
            server().serve(questions, |server, message| server.tell(message)),
        );
        Ok(())
    }
}

impl Inner {
    /// What is answered at once, or nearly.
    async fn query(
        &self,
        endpoint: &Endpoint,
        headers: &HeaderMap,
        payload: &Bytes,
    ) -> Result<Reply, ErrorBody> {
        let Self {
            modules,
            jobs,
            dead,
            bindings,
            ..
        } = self;
        match endpoint {
            Endpoint::ModulesList => reply(modules.list(payload)),
            Endpoint::ModulesGet(reference) => reply(modules.get(reference).await),
            Endpoint::ModulesDelete(reference) => reply(modules.delete(reference).await),
            Endpoint::ModulesTag(name) => reply(modules.tag(name, payload).await),
            Endpoint::ModulesFetch(reference) => reply(modules.fetch(reference).await),
            Endpoint::JobsSubmit => reply(Box::pin(jobs.submit(headers, payload)).await),
            Endpoint::JobsGet(job_id) => reply(Box::pin(jobs.get(job_id)).await),
            Endpoint::JobsCancel(job_id) => reply(Box::pin(jobs.cancel(job_id)).await),
            Endpoint::DeadGet(job_id) => reply(Box::pin(dead.get(job_id)).await),
            Endpoint::DeadRedrive(job_id) => reply(Box::pin(dead.redrive(job_id)).await),
            Endpoint::DeadPurge => reply(Box::pin(dead.purge(payload)).await),
            Endpoint::BindingsPut(name) => reply(Box::pin(bindings.put(name, payload)).await),
            Endpoint::BindingsList => reply(Box::pin(bindings.list()).await),
            Endpoint::BindingsGet(name) => reply(Box::pin(bindings.get(name)).await),
            Endpoint::BindingsDelete(name) => reply(Box::pin(bindings.delete(name)).await),
            Endpoint::Invoke | Endpoint::InvokeRaw(..) | Endpoint::Http(_) => Err(ErrorBody::new(
                ErrorCode::InvalidRequest,
                "the control plane runs no guests",
            )),
            Endpoint::Store
            | Endpoint::Chain
            | Endpoint::JobsWait(_)
            | Endpoint::JobsList
            | Endpoint::DeadList => Err(ErrorBody::new(ErrorCode::Internal, "asked at the wrong gate")),
        }
    }
}

/// The control plane's side of one connection: its subscriptions' way in and its replies' way out.
#[derive(Clone)]
struct Server {
    control: Control,
    client: Client,
    lifecycle: Lifecycle,
    tasks: TaskTracker,
}

impl Server {
    /// Takes messages until shutdown, then those that had been delivered; ends when every one is answered.
    async fn serve(self, mut subscriptions: Vec<Subscriber>, take: impl Fn(&Self, Message)) {
        let (shutdown, cut) = (self.lifecycle.shutdown.clone(), self.lifecycle.cut.clone());
        // A chain that was delivered still finds executors.
        let _inside = self.control.0.chains.under_way.token();
        let mut messages = select_all(subscriptions.iter_mut());
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some(message) => take(&self, message),
                    None => break,
                },
                () = shutdown.cancelled() => break,
            }
        }
        drop(messages);
        let rest = async {
            for message in leave(&self.client, subscriptions).await {
                take(&self, message);
            }
            self.tasks.close();
            self.tasks.wait().await;
            match tokio::time::timeout(LAST_WORDS, self.client.flush()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the last replies may not have been sent"),
                Err(_) => tracing::warn!("NATS is away: the last replies may not have been sent"),
            }
        };
        let too_late = async {
            cut.cancelled().await;
            tokio::time::sleep(LAST_WORDS).await;
        };
        tokio::select! {
            () = rest => (),
            () = too_late => tracing::error!(requests = self.tasks.len(), "requests are left without an answer"),
        }
    }

    /// Answers a request in a task of its own. One whose reply would forge something is not even looked at.
    fn take(&self, message: Message) {
        let Message {
            subject,
            reply,
            payload,
            headers,
            ..
        } = message;
        if reply.as_ref().is_some_and(|reply| self.is_forged(reply)) {
            return;
        }
        let request = Request {
            subject: subject.into_string(),
            trace: None,
            headers: headers.unwrap_or_default(),
            payload,
            timeout: Default::default(),
        };
        let server = self.clone();
        self.spawn("answer a request", async move {
            let inline_bytes = server.client.max_payload() / 2;
            let subject = request.subject.clone();
            let answering = server.control.handle(request, inline_bytes);
            let answer = server.lifecycle.cut.run_until_cancelled(answering).await;
            let answer = answer.unwrap_or_else(|| server.control.cut_short(&subject));
            if let Some(reply) = reply {
                server.send(reply, answer).await;
            }
        });
    }

    /// Answers a question of the Services API; one without a reply subject does nothing.
    fn tell(&self, message: Message) {
        let Some(reply) = message.reply.filter(|reply| !self.is_forged(reply)) else {
            return;
        };
        let Some(question) = Question::parse(&message.subject) else {
            return;
        };
        let server = self.clone();
        self.spawn("answer a question", async move {
            let answer = server.control.0.discovery.answer(question);
            server.send(reply, answer).await;
        });
    }

    fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.lifecycle.brief(name, task));
    }

    fn is_forged(&self, reply: &Subject) -> bool {
        let forged = !self.control.0.subjects.may_reply_to(reply);
        if forged {
            self.control.0.stats.forged_replies.inc();
            tracing::warn!(%reply, "a request named a reply subject that nobody may reply to");
        }
        forged
    }

    async fn send(&self, subject: Subject, reply: Reply) {
        send(&self.client, subject, reply).await;
    }
}

/// Sends a reply, or says that it is too large to be sent.
pub(crate) async fn send(client: &Client, subject: Subject, reply: Reply) {
    let most = client.max_payload().saturating_sub(OVERHEAD_BYTES);
    let Reply { headers, payload } = if reply.payload.len() > most {
        too_large(reply.payload.len(), most)
    } else {
        reply
    };
    if let Err(error) = client.publish_with_headers(subject, headers, payload).await {
        tracing::warn!(%error, "a reply was not sent");
    }
}

fn reply(result: Result<impl Serialize, ErrorBody>) -> Result<Reply, ErrorBody> {
    result.map(|body| json_reply(&body))
}

fn too_large(size: usize, most: usize) -> Reply {
    let text = format!(
        "the reply has {size} bytes, but a message here carries {most}: \
         list fewer at once, delete versions and tags that nobody uses, or raise max_payload of nats-server"
    );
    error_reply(&ErrorBody::new(ErrorCode::PayloadTooLarge, text))
}

fn count_requests(stats: Arc<ControlStats>, calls: CountRequests) -> CountRequests {
    Arc::new(move |endpoint| match endpoint {
        EndpointName::Invoke | EndpointName::InvokeRaw | EndpointName::Http => calls(endpoint),
        _ => stats
            .endpoints
            .get(endpoint as usize)
            .map_or_else(EndpointCounts::default, EndpointStats::counts),
    })
}
