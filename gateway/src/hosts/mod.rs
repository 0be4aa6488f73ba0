//! Which module a request's host belongs to: a table of the routes that modules claim, kept in step with their heads.
//!
//! Asks nobody for a request.

mod claims;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_nats::jetstream::kv::Store;
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{Method, Request};
use wess_schemas::{ModuleName, Tenant, route};
use wess_service::feed::RawRecord;
use wess_service::lifecycle::Lifecycle;
use wess_service::nats::Connection;

use crate::follow::{Records, Table, follow};
use claims::Claims;

/// Routes and their modules.
type Routes = HashMap<Box<str>, ModuleName>;

/// The table as it is now. Cheap to clone; empty until it is followed.
#[derive(Debug, Clone, Default)]
pub struct Hosts(Arc<ArcSwap<Routes>>);

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
        let records = Records {
            bucket: modules,
            keys: format!("{}.*", Tenant::default()),
            what: "hosts of a gateway",
        };
        let heads = Heads {
            hosts: hosts.clone(),
            claims: Claims::default(),
            allowed: allowed.into(),
        };
        follow(connection, records, heads, lifecycle);
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

/// What the modules' heads make of it.
struct Heads {
    hosts: Hosts,
    claims: Claims,
    /// Hosts that modules may have.
    allowed: Box<[String]>,
}

impl Table for Heads {
    fn clear(&mut self) {
        self.claims = Claims::default();
    }

    fn take(&mut self, record: &RawRecord) -> bool {
        self.claims.take(record)
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
