//! What is counted of requests. Labels come from closed sets: route templates, known methods, status classes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{Method, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use wess_schemas::ErrorCode;

/// From a warm call on one machine to the longest that a call may wait and run.
const SECONDS: [f64; 14] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0,
];

/// The counters of one gateway. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Families>);

#[derive(Debug)]
struct Families {
    requests: Family<Answered, Counter>,
    durations: Family<Asked, Histogram>,
    in_flight: Gauge,
    connections: Gauge,
    fronts: Gauge,
    queued: Family<Queued, Counter>,
    forged_replies: Counter,
    socket_requests: Family<Commanded, Counter>,
    socket_connections: Gauge,
}

impl Default for Families {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            fronts: Gauge::default(),
            queued: Family::default(),
            forged_replies: Counter::default(),
            socket_requests: Family::default(),
            socket_connections: Gauge::default(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    route: String,
    method: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: String,
    method: &'static str,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Commanded {
    command: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Queued {
    code: &'static str,
}

impl Metrics {
    /// Shows them to scrapes of `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let families = &metrics.0;
        let registry = registry.sub_registry_with_prefix("wess_gateway");
        registry.register(
            "http_requests",
            "Requests, by how they were answered",
            families.requests.clone(),
        );
        registry.register_with_unit(
            "http_request_duration",
            "From a request's head to its answer's head",
            Unit::Seconds,
            families.durations.clone(),
        );
        registry.register(
            "http_requests_in_flight",
            "Requests not yet answered",
            families.in_flight.clone(),
        );
        registry.register(
            "http_connections",
            "Open connections",
            families.connections.clone(),
        );
        registry.register(
            "front",
            "1 while requests are queued here because no worker beats",
            families.fronts.clone(),
        );
        registry.register(
            "queued",
            "Requests that came while no worker beat: ok when the queue took them, else the code that they were answered with",
            families.queued.clone(),
        );
        registry.register(
            "forged_replies",
            "Requests not looked at because of the reply subject that they named",
            families.forged_replies.clone(),
        );
        registry.register(
            "socket_requests",
            "Requests on the Unix socket, by command and by how they were answered: ok, or a code",
            families.socket_requests.clone(),
        );
        registry.register(
            "socket_connections",
            "Open connections of the Unix socket",
            families.socket_connections.clone(),
        );
        metrics
    }

    /// Counts a connection until the guard is dropped.
    pub fn connection(&self) -> Counted {
        Counted::new(&self.0.connections)
    }

    /// Counts a connection of the socket until the guard is dropped.
    pub fn socket_connection(&self) -> Counted {
        Counted::new(&self.0.socket_connections)
    }

    /// Counts a request on the socket that was done, or failed with a code.
    pub fn socket_request(&self, command: &'static str, failed: Option<ErrorCode>) {
        let code = failed.map_or("ok", ErrorCode::as_str);
        let answered = Commanded { command, code };
        self.0.socket_requests.get_or_create(&answered).inc();
    }

    /// Says that requests are queued here, until the guard is dropped.
    pub fn front(&self) -> Counted {
        Counted::new(&self.0.fronts)
    }

    /// Counts a request that the queue took, or that was refused with a code.
    pub fn queued(&self, ending: Result<(), ErrorCode>) {
        let code = ending.map_or_else(ErrorCode::as_str, |()| "ok");
        self.0.queued.get_or_create(&Queued { code }).inc();
    }

    /// Counts a request whose reply would forge something.
    pub fn forged_reply(&self) {
        self.0.forged_replies.inc();
    }

    /// Counts a request: as in flight until this is dropped, and as whatever it was answered.
    pub fn request(&self, route: &str, method: &Method) -> Measured {
        Measured {
            families: self.0.clone(),
            asked: Asked {
                route: route.into(),
                method: known(method),
            },
            // A client that goes away before its answer leaves this as it is.
            status: "gone",
            started: Instant::now(),
            _in_flight: Counted::new(&self.0.in_flight),
        }
    }
}

/// One up while it lives.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A request under way.
#[derive(Debug)]
pub struct Measured {
    families: Arc<Families>,
    asked: Asked,
    status: &'static str,
    started: Instant,
    _in_flight: Counted,
}

impl Measured {
    /// Says how it was answered, and gives the time that took.
    pub fn answered(&mut self, status: StatusCode) -> Duration {
        self.status = class(status);
        self.started.elapsed()
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        let Asked { route, method } = self.asked.clone();
        let answered = Answered {
            route,
            method,
            status: self.status,
        };
        self.families.requests.get_or_create(&answered).inc();
        let duration = self.started.elapsed().as_secs_f64();
        self.families
            .durations
            .get_or_create(&self.asked)
            .observe(duration);
    }
}

fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        _ => "other",
    }
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        500..600 => "5xx",
        _ => "1xx",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape(registry: &Registry) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn a_request_counts_in_flight_and_then_as_answered_or_gone() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let mut measured = metrics.request("/v1/invoke", &Method::POST);
        assert!(scrape(&registry).contains("wess_gateway_http_requests_in_flight 1"));
        measured.answered(StatusCode::NOT_FOUND);
        drop(measured);
        drop(metrics.request("/v1/invoke", &Method::from_bytes(b"BREW").unwrap()));
        let text = scrape(&registry);
        assert!(text.contains("wess_gateway_http_requests_in_flight 0"));
        for labels in [
            r#"{route="/v1/invoke",method="POST",status="4xx"} 1"#,
            r#"{route="/v1/invoke",method="other",status="gone"} 1"#,
        ] {
            assert!(
                text.contains(&format!("wess_gateway_http_requests_total{labels}")),
                "{text}"
            );
        }
        assert!(text.contains("wess_gateway_http_request_duration_seconds_count"));
    }
}
