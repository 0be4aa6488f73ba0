//! Bindings over HTTP: what is asked of workers, and how their answers come back.

use serde_json::{Value, json as value};
use wess_schemas::{ErrorBody, ErrorCode};

use crate::http::send;
use crate::support::{House, Workers, failure, golden, json, refusal};

const BINDING: &str = r#"{"module":"upper","subject":"texts.*"}"#;

/// Method, path and body; subject and body of the question; the reply.
type Case = ([&'static str; 3], (&'static str, Value), &'static str);

fn cases() -> [Case; 4] {
    [
        (
            ["GET", "/v1/bindings", ""],
            ("bindings.list", Value::Null),
            "binding-list",
        ),
        (
            ["GET", "/v1/bindings/shout", ""],
            ("bindings.get.shout", Value::Null),
            "binding",
        ),
        (
            ["PUT", "/v1/bindings/shout", BINDING],
            (
                "bindings.put.shout",
                value!({"module": "upper", "subject": "texts.*"}),
            ),
            "binding",
        ),
        (
            ["DELETE", "/v1/bindings/shout", ""],
            ("bindings.delete.shout", Value::Null),
            "unbound",
        ),
    ]
}

#[tokio::test]
async fn each_question_reaches_its_subject_and_its_answer_comes_back_as_it_was() {
    for ([method, path, body], (subject, sent), reply) in cases() {
        let workers = Workers::answering(move |_| Ok(json(&golden(reply))));
        let house = House::start(workers.clone()).await;
        let answer = send(house.address, method, path, &[], body).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.json::<Value>(), golden(reply), "{path}");
        let request = workers.asked();
        assert_eq!(request.subject, format!("wess.{subject}"));
        let payload = serde_json::from_slice(&request.payload).unwrap_or(Value::Null);
        assert_eq!(payload, sent, "{path}");
    }
}

#[tokio::test]
async fn a_workers_refusal_and_a_name_that_is_none_come_back_as_problems() {
    let refusing = Workers::answering(|_| Ok(refusal(&failure(ErrorCode::BindingNotFound))));
    let house = House::start(refusing).await;
    for ([method, path, body], ..) in cases() {
        let answer = send(house.address, method, path, &[], body).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(
            ErrorBody::from(answer.problem()),
            failure(ErrorCode::BindingNotFound),
            "{path}"
        );
    }
    let house = House::start(Workers::none()).await;
    let answer = send(house.address, "PUT", "/v1/bindings/No", &[], BINDING).await;
    assert_eq!(answer.status, 400);
    assert!(answer.problem().detail.contains("binding name"));
    let large = "x".repeat(100_000);
    let answer = send(house.address, "PUT", "/v1/bindings/a", &[], &large).await;
    assert_eq!(
        (answer.status, answer.problem().code),
        (413, ErrorCode::PayloadTooLarge)
    );
}
