//! Components that serve HTTP: the request as the guest sees it, the response as it comes, and guests that do it wrong.

use bytes::BytesMut;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use tokio::sync::oneshot;
use wess_schemas::module::Abi;
use wess_service::http::{Body, Broken, Request, Response, whole};

use super::*;
use crate::guest::abi::http::HttpExchange;

/// A run of the guest that serves HTTP well and badly, and where its response will be.
pub(super) fn serve(
    guest: &Guest,
    request: Request,
) -> (impl Future<Output = Ending> + use<>, oneshot::Receiver<Response>) {
    serve_in(None, guest, request)
}

fn serve_in(
    reuse: Option<Reuse>,
    guest: &Guest,
    request: Request,
) -> (impl Future<Output = Ending> + use<>, oneshot::Receiver<Response>) {
    let (respond, response) = oneshot::channel();
    let component = guest.inspection.component.clone().map(Arc::new);
    let callable = Callable {
        abi: guest.inspection.abi,
        exports: &[],
        component: component.as_ref(),
    };
    let run = Run {
        plan: Plan::serving(
            callable,
            Box::new(HttpExchange { request, respond }),
            Default::default(),
        )
        .unwrap(),
        limits: guest.limits,
        host: guest.host.clone(),
        budget: Arc::clone(&guest.budget),
        fixed: guest.fixed,
        reuse,
    };
    (invoke(Arc::clone(&guest.prepared), run), response)
}

fn web() -> Guest {
    Guest::file("http/web.wat")
}

fn to(path: &str, body: Body) -> Request {
    let uri = format!("http://example.com{path}");
    ::http::Request::post(uri).body(body).unwrap()
}

pub(super) fn get(path: &str) -> Request {
    to(path, whole(Bytes::new()))
}

/// A whole response of a guest that ended well.
async fn answered(request: Request) -> (::http::response::Parts, Bytes, Option<::http::HeaderMap>) {
    let (run, response) = serve(&web(), request);
    let taken = async {
        let (head, body) = response.await.unwrap().into_parts();
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().cloned();
        (head, body.to_bytes(), trailers)
    };
    let (ending, taken) = futures_util::join!(run, taken);
    ending.result.unwrap();
    taken
}

/// How a guest failed that never gave a head; the next request finds another one.
async fn failed(guest: &Guest, path: &str) -> (ErrorCode, String) {
    let (run, response) = serve(guest, get(path));
    let fault = run.await.result.unwrap_err();
    assert!(response.await.is_err(), "there is a head");
    let (run, response) = serve(guest, get("/hello"));
    run.await.result.unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
    let error = fault.to_error();
    (error.code(), error.error.message)
}

/// What came of a body, whether it ended as if it were complete, and how its guest ended.
async fn broken(path: &str) -> (Bytes, Result<(), Broken>, Ending) {
    let (run, response) = serve(&web().timeout_ms(300), get(path));
    let taken = async {
        let mut body = response.await.unwrap().into_body();
        let mut all = BytesMut::new();
        loop {
            match body.frame().await {
                Some(Ok(frame)) => all.extend_from_slice(frame.data_ref().unwrap()),
                Some(Err(broken)) => return (all.freeze(), Err(broken)),
                None => return (all.freeze(), Ok(())),
            }
        }
    };
    let (ending, (bytes, end)) = futures_util::join!(run, taken);
    (bytes, end, ending)
}

#[test]
fn a_component_that_serves_http_is_told_by_its_export() {
    let inspection = inspect(&wasm_of("http/web.wat")).unwrap();
    assert_eq!(inspection.abi, Abi::Http);
    let refused = web().plan(nothing()).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Unsupported);
    assert_names(&refused.error.message, &["/v1/http"]);
}

#[test]
fn a_module_that_does_not_serve_http_is_not_sent_requests() {
    let guest = Guest::file("typed/add.wat");
    let callable = Callable {
        abi: guest.inspection.abi,
        exports: &guest.inspection.exports,
        component: None,
    };
    let (respond, _response) = oneshot::channel();
    let request = get("/");
    let refused = Plan::serving(
        callable,
        Box::new(HttpExchange { request, respond }),
        Default::default(),
    )
    .unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Unsupported);
    assert_names(&refused.error.message, &["typed", "wasi:http/incoming-handler"]);
}

