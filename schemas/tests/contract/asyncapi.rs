//! `asyncapi.yaml` against the code: it names our subjects and headers and no others, and every reference leads somewhere.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;
use wess_schemas::header;
use wess_schemas::subject::{Endpoint, Subjects};

use crate::folder;

/// What each parameter of an address stands for when a real subject is made of it.
const EXAMPLES: &[(&str, &str)] = &[
    ("{ref}", "upper@3"),
    ("{function}", "ns:a/b@1.0.0#run"),
    ("{name}", "upper"),
    ("{module}", "upper"),
    ("{id}", "order-7"),
];

fn document() -> Value {
    let text = fs::read_to_string(folder("asyncapi.yaml")).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

/// Every value that `name` has anywhere in the document.
fn found<'a>(value: &'a Value, name: &str) -> Vec<&'a Value> {
    let children: Vec<&Value> = match value {
        Value::Object(members) => members.values().collect(),
        Value::Array(items) => items.iter().collect(),
        _ => Vec::new(),
    };
    value
        .get(name)
        .into_iter()
        .chain(children.into_iter().flat_map(|child| found(child, name)))
        .collect()
}

fn addresses(document: &Value) -> BTreeSet<String> {
    let channels = document["channels"].as_object().unwrap().values();
    let addresses = channels.filter_map(|channel| channel["address"].as_str());
    addresses
        .map(|address| {
            EXAMPLES
                .iter()
                .fold(address.into(), |text: String, (name, value)| {
                    text.replace(name, value)
                })
        })
        .collect()
}

#[test]
fn its_addresses_are_the_subjects_that_we_build() {
    let (subjects, module) = (Subjects::default(), || "upper@3".parse().unwrap());
    let job = || "order-7".parse().unwrap();
    let endpoints = [
        Endpoint::Invoke,
        Endpoint::InvokeRaw(module(), None),
        Endpoint::InvokeRaw(module(), Some("ns:a/b@1.0.0#run".parse().unwrap())),
        Endpoint::Http(module()),
        Endpoint::Chain,
        Endpoint::Store,
        Endpoint::ModulesList,
        Endpoint::ModulesGet(module()),
        Endpoint::ModulesDelete(module()),
        Endpoint::ModulesTag("upper".parse().unwrap()),
        Endpoint::ModulesFetch(module()),
        Endpoint::JobsSubmit,
        Endpoint::JobsGet(job()),
        Endpoint::JobsWait(job()),
        Endpoint::JobsCancel(job()),
        Endpoint::JobsList,
        Endpoint::DeadList,
        Endpoint::DeadGet(job()),
        Endpoint::DeadRedrive(job()),
        Endpoint::DeadPurge,
        Endpoint::BindingsPut("upper".parse().unwrap()),
        Endpoint::BindingsList,
        Endpoint::BindingsGet("upper".parse().unwrap()),
        Endpoint::BindingsDelete("upper".parse().unwrap()),
    ];
    let mut built: BTreeSet<_> = endpoints
        .iter()
        .map(|endpoint| subjects.endpoint(endpoint))
        .collect();
    built.extend([
        subjects.logs("upper"),
        subjects.worker_beat(),
        subjects.done(&job()),
    ]);
    assert_eq!(addresses(&document()), built);
}

#[test]
fn its_headers_are_ours() {
    let known = BTreeSet::from([
        header::MODULE,
        header::TIMEOUT_MS,
        header::WAIT_MS,
        header::FUEL,
        header::MEMORY_MB,
        header::FACTS,
        header::INPUT_REF,
        header::MSG_ID,
        header::TRACEPARENT,
        header::CONTENT_TYPE,
        header::JOB_ID,
        header::MODULE_DIGEST,
        header::EXIT_CODE,
        header::QUEUE_US,
        header::RUN_US,
        header::FUEL_USED,
        header::COLD,
        header::OUTPUT_REF,
        header::MODULE_VERSION,
        header::LOG_STREAM,
        header::HTTP_METHOD,
        header::HTTP_PATH,
        header::HTTP_AUTHORITY,
        header::HTTP_SCHEME,
        header::HTTP_HEADERS,
        header::HTTP_STATUS,
        header::HTTP_TRAILERS,
        header::HTTP_BODY,
        header::HTTP_WINDOW,
        header::HTTP_FRAME,
        header::HTTP_SEQ,
        header::HTTP_CREDIT,
        header::SERVICE_ERROR,
        header::SERVICE_ERROR_CODE,
    ]);
    let document = document();
    let properties = found(&document, "properties");
    let named: BTreeSet<_> = properties
        .iter()
        .flat_map(|names| names.as_object().unwrap().keys())
        .map(String::as_str)
        .collect();
    assert_eq!(named, known);
}

#[test]
fn every_reference_leads_somewhere() {
    let document = document();
    for reference in found(&document, "$ref") {
        let reference = reference.as_str().unwrap();
        let there = match reference.strip_prefix('#') {
            Some(pointer) => document.pointer(pointer).is_some(),
            None => folder(reference).is_file(),
        };
        assert!(there, "{reference}");
    }
}

#[test]
fn every_request_is_answered_or_refused_with_an_error() {
    let document = document();
    let operations = document["operations"].as_object().unwrap();
    for (name, operation) in operations
        .iter()
        .filter(|(_, operation)| operation["action"] == "receive")
    {
        let replies = operation["reply"]["messages"].as_array().unwrap();
        assert_eq!(
            replies.last().unwrap()["$ref"],
            "#/channels/reply/messages/error",
            "{name}"
        );
        assert_eq!(replies.len(), 2, "{name}");
    }
}
