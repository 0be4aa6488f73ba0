//! Every answer that is no success is a problem document with the contract's code.

use std::time::Duration;

use futures_util::FutureExt;
use wess_schemas::{ErrorBody, ErrorCode};
use wess_service::bus::BusError;

use crate::http::{get, post, send};
use crate::support::{House, Workers, failure, json, raw};

#[tokio::test]
async fn every_code_of_a_worker_arrives_with_its_status_and_its_promises() {
    let workers = Workers::answering(|request| {
        let name = request.subject.rsplit('.').next().unwrap().replace('-', "_");
        let code = ErrorCode::ALL.iter().find(|code| code.as_str() == name).unwrap();
        Ok(crate::support::refusal(&failure(*code)))
    });
    let house = House::start(workers).await;
    for code in ErrorCode::ALL {
        let name = code.as_str().replace('_', "-");
        for (method, path) in [
            ("POST", format!("/v1/modules/{name}/invoke")),
            ("GET", format!("/v1/modules/{name}")),
        ] {
            let answer = send(house.address, method, &path, &[], "").await;
            assert_eq!(answer.status, code.http_status(), "{code}");
            let problem = answer.problem();
            assert_eq!(ErrorBody::from(problem), failure(*code));
            let must_say = matches!(answer.status, 429 | 503) && failure(*code).error.retryable;
            assert_eq!(answer.header("retry-after").is_some(), must_say, "{code}");
        }
    }
}

#[tokio::test]
async fn every_way_not_to_reach_a_worker_has_a_code() {
    type Way = (fn() -> BusError, ErrorCode, bool);
    let ways: [Way; 5] = [
        (
            || BusError::NoWorkers { subject: "s".into() },
            ErrorCode::NoWorkers,
            false,
        ),
        (
            || BusError::TimedOut {
                subject: "s".into(),
                timeout: Duration::ZERO,
            },
            ErrorCode::Internal,
            true,
        ),
        (
            || BusError::TooLarge { limit: 9 },
            ErrorCode::PayloadTooLarge,
            false,
        ),
        (
            || BusError::InvalidSubject { subject: "s".into() },
            ErrorCode::InvalidRequest,
            false,
        ),
        (|| BusError::Disconnected, ErrorCode::Unavailable, false),
    ];
    for (error, code, guest_ran) in ways {
        let house = House::start(Workers::answering(move |_| Err(error()))).await;
        let call = post(house.address, "/v1/modules/upper/invoke", "x")
            .await
            .problem();
        assert_eq!((call.code, call.guest_ran), (code, guest_ran));
        let record = get(house.address, "/v1/modules/upper").await.problem();
        assert_eq!((record.code, record.guest_ran), (code, false));
    }
}

#[tokio::test]
async fn what_is_not_in_the_table_is_a_problem_too() {
    let house = House::start(Workers::none()).await;
    for path in ["/", "/v1", "/v1/nothing", "/v1/modules/a/b/c", "/metrics"] {
        let answer = get(house.address, path).await;
        assert_eq!(
            (answer.status, answer.problem().code),
            (404, ErrorCode::InvalidRequest),
            "{path}"
        );
    }
    let answer = send(house.address, "PATCH", "/v1/modules/upper", &[], "").await;
    assert_eq!(
        (answer.status, answer.problem().code),
        (405, ErrorCode::InvalidRequest)
    );
    let mut allowed: Vec<_> = answer.header("allow").unwrap().split(',').collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["DELETE", "GET", "HEAD"]);
}

#[tokio::test]
async fn what_does_not_parse_is_refused_by_name_before_any_worker_is_asked() {
    let house = House::start(Workers::none()).await;
    /// Method, path, headers, body, and what the refusal names.
    type Case = (
        &'static str,
        &'static str,
        &'static [(&'static str, &'static str)],
        &'static str,
        &'static str,
    );
    let cases: [Case; 18] = [
        ("GET", "/v1/modules/UPPER", &[], "", "module reference"),
        ("GET", "/v1/modules/hello@0", &[], "", "module reference"),
        ("POST", "/v1/modules/up%20per/invoke", &[], "", "module reference"),
        ("POST", "/v1/modules/upper/invoke/a%20b", &[], "", "/v1/invoke"),
        (
            "PUT",
            "/v1/modules/hello@3/tags/stable?version=1",
            &[],
            "",
            "module name",
        ),
        ("PUT", "/v1/modules/hello/tags/9?version=1", &[], "", "tag"),
        ("PUT", "/v1/modules/hello/tags/stable", &[], "{}", "version"),
        ("GET", "/v1/modules?limit=many", &[], "", "limit"),
        ("GET", "/v1/modules?colour=red", &[], "", "colour"),
        ("POST", "/v1/modules", &[], "", "name"),
        ("POST", "/v1/invoke", &[], "{\"module\":", "line 1"),
        (
            "POST",
            "/v1/invoke",
            &[],
            "{\"module\":\"a\",\"colour\":1}",
            "colour",
        ),
        (
            "POST",
            "/v1/chain",
            &[],
            "{\"steps\":[\"NO\"]}",
            "module reference",
        ),
        (
            "POST",
            "/v1/modules/upper/invoke",
            &[("Wess-Wait-Ms", "120001")],
            "",
            "wait_ms",
        ),
        (
            "POST",
            "/v1/invoke",
            &[("Idempotency-Key", "a b")],
            "{\"module\":\"a\"}",
            "Idempotency-Key",
        ),
        (
            "POST",
            "/v1/modules/upper/invoke",
            &[("Wess-Fuel", "much")],
            "",
            "Wess-Fuel",
        ),
        (
            "POST",
            "/v1/modules/upper/invoke",
            &[("Wess-Fuel", "9ä")],
            "",
            "Wess-Fuel",
        ),
        (
            "POST",
            "/v1/modules/upper/invoke",
            &[("Idempotency-Key", "a b")],
            "",
            "Idempotency-Key",
        ),
    ];
    for (method, path, headers, body, named) in cases {
        let answer = send(house.address, method, path, headers, body).await;
        assert_eq!(answer.status, 400, "{path}");
        let problem = answer.problem();
        assert_eq!(
            (problem.code, problem.guest_ran),
            (ErrorCode::InvalidRequest, false)
        );
        assert!(problem.detail.contains(named), "{path}: {}", problem.detail);
    }
}