#[tokio::test]
async fn a_request_has_its_response() {
    let (head, body, trailers) = answered(get("/hello")).await;
    assert_eq!(
        (head.status.as_u16(), &body[..], trailers),
        (200, &b"hello from wess\n"[..], None)
    );
    assert_eq!(head.headers["content-type"], "text/plain; charset=utf-8");
    let (_, body, _) = answered(get("/path/of%20mine?a=b&c")).await;
    assert_eq!(body, "/path/of%20mine?a=b&c");
    let (head, body, _) = answered(get("/xempty")).await;
    assert_eq!((head.status.as_u16(), body.len()), (204, 0));
}

#[tokio::test]
async fn a_body_and_its_trailers_stream_through_a_guest() {
    let (mut sender, body) = Channel::<Bytes, Broken>::new(1);
    let mut request = to("/echo", body.boxed_unsync());
    request.headers_mut().insert("x-mine", "yes".parse().unwrap());
    request
        .headers_mut()
        .insert("connection", "close".parse().unwrap());
    let (run, response) = serve(&web(), request);
    let talk = async {
        let (head, mut body) = response.await.unwrap().into_parts();
        assert_eq!(head.headers["x-mine"], "yes");
        assert!(!head.headers.contains_key("connection"));
        for text in ["one", "two", "three"] {
            sender.send_data(Bytes::from(text)).await.unwrap();
            // Each comes back before the next one is sent.
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), text);
        }
        let mut trailers = ::http::HeaderMap::new();
        trailers.insert("x-sum", "3".parse().unwrap());
        sender.send_trailers(trailers.clone()).await.unwrap();
        drop(sender);
        assert_eq!(
            body.frame().await.unwrap().unwrap().into_trailers().unwrap(),
            trailers
        );
        assert!(body.frame().await.is_none());
    };
    let (ending, ()) = futures_util::join!(run, talk);
    ending.result.unwrap();
}

#[tokio::test]
async fn a_guest_that_writes_faster_than_is_read_waits() {
    // Its clock stands still: on a busy machine it would come back for its ticks, before it has written what it can.
    let engines = EnginePool::new(SLOTS, Ticker::by_hand());
    let guest = Guest::load(&wasm_of("http/web.wat"), &engines, Metering::Off);
    let (run, response) = serve(&guest, get("/big"));
    let mut run = Box::pin(run);
    assert!(futures_util::poll!(run.as_mut()).is_pending());
    let mut body = response.await.unwrap().into_body();
    assert!(futures_util::poll!(run.as_mut()).is_pending(), "nobody has read");
    let mut ahead = 0;
    while let Some(Some(Ok(frame))) = body.frame().now_or_never() {
        ahead += frame.into_data().unwrap().len();
    }
    assert!((4000..=600_000).contains(&ahead), "{ahead} bytes were held");
    let rest = async { body.collect().await.unwrap().to_bytes().len() };
    let (ending, rest) = futures_util::join!(run, rest);
    ending.result.unwrap();
    assert_eq!(ahead + rest, 50_000_000);
}

#[tokio::test]
async fn a_guest_without_a_response_fails_by_code() {
    for (path, code, words) in [
        ("/never", ErrorCode::GuestTrapped, "without a response"),
        ("/under", ErrorCode::GuestTrapped, "unreachable"),
        ("/refuse", ErrorCode::GuestTrapped, "InternalError"),
        ("/flood", ErrorCode::GuestTrapped, "limit"),
        ("/loop", ErrorCode::DeadlineExceeded, "300 ms"),
        ("/inform", ErrorCode::GuestTrapped, "the status 103"),
        ("/memory", ErrorCode::MemoryExceeded, "memory"),
        ("/gather", ErrorCode::GuestTrapped, "trapped"),
    ] {
        let (found, text) = failed(&web().timeout_ms(300), path).await;
        assert_eq!(found, code, "{path}: {text}");
        assert_names(&text, &[words]);
    }
}

#[tokio::test]
async fn a_guest_without_fuel_ends_before_its_time() {
    let guest = Guest::fueled(&wasm_of("http/web.wat"), 100_000);
    let (code, _) = failed(&guest, "/loop").await;
    assert_eq!(code, ErrorCode::OutOfFuel);
}

