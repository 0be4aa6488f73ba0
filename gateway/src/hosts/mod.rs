//! Which module a request's host belongs to: a table of the routes that modules claim, kept in step with their heads.
//!
//! Asks nobody for a request. Invariant: what is known is kept while NATS is away, and replaced by a whole replay after.

mod claims;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_nats::Client;
use async_nats::jetstream::kv::Store;
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{Method, Request};
use wess_schemas::{ModuleName, Tenant, route};
use wess_service::feed::Feed;
use wess_service::lifecycle::Lifecycle;
use wess_service::nats::{Connection, ConnectionWatch};

use claims::Claims;

/// How long to wait before records are asked for again that could not be followed.
const RETRY: Duration = Duration::from_secs(1);

/// Routes and their modules.
type Table = HashMap<Box<str>, ModuleName>;

/// The table as it is now. Cheap to clone; empty until it is followed.
#[derive(Debug, Clone, Default)]
pub struct Hosts(Arc<ArcSwap<Table>>);

/// The module whose host a request was sent to.
#[derive(Debug, Clone)]
pub struct Hosted(pub ModuleName);

impl Hosts {
    /// Begins to follow the modules' heads, until the lifecycle is closed. What they claim beside `allowed` has no effect.
    pub fn follow(
        connection: &Connection,
        modules: Store,
        allowed: &[String],
        lifecycle: &Lifecycle,
    ) -> Self {
        let hosts = Self::default();
        let follower = Follower {
            client: connection.client.clone(),
            watch: connection.watch.clone(),
            modules,
            hosts: hosts.clone(),
            claims: Claims::default(),
            allowed: allowed.into(),
        };
        let closed = lifecycle.closed.clone();
        lifecycle.spawn_background("follow hosts", async move {
            closed.run_until_cancelled(follower.run()).await;
        });
        hosts
    }

    /// The module that a request's host belongs to; `None` for what the gateway answers itself.
    pub fn module_for<B>(&self, request: &Request<B>) -> Option<ModuleName> {
        let table = self.0.load();
        if table.is_empty() || request.method() == Method::CONNECT {
            return None;
        }
        let authority = match request.uri().authority() {
            Some(authority) => authority.clone(),
            None => Authority::try_from(request.headers().get(HOST)?.as_bytes()).ok()?,
        };
        let host = authority.host();
        // A dot at the end says only that the name is whole.
        let host = host.strip_suffix('.').unwrap_or(host);
        route::take(host, |route| table.get(route).cloned())
    }
}

/// Keeps a table in step.
struct Follower {
    client: Client,
    watch: ConnectionWatch,
    modules: Store,
    hosts: Hosts,
    claims: Claims,
    /// Hosts that modules may have.
    allowed: Box<[String]>,
}

impl Follower {
    async fn run(mut self) {
        loop {
            let was_connected = self.watch.state().connected;
            let Err(error) = self.follow().await else { continue };
            if was_connected {
                tracing::warn!(%error, "cannot follow the modules' hosts: trying again");
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => (),
                Some(_) = self.watch.changed() => (),
            }
        }
    }

    /// Replays and follows one connection until it is replaced by another.
    async fn follow(&mut self) -> Result<(), async_nats::Error> {
        let connects = self.watch.state().connects;
        let heads = format!("{}.*", Tenant::default());
        let mut feed = Feed::open(&self.client, self.modules.clone(), &heads, "hosts of a gateway").await?;
        self.claims = Claims::default();
        while feed.is_replaying() {
            self.claims.take(&feed.next().await?);
        }
        self.show();
        loop {
            tokio::select! {
                record = feed.next() => if self.claims.take(&record?) { self.show() },
                state = self.watch.changed() => match state {
                    Some(state) if state.connects > connects => return Ok(()),
                    Some(_) => (),
                    None => return Err("the connection is gone for good".into()),
                },
            }
        }
    }

    fn show(&self) {
        self.hosts.0.store(Arc::new(self.claims.table(&self.allowed)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(hosts: &Hosts, method: &str, uri: &str, host: Option<&str>) -> Option<String> {
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        let module = hosts.module_for(&request.body(()).unwrap());
        module.map(|module| module.to_string())
    }

    #[test]
    fn a_requests_host_is_read_from_where_it_stands() {
        let hosts = Hosts::default();
        assert_eq!(asked(&hosts, "GET", "/", Some("a.example.com")), None);
        let table = HashMap::from([("a.example.com".into(), "hello".parse().unwrap())]);
        hosts.0.store(Arc::new(table));
        for (uri, host) in [
            ("/", Some("a.example.com")),
            ("/v1/modules", Some("A.example.com:8080")),
            ("/", Some("a.example.com.")),
            ("http://a.example.com/x", None),
            ("http://a.example.com:81/x", Some("b.example.com")),
        ] {
            assert_eq!(
                asked(&hosts, "GET", uri, host).as_deref(),
                Some("hello"),
                "{uri} {host:?}"
            );
        }
        for (method, uri, host) in [
            ("GET", "/", None),
            ("GET", "/", Some("b.example.com")),
            ("GET", "/", Some("a b")),
            ("GET", "http://b.example.com/", Some("a.example.com")),
            ("CONNECT", "a.example.com:80", Some("a.example.com")),
        ] {
            assert_eq!(asked(&hosts, method, uri, host), None, "{uri} {host:?}");
        }
    }
}