#[tokio::test]
async fn bodies_past_their_bounds_are_413() {
    let house = House::with_options(Workers::none(), &["--http-max-module-mb", "1"]).await;
    let mib = 1024 * 1024;
    for (path, size) in [
        ("/v1/modules?name=a", mib + 1),
        ("/v1/modules/a/invoke", 10 * mib + 1),
        ("/v1/invoke", 21 * mib + 1),
        ("/v1/chain", 21 * mib + 1),
    ] {
        let answer = post(house.address, path, vec![b' '; size]).await;
        assert_eq!(
            (answer.status, answer.problem().code),
            (413, ErrorCode::PayloadTooLarge),
            "{path}"
        );
    }
}

#[tokio::test]
async fn replies_that_are_not_the_contracts_are_internal_and_not_passed_on() {
    let workers = Workers::answering(|request| match request.subject.as_str() {
        "wess.invoke" => Ok(raw("not json", &[])),
        "wess.store" => Ok(json(&serde_json::json!({"name": "a"}))),
        "wess.modules.fetch.a" => Ok(json(&serde_json::json!({
            "bucket": "wess-modules", "object": "o", "digest": crate::support::digest(b""), "size": 0
        }))),
        _ => Ok(raw(
            "not json",
            &[
                ("Nats-Service-Error", "oh no"),
                ("Nats-Service-Error-Code", "500"),
            ],
        )),
    });
    let house = House::start(workers).await;
    for (method, path, body) in [
        ("POST", "/v1/invoke", r#"{"module":"a"}"#),
        ("POST", "/v1/modules?name=a", "x"),
        ("GET", "/v1/modules/a/wasm", ""),
        ("GET", "/v1/modules", ""),
    ] {
        let answer = send(house.address, method, path, &[], body).await;
        let problem = answer.problem();
        assert_eq!(problem.code, ErrorCode::Internal, "{path}");
        assert!(!answer.text().contains("not json"), "{}", answer.text());
    }
    assert!(
        get(house.address, "/v1/modules")
            .await
            .problem()
            .detail
            .contains("oh no")
    );
}

#[tokio::test]
async fn a_panic_is_internal_and_the_next_request_works() {
    let workers = Workers::new(|request| {
        let bad = request.subject.ends_with("bad");
        async move {
            if bad {
                panic!("a bug of ours")
            } else {
                Ok(raw("fine", &[]))
            }
        }
        .boxed()
    });
    let house = House::start(workers).await;
    let problem = post(house.address, "/v1/modules/bad/invoke", "").await.problem();
    assert_eq!((problem.status, problem.code), (500, ErrorCode::Internal));
    assert_eq!(
        post(house.address, "/v1/modules/good/invoke", "").await.text(),
        "fine"
    );
    assert!(house.metrics().contains("in_flight 0"));
}

#[tokio::test]
async fn a_request_keeps_its_id_and_gets_one_without() {
    let house = House::start(Workers::none()).await;
    let answer = send(house.address, "GET", "/livez", &[("X-Request-Id", "abc-1")], "").await;
    assert_eq!(answer.header("x-request-id"), Some("abc-1"));
    let problem = send(house.address, "GET", "/nothing", &[("X-Request-Id", "abc-1")], "")
        .await
        .problem();
    assert_eq!(problem.request_id, "abc-1");
    let (first, second) = (
        get(house.address, "/livez").await,
        get(house.address, "/livez").await,
    );
    assert_ne!(
        first.header("x-request-id").unwrap(),
        second.header("x-request-id").unwrap()
    );
}

#[tokio::test]
async fn readiness_says_why_not() {
    let house = House::start(Workers::none()).await;
    assert_eq!(get(house.address, "/livez").await.status, 200);
    assert_eq!(get(house.address, "/readyz").await.status, 200);
    house.lifecycle.health.unwell("nats", "disconnected");
    let problem = get(house.address, "/readyz").await.problem();
    assert_eq!((problem.status, problem.code), (503, ErrorCode::Unavailable));
    assert_eq!(problem.facts["reasons"]["nats"], "disconnected");
}

#[tokio::test]
async fn the_openapi_document_is_served() {
    let house = House::start(Workers::none()).await;
    let document: serde_json::Value = get(house.address, "/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["components"]["schemas"]["Outcome"]["properties"]["stats"].is_object());
}
