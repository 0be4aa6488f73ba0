//! Hosts that guests send requests to and that are not there, say nothing, say too much, or stop: each is told by its code,
//! is left at once, and harms no later call.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{ServerConfig, crypto::ring};
use tokio_util::task::TaskTracker;
use wess_schemas::ErrorCode;

use crate::rig::{Caller, Rig, refused};

/// A host that treats every connection alike, and tells when one is over.
struct Peer {
    authority: String,
    over: mpsc::UnboundedReceiver<()>,
}

impl Peer {
    async fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let (tell, over) = mpsc::unbounded_channel();
        let tasks = TaskTracker::new();
        tasks.clone().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (served, tell) = (serve(stream), tell.clone());
                tasks.spawn(async move {
                    served.await;
                    let _ = tell.send(());
                });
            }
        });
        Self { authority, over }
    }

    /// Says this, whatever it is asked, and then nothing more for as long as the guest stays.
    async fn saying(text: impl Into<String>) -> Self {
        let text: Arc<str> = text.into().into();
        Self::start(move |mut stream| {
            let text = Arc::clone(&text);
            async move {
                is_asked(&mut stream).await;
                let _ = stream.write_all(text.as_bytes()).await;
                is_left(stream).await;
            }
        })
        .await
    }

    /// Says this again and again behind a beginning, until nobody takes it.
    async fn for_ever(first: &'static str, then: &str) -> Self {
        let then: &'static str = then.repeat(8192 / then.len()).leak();
        Self::start(async |mut stream| {
            is_asked(&mut stream).await;
            let mut written = stream.write_all(first.as_bytes()).await;
            while written.is_ok() {
                written = stream.write_all(then.as_bytes()).await;
            }
        })
        .await
    }

    /// Speaks TLS with a certificate that nobody trusts, and no protocol but these.
    async fn tls(protocols: &[&[u8]]) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = signing_key.serialize_der().try_into().unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::start(move |stream| {
            let accepting = acceptor.accept(stream);
            async move {
                let accepted = accepting.await;
                assert!(accepted.is_err(), "nobody trusts this certificate");
            }
        })
        .await
    }

    /// Returns once a connection is over.
    async fn is_left(&mut self) {
        let over = tokio::time::timeout(Duration::from_secs(60), self.over.recv());
        over.await.expect("nobody left").unwrap();
    }
}

/// Returns once something was said. Whoever answers sooner than that is no HTTP server, and what is unread when a
/// connection closes resets it.
async fn is_asked(stream: &mut TcpStream) {
    let _ = stream.read(&mut [0; 4096]).await;
}

/// Returns once the other side has closed its connection, whatever it said before.
async fn is_left(mut stream: TcpStream) {
    let mut said = [0; 4096];
    while stream.read(&mut said).await.is_ok_and(|bytes| bytes > 0) {}
}

/// A response in chunks whose trailers are so many lines of so many bytes.
fn trailers(lines: usize, bytes: usize) -> String {
    let line = format!("x: {}\r\n", "a".repeat(bytes - "x: \r\n".len()));
    format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n{}\r\n",
        line.repeat(lines)
    )
}

impl Caller {
    /// What `within` or `drain` of `guests/http/fetch.wat` answers, which has ten seconds to do so.
    async fn sent(&self, function: &str, args: Value) -> Value {
        let call =
            json!({"module": "fetch", "function": function, "args": args, "limits": {"timeout_ms": 10_000}});
        self.invoke(call).await.unwrap().results.unwrap().remove(0)
    }

    /// What becomes of a GET whose connection, head and pieces of a body may take so long, where 0 is as long as may be.
    async fn within(&self, url: &str, [connect, first_byte, between_bytes]: [u64; 3]) -> Value {
        let (scheme, authority) = url.split_once("://").unwrap();
        let args = json!([
            scheme == "https",
            authority,
            "/",
            connect,
            first_byte,
            between_bytes
        ]);
        self.sent("within", args).await
    }
}

/// A time that a guest allows, which is a hundredth of what the host does.
const SOON_MS: u64 = 100;
const NEVER: [u64; 3] = [0; 3];
const CONNECT: [u64; 3] = [SOON_MS, 0, 0];
const FIRST_BYTE: [u64; 3] = [0, SOON_MS, 0];
const BETWEEN_BYTES: [u64; 3] = [0, 0, SOON_MS];

