//! Requests that guests send: to whom they are granted, how far, and what becomes of those that are not, or that go wrong.

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_util::task::TaskTracker;

use super::upstream::Upstream;
use super::*;
use crate::outbound::{MAX_AT_ONCE, MAX_BODY_BYTES, MAX_REQUESTS, OutboundPolicy};

/// A guest that sends requests, its way out, and what is under way.
struct Sender {
    guest: Guest,
    outbound: Arc<Outbound>,
    tasks: TaskTracker,
}

impl Sender {
    fn granted(entries: &[&str]) -> Self {
        Self::with(entries, OutboundPolicy::Granted, RootCertStore::empty())
    }

    fn with(entries: &[&str], policy: OutboundPolicy, roots: RootCertStore) -> Self {
        let tasks = TaskTracker::new();
        let outbound = Outbound::trusting(policy, tasks.clone(), roots);
        let mut settings = Settings::default();
        settings.grants.http = entries.iter().map(|entry| (*entry).to_owned()).collect();
        settings.check().unwrap();
        let mut guest = Guest::file("http/fetch.wat");
        guest.host = Arc::new(MemoryHost {
            settings,
            outbound: Some(Arc::clone(&outbound)),
            ..MemoryHost::default()
        });
        Self {
            guest,
            outbound,
            tasks,
        }
    }

    /// Granted a server of a test, by its address.
    fn to(upstream: &Upstream) -> Self {
        Self::granted(&[&upstream.address.to_string()])
    }

    /// What a function gives back; nothing of it is under way any more.
    async fn call(&self, name: &str, arguments: Value) -> Value {
        let results = self.guest.results(named(name, args(arguments))).await;
        self.is_at_rest().await;
        results[0].clone()
    }

    async fn fetch(&self, url: &str) -> Value {
        let (scheme, rest) = url.split_once("://").unwrap();
        let (authority, path) = rest.split_at(rest.find('/').unwrap());
        let fetched = self.call("fetch", json!([scheme == "https", authority, path, null, 0]));
        fetched.await
    }

    async fn is_at_rest(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        assert_eq!(self.outbound.under_way(), 0);
    }
}

fn at(upstream: &Upstream, path: &str) -> String {
    format!("http://{}{path}", upstream.address)
}

fn ok(status: u16, body: &str) -> Value {
    json!({"ok": [status, {"base64": base64(body)}]})
}

fn base64(text: &str) -> String {
    use ::base64::prelude::{BASE64_STANDARD, Engine};
    BASE64_STANDARD.encode(text)
}

fn err(code: &str) -> Value {
    json!({"err": code})
}

#[tokio::test]
async fn a_granted_request_has_its_response() {
    let upstream = Upstream::start().await;
    let sender = Sender::to(&upstream);
    assert_eq!(sender.fetch(&at(&upstream, "/hello?a=b")).await, ok(200, "hello"));
    let body = json!([false, upstream.address.to_string(), "/echo", [104, 105], 0]);
    assert_eq!(sender.call("fetch", body).await, ok(200, "hi"));
    let seen = upstream.seen.lock().unwrap();
    assert_eq!(
        (seen[0].method.as_str(), seen[1].method.as_str()),
        ("GET", "POST")
    );
    assert_eq!(seen[0].uri, "/hello?a=b");
    assert_eq!(seen[0].headers["host"], upstream.address.to_string());
    assert_eq!(seen[0].headers["connection"], "close");
}