#[tokio::test]
async fn a_body_of_another_length_than_announced_breaks() {
    for path in ["/short", "/over"] {
        let (_, end, ending) = broken(path).await;
        let why = end.unwrap_err();
        assert_eq!(why.0.code(), ErrorCode::GuestTrapped, "{path}");
        ending.result.unwrap();
    }
    let (bytes, end, _) = broken("/kdrop").await;
    assert_eq!((&bytes[..], end.is_err()), (&b"hello"[..], true));
}

#[tokio::test]
async fn a_guest_that_fails_after_its_head_has_not_ended_well() {
    for (path, code) in [
        ("/trap", ErrorCode::GuestTrapped),
        ("/late", ErrorCode::GuestTrapped),
        ("/quiet", ErrorCode::DeadlineExceeded),
    ] {
        let (bytes, _, ending) = broken(path).await;
        assert_eq!(bytes, "hello", "{path}");
        assert_eq!(ending.result.unwrap_err().to_error().code(), code);
    }
}

#[tokio::test]
async fn a_request_whose_body_breaks_off_is_not_complete_for_the_guest() {
    let (mut sender, body) = Channel::<Bytes, Broken>::new(1);
    let (run, response) = serve(&web(), to("/echo", body.boxed_unsync()));
    let talk = async {
        let _head = response.await.unwrap();
        sender.send_data(Bytes::from_static(b"one")).await.unwrap();
        sender.abort(Broken::new(ErrorCode::Cancelled, "the client went"));
    };
    let (ending, ()) = futures_util::join!(run, talk);
    assert_eq!(
        ending.result.unwrap_err().to_error().code(),
        ErrorCode::GuestTrapped
    );
}

#[tokio::test]
async fn no_request_leaves_a_guest() {
    // The case HTTP-request-denied is the fifteenth.
    let (head, ..) = answered(get("/ward")).await;
    assert_eq!(head.status.as_u16(), 415);
}

#[tokio::test]
async fn a_guest_that_nobody_reads_is_told_so() {
    let guest = web();
    let body = whole(Bytes::from(vec![1; 10_000_000]));
    let (run, response) = serve(&guest, to("/echo", body));
    drop(response);
    // It takes the end of its stream for an end; what counts is that it does not wait for a reader.
    let fault = run.await.result.err().map(|fault| fault.to_error().code());
    assert_ne!(fault, Some(ErrorCode::DeadlineExceeded));
    assert_eq!(guest.budget.used_bytes(), 0);
}

/// The same, but for its request, which it gives back before it says hello.
fn tidy() -> Guest {
    let mut text = String::from_utf8(std::fs::read(guests("http/web.wat")).unwrap()).unwrap();
    for (place, more) in [
        (
            "(core func $drop-input ",
            "(core func $drop-request (canon resource.drop $request))",
        ),
        (
            r#"(import "host" "drop-input""#,
            r#"(import "host" "drop-request" (func $drop-request (param i32)))"#,
        ),
        ("(call $hello)))\n\n", "(call $drop-request (local.get $request))"),
        (
            r#"(export "drop-input""#,
            r#"(export "drop-request" (func $drop-request))"#,
        ),
    ] {
        assert_eq!(text.matches(place).count(), 1, "{place}");
        text = text.replace(place, &format!("{more} {place}"));
    }
    Guest::wat(&text)
}

#[tokio::test]
async fn an_instance_serves_several_requests_if_it_gives_back_what_it_got_of_the_host() {
    for (guest, stays) in [(tidy(), true), (web(), false)] {
        let mut kept: Option<Box<Kept>> = None;
        for turn in 0..3 {
            let reuse = Reuse {
                most: 1000,
                kept: kept.take(),
            };
            let (run, response) = serve_in(Some(reuse), &guest, get("/hello"));
            let taken = async { response.await.unwrap().into_body().collect().await.unwrap() };
            let (mut ending, body) = futures_util::join!(run, taken);
            ending.result.unwrap();
            assert_eq!(body.to_bytes(), "hello from wess\n");
            kept = ending.kept.take();
            assert_eq!(kept.is_some(), stays);
            assert!(kept.as_ref().is_none_or(|kept| kept.is_new() == (turn == 0)));
        }
    }
}