async fn sending(hosts: &[&str]) -> Rig {
    let rig = Rig::with(&["--executors", "1"], &[]).await;
    rig.caller.store_granted(hosts).await.unwrap();
    rig
}

impl Rig {
    async fn counted(&self, outcome: &str) -> u64 {
        let metric = format!("wess_worker_outbound_requests_total{{outcome={outcome:?}}}");
        self.worker.metric(&metric).await
    }
}

fn err(code: impl Into<Value>) -> Value {
    json!({"err": code.into()})
}

/// How many bytes a response's body may have.
const MAX_BODY_BYTES: u64 = 32 << 20;

#[tokio::test]
async fn a_host_that_is_nowhere_or_takes_no_connection_is_told_by_code() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = gone.local_addr().unwrap().to_string();
    drop(gone);
    // Room for one connection that nobody takes, and one is there: Linux answers no other.
    let full = TcpSocket::new_v4().unwrap();
    full.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = full.listen(0).unwrap();
    let address = full.local_addr().unwrap();
    let _first = TcpStream::connect(address).await.unwrap();
    let full_up = address.to_string();

    let rig = sending(&["nobody.invalid", &nobody, &full_up]).await;
    let unknown = json!({"DNS-error": {"rcode": null, "info-code": null}});
    let sent = rig.caller.within("http://nobody.invalid", NEVER).await;
    assert_eq!(sent, err(unknown));
    let sent = rig.caller.within(&format!("http://{nobody}"), NEVER).await;
    assert_eq!(sent, err("connection-refused"));
    let sent = rig.caller.within(&format!("http://{full_up}"), CONNECT).await;
    assert_eq!(sent, err("connection-timeout"));
    for outcome in ["lookup_failed", "unreachable", "timeout"] {
        assert_eq!(rig.counted(outcome).await, 1, "{outcome}");
    }
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_host_that_stops_is_left_after_the_time_that_the_guest_allows() {
    let mut silent = Peer::saying("").await;
    let mut half_a_head = Peer::saying("HTTP/1.1 200 OK\r\ncontent-le").await;
    let mut stopped = Peer::saying("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").await;
    let mut in_a_chunk =
        Peer::saying("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\na\r\nhello").await;
    let hosts = [&silent, &half_a_head, &stopped, &in_a_chunk].map(|peer| peer.authority.clone());
    let rig = sending(&hosts.each_ref().map(String::as_str)).await;
    for (peer, times) in [
        (&mut silent, FIRST_BYTE),
        (&mut half_a_head, FIRST_BYTE),
        (&mut stopped, BETWEEN_BYTES),
        (&mut in_a_chunk, BETWEEN_BYTES),
    ] {
        let url = format!("http://{}", peer.authority);
        let told = rig.caller.within(&url, times).await;
        assert_eq!(told, err("connection-read-timeout"), "{url} {times:?}");
        peer.is_left().await;
    }
    // TLS belongs to the connection.
    let url = format!("https://{}", silent.authority);
    assert_eq!(rig.caller.within(&url, CONNECT).await, err("connection-timeout"));
    silent.is_left().await;
    assert_eq!(rig.counted("timeout").await, 5);
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_time_that_is_left_open_is_no_part_of_another() {
    let mut stopped = Peer::saying("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").await;
    let rig = sending(&[&stopped.authority]).await;
    // Long enough for a busy machine to connect and to hear the first byte.
    let args = json!([false, stopped.authority, "/", 2000, 2000, 0]);
    let call = json!({"module": "fetch", "function": "within", "args": args, "limits": {"timeout_ms": 4000}});
    refused(ErrorCode::DeadlineExceeded, rig.caller.invoke(call).await);
    stopped.is_left().await;
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_host_that_breaks_off_is_told_by_code() {
    let closing = |text: &'static str| {
        Peer::start(async |mut stream| {
            is_asked(&mut stream).await;
            let _ = stream.write_all(text.as_bytes()).await;
        })
    };
    let mut none = closing("").await;
    let mut midway = closing("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").await;
    let mut other = closing("SSH-2.0-OpenSSH\r\n").await;
    let mut reset = Peer::start(async |mut stream| {
        is_asked(&mut stream).await;
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello";
        let _ = stream.write_all(head).await;
        // Closed with nothing to linger for, a connection is reset.
        let _ = stream.set_zero_linger();
    })
    .await;
    let hosts = [&none, &midway, &other, &reset].map(|peer| peer.authority.clone());
    let rig = sending(&hosts.each_ref().map(String::as_str)).await;
    for (peer, code) in [
        (&mut none, "HTTP-response-incomplete"),
        (&mut midway, "HTTP-response-incomplete"),
        (&mut other, "HTTP-protocol-error"),
        (&mut reset, "connection-terminated"),
    ] {
        let url = format!("http://{}", peer.authority);
        assert_eq!(rig.caller.within(&url, NEVER).await, err(code), "{url}");
        peer.is_left().await;
    }
    assert_eq!(rig.counted("response_broken").await, 4);
    rig.is_unharmed().await;
}

#[tokio::test]
async fn tls_that_does_not_come_about_is_told_by_code() {
    let mut untrusted = Peer::tls(&[b"http/1.1"]).await;
    let mut other_protocol = Peer::tls(&[b"h2"]).await;
    let mut plain = Peer::saying("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let hosts = [&untrusted, &other_protocol, &plain].map(|peer| peer.authority.clone());
    let rig = sending(&hosts.each_ref().map(String::as_str)).await;
    // RFC 7301: no_application_protocol.
    let alert = json!({"TLS-alert-received": {"alert-id": 120, "alert-message": null}});
    for (peer, code) in [
        (&mut untrusted, json!("TLS-certificate-error")),
        (&mut other_protocol, alert),
        (&mut plain, json!("TLS-protocol-error")),
    ] {
        let url = format!("https://{}", peer.authority);
        assert_eq!(rig.caller.within(&url, NEVER).await, err(code), "{url}");
        peer.is_left().await;
    }
    assert_eq!(rig.counted("tls_failed").await, 3);
    rig.is_unharmed().await;
}

#[tokio::test]
async fn trailers_have_bounds() {
    const MAX_LINES: usize = 256;
    const MAX_BYTES: usize = 16 << 10;
    let mut within = Peer::saying(trailers(MAX_LINES, 32)).await;
    let mut many = Peer::saying(trailers(MAX_LINES + 1, 32)).await;
    let mut long = Peer::saying(trailers(4, MAX_BYTES / 4)).await;
    let mut endless = Peer::for_ever(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: ",
        "a",
    )
    .await;
    let hosts = [&within, &many, &long, &endless].map(|peer| peer.authority.clone());
    let rig = sending(&hosts.each_ref().map(String::as_str)).await;
    let url = format!("http://{}", within.authority);
    let hi = json!({"ok": [200, {"base64": "aGk="}]});
    assert_eq!(rig.caller.within(&url, NEVER).await, hi);
    within.is_left().await;
    for peer in [&mut many, &mut long, &mut endless] {
        let url = format!("http://{}", peer.authority);
        let too_large = json!({"HTTP-response-trailer-section-size": null});
        assert_eq!(rig.caller.within(&url, NEVER).await, err(too_large), "{url}");
        peer.is_left().await;
    }
    assert_eq!(rig.counted("response_too_large").await, 3);
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_host_that_sends_for_ever_is_read_up_to_a_bound_and_left() {
    let mut head = Peer::for_ever("HTTP/1.1 200 OK\r\nx: ", "a").await;
    let mut lines = Peer::for_ever("HTTP/1.1 200 OK\r\n", "x: a\r\n").await;
    let mut body = Peer::for_ever("HTTP/1.1 200 OK\r\n\r\n", "a").await;
    let mut chunks = Peer::for_ever(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        &format!("400\r\n{}\r\n", "a".repeat(1024)),
    )
    .await;
    let mut extension = Peer::for_ever("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;", "a").await;
    let hosts = [&head, &lines, &body, &chunks, &extension].map(|peer| peer.authority.clone());
    let rig = sending(&hosts.each_ref().map(String::as_str)).await;
    let too_large = json!({"HTTP-response-header-section-size": null});
    let too_long = json!({"HTTP-response-body-size": MAX_BODY_BYTES});
    for (peer, code) in [
        (&mut head, too_large.clone()),
        (&mut lines, too_large),
        (&mut body, too_long.clone()),
        (&mut chunks, too_long),
        (&mut extension, json!("HTTP-protocol-error")),
    ] {
        let drained = rig.caller.sent("drain", json!([peer.authority, "/"])).await;
        assert_eq!(drained, err(code));
        peer.is_left().await;
    }
    rig.is_unharmed().await;
}