#[tokio::test]
async fn what_is_not_granted_is_denied() {
    let upstream = Upstream::start().await;
    let (url, address) = (at(&upstream, "/"), upstream.address);
    let port = address.port();
    for grants in [
        &[][..],
        &["127.0.0.1"],
        &["127.0.0.2:1"],
        &[&format!("https://127.0.0.1:{port}")],
        &[&format!("127.0.0.2:{port}")],
        &[&format!("localhost:{port}")],
        &[&format!("*.0.0.example:{port}")],
    ] {
        let denied = Sender::granted(grants).fetch(&url).await;
        assert_eq!(denied, err("HTTP-request-denied"), "{grants:?}");
    }
    let sender = Sender::granted(&["*.example.org"]);
    assert_eq!(
        sender.fetch("https://example.org/").await,
        err("HTTP-request-denied")
    );
    let by_address = [&*address.to_string()];
    let off = Sender::with(&by_address, OutboundPolicy::Off, RootCertStore::empty());
    assert_eq!(off.fetch(&url).await, err("HTTP-request-denied"));
    let public = Sender::with(&by_address, OutboundPolicy::Public, RootCertStore::empty());
    assert_eq!(public.fetch(&url).await, err("destination-IP-prohibited"));
    assert!(upstream.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_name_leads_to_no_private_address_that_is_not_granted_too() {
    let upstream = Upstream::start().await;
    let port = upstream.address.port();
    let (name, address) = (format!("localhost:{port}"), format!("127.0.0.1:{port}"));
    let url = format!("http://{name}/");
    let by_name = Sender::granted(&[&name]).fetch(&url).await;
    assert_eq!(by_name, err("destination-IP-prohibited"));
    assert!(upstream.seen.lock().unwrap().is_empty());
    let by_both = Sender::granted(&[&name, &address]).fetch(&url).await;
    assert_eq!(by_both, ok(200, "hello"));
    assert_eq!(upstream.seen.lock().unwrap()[0].headers["host"], name);
}

#[tokio::test]
async fn a_redirect_is_the_guests_to_follow() {
    let forbidden = Upstream::start().await;
    let upstream = Upstream::leading_to(&at(&forbidden, "/")).await;
    let redirected = Sender::to(&upstream).fetch(&at(&upstream, "/redirect")).await;
    assert_eq!(redirected, ok(302, ""));
    assert!(forbidden.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_with_the_run() {
    let mut upstream = Upstream::start().await;
    let mut sender = Sender::to(&upstream);
    sender.guest = sender.guest.timeout_ms(300);
    for (function, path) in [("fetch", "/never"), ("fetch", "/stalls")] {
        let call = json!([false, upstream.address.to_string(), path, null, 0]);
        let code = sender.guest.code(named(function, args(call))).await;
        assert_eq!(code, ErrorCode::DeadlineExceeded, "{path}");
        upstream.connections_over(1).await;
        sender.is_at_rest().await;
    }
}

#[tokio::test]
async fn a_guest_may_wait_for_less_long() {
    let upstream = Upstream::start().await;
    let call = json!([false, upstream.address.to_string(), "/never", null, 50]);
    let waited = Sender::to(&upstream).call("fetch", call).await;
    assert_eq!(waited, err("connection-read-timeout"));
}

#[tokio::test]
async fn a_cancelled_guest_leaves_no_connection() {
    let mut upstream = Upstream::start().await;
    let sender = Sender::to(&upstream);
    let call = json!([false, upstream.address.to_string(), "/never", null, 0]);
    let mut run = Box::pin(sender.guest.start(named("fetch", args(call))));
    tokio::select! {
        _ = &mut run => panic!("the guest ended"),
        () = upstream.request() => {}
    }
    drop(run);
    upstream.connections_over(1).await;
    sender.is_at_rest().await;
}

#[tokio::test]
async fn a_server_that_sends_for_ever_is_read_up_to_a_bound() {
    let mut upstream = Upstream::start().await;
    let sender = Sender::to(&upstream);
    let most = json!({"err": {"HTTP-response-body-size": MAX_BODY_BYTES}});
    for path in ["/forever", "/announced"] {
        let call = json!([upstream.address.to_string(), path]);
        assert_eq!(sender.call("drain", call).await, most, "{path}");
        upstream.connections_over(1).await;
    }
}

#[tokio::test]
async fn what_a_guest_never_reads_ends_with_it() {
    let mut upstream = Upstream::start().await;
    let sender = Sender::to(&upstream);
    let call = json!([upstream.address.to_string(), "/forever", MAX_AT_ONCE, true]);
    assert_eq!(sender.call("flood", call).await, json!({"ok": 200}));
    upstream.connections_over(MAX_AT_ONCE).await;
}

#[tokio::test]
async fn only_so_many_requests_are_under_way_at_once() {
    let upstream = Upstream::start().await;
    let sender = Sender::to(&upstream);
    let call = json!([upstream.address.to_string(), "/never", MAX_AT_ONCE + 1, true]);
    assert_eq!(sender.call("flood", call).await, err("connection-limit-reached"));
}

#[tokio::test]
async fn a_run_sends_only_so_many_requests() {
    let upstream = Upstream::start().await;
    let sender = Sender::to(&upstream);
    let flood = |count| {
        let call = json!([upstream.address.to_string(), "/", count, false]);
        sender.call("flood", call)
    };
    assert_eq!(flood(MAX_REQUESTS).await, json!({"ok": 200}));
    assert_eq!(flood(MAX_REQUESTS + 1).await, err("HTTP-request-denied"));
    assert_eq!(upstream.seen.lock().unwrap().len(), 2 * MAX_REQUESTS);
}

#[tokio::test]
async fn a_body_streams_out_up_to_a_bound() {
    let upstream = Upstream::start().await;
    let sender = Sender::to(&upstream);
    let upload = |chunks| sender.call("upload", json!([upstream.address.to_string(), "/sink", chunks]));
    assert_eq!(upload(100).await, json!({"ok": 200}));
    let most = json!({"err": {"HTTP-request-body-size": MAX_BODY_BYTES}});
    assert_eq!(upload(MAX_BODY_BYTES / 4000 + 1).await, most);
}

#[tokio::test]
async fn a_response_that_breaks_off_or_is_none_is_told_by_code() {
    let upstream = Upstream::start().await;
    let midway = Sender::to(&upstream).fetch(&at(&upstream, "/midway")).await;
    assert_eq!(midway, err("HTTP-response-incomplete"));
    let long: &'static [u8] = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(100_000))
        .leak()
        .as_bytes();
    let many: &'static [u8] = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: a\r\n".repeat(300))
        .leak()
        .as_bytes();
    for (says, code) in [
        (&b""[..], json!("HTTP-response-incomplete")),
        (
            b"HTTP/1.1 200 OK\r\ncontent-le",
            json!("HTTP-response-incomplete"),
        ),
        (b"SSH-2.0-OpenSSH\r\n", json!("HTTP-protocol-error")),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            json!("HTTP-protocol-error"),
        ),
        (long, json!({"HTTP-response-header-section-size": null})),
        (many, json!({"HTTP-response-header-section-size": null})),
    ] {
        let address = Upstream::saying(says).await.to_string();
        let told = Sender::granted(&[&address])
            .fetch(&format!("http://{address}/"))
            .await;
        let says = String::from_utf8_lossy(&says[..says.len().min(40)]);
        assert_eq!(told, json!({"err": code}), "{says:?}");
    }
}

#[tokio::test]
async fn a_host_that_is_not_there_is_told_by_code() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = gone.local_addr().unwrap().to_string();
    drop(gone);
    let refused = Sender::granted(&[&address])
        .fetch(&format!("http://{address}/"))
        .await;
    assert_eq!(refused, err("connection-refused"));
    let unknown = Sender::granted(&["nobody.invalid"])
        .fetch("http://nobody.invalid/")
        .await;
    let nothing_more = json!({"rcode": null, "info-code": null});
    assert_eq!(unknown, json!({"err": {"DNS-error": nothing_more}}));
}

#[tokio::test]
async fn a_certificate_is_checked_against_the_name() {
    let (acceptor, roots) = certified("localhost");
    let upstream = Upstream::tls(acceptor).await;
    let port = upstream.address.port();
    let (name, address) = (format!("localhost:{port}"), format!("127.0.0.1:{port}"));
    let trusting = |roots| Sender::with(&[&name, &address], OutboundPolicy::Granted, roots);
    let by_name = trusting(roots.clone()).fetch(&format!("https://{name}/")).await;
    assert_eq!(by_name, ok(200, "hello"));
    let by_address = trusting(roots).fetch(&format!("https://{address}/")).await;
    assert_eq!(by_address, err("TLS-certificate-error"));
    let by_nobody = trusting(RootCertStore::empty())
        .fetch(&format!("https://{name}/"))
        .await;
    assert_eq!(by_nobody, err("TLS-certificate-error"));
    let plain = Upstream::saying(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let no_tls = Sender::granted(&[&plain.to_string()])
        .fetch(&format!("https://{plain}/"))
        .await;
    assert_eq!(no_tls, err("TLS-protocol-error"));
}

/// A server's side of TLS for a name, and who trusts it.
fn certified(name: &str) -> (TlsAcceptor, RootCertStore) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let key = signing_key.serialize_der().try_into().unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), roots)
}
