//! What discovery tells: every endpoint, with what it takes and has done.

use super::*;
use wess_schemas::ErrorCode;

fn answer(question: Question) -> serde_json::Value {
    let stats = EndpointStats::default();
    stats.count(Duration::from_nanos(30), None);
    stats.count(
        Duration::from_nanos(10),
        Some(&ErrorBody::new(ErrorCode::Conflict, "x".repeat(500))),
    );
    let counts: CountRequests = Arc::new(move |endpoint| match endpoint {
        EndpointName::Store => stats.counts(),
        _ => EndpointCounts::default(),
    });
    let discovery = Discovery::new("w1".parse().unwrap(), Subjects::default(), 7, counts);
    serde_json::from_slice(&discovery.answer(question).payload).unwrap()
}

#[test]
fn a_question_is_known_by_its_verb() {
    let subjects: Vec<_> = Question::subjects(&"w1".parse().unwrap()).collect();
    assert_eq!(subjects.len(), 9);
    assert!(subjects.contains(&"$SRV.INFO.wess.w1".to_owned()));
    assert!(subjects.iter().all(|subject| Question::parse(subject).is_some()));
    assert_eq!(Question::parse("$SRV.STATS.wess"), Some(Question::Stats));
    for other in ["$SRV", "$SRV.", "$SRV.DRAIN", "$SRV.PINGS.wess", "PING"] {
        assert_eq!(Question::parse(other), None, "{other}");
    }
}

#[test]
fn ping_says_who_is_there() {
    let ping = answer(Question::Ping);
    assert_eq!(
        (&ping["type"], &ping["name"], &ping["id"]),
        (
            &"io.nats.micro.v1.ping_response".into(),
            &"wess".into(),
            &"w1".into()
        )
    );
    assert!(ping["metadata"].is_object() && ping["version"].is_string());
}

#[test]
fn info_lists_every_endpoint_with_what_it_takes() {
    let info = answer(Question::Info);
    let endpoints = info["endpoints"].as_array().unwrap();
    assert_eq!(endpoints.len(), EndpointName::ALL.len());
    let store = endpoints
        .iter()
        .find(|endpoint| endpoint["name"] == "store")
        .unwrap();
    assert_eq!(
        (&store["subject"], &store["queue_group"]),
        (&"wess.store".into(), &"wess".into())
    );
    assert_eq!(
        (
            &store["metadata"]["response"],
            &store["metadata"]["max_module_bytes"]
        ),
        (&"module".into(), &"7".into())
    );
    let get = endpoints
        .iter()
        .find(|endpoint| endpoint["name"] == "modules-get")
        .unwrap();
    assert_eq!(get["subject"], "wess.modules.get.*");
}

#[test]
fn stats_count_and_bound_the_last_error() {
    let stats = answer(Question::Stats);
    let endpoints = stats["endpoints"].as_array().unwrap();
    let store = endpoints
        .iter()
        .find(|endpoint| endpoint["name"] == "store")
        .unwrap();
    assert_eq!(
        (&store["num_requests"], &store["num_errors"]),
        (&2.into(), &1.into())
    );
    assert_eq!(
        (&store["processing_time"], &store["average_processing_time"]),
        (&40.into(), &20.into())
    );
    assert_eq!(
        store["last_error"].as_str().unwrap().chars().count(),
        MAX_ERROR_CHARS
    );
    let (_, fraction) = stats["started"].as_str().unwrap().split_once('.').unwrap();
    assert_eq!(fraction.len(), "123456Z".len());
}
