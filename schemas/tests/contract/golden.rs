//! One message of each type and one error of each code, as they were on the wire when they were published.
//!
//! A golden file never changes: a change that needs one to change breaks a client.

use std::collections::BTreeSet;
use std::fs;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use wess_schemas::error_code::ErrorCode;
use wess_schemas::{
    ErrorBody, beat, binding, chain, invocation, job, module, outcome, payload, schema, seed, settings, store,
};

use crate::{folder, stems};

/// How to read and print a message of one type.
type RoundTrip = fn(&Value) -> Result<Value, serde_json::Error>;

/// One entry for each schema but `error`, which has a golden file for each code.
const MESSAGES: &[(&str, RoundTrip)] = &[
    ("invocation", round_trip::<invocation::Invocation>),
    ("outcome", round_trip::<outcome::Outcome>),
    ("chain-request", round_trip::<chain::ChainRequest>),
    ("chain-outcome", round_trip::<chain::ChainOutcome>),
    ("stored-chain", round_trip::<chain::StoredChain>),
    ("store-request", round_trip::<store::StoreRequest>),
    ("settings-change", round_trip::<settings::SettingsChange>),
    ("module", round_trip::<module::Module>),
    ("list-request", round_trip::<module::ListRequest>),
    ("module-list", round_trip::<module::ModuleList>),
    ("tag-request", round_trip::<module::TagRequest>),
    ("deleted", round_trip::<module::Deleted>),
    ("blob-location", round_trip::<module::BlobLocation>),
    ("module-head", round_trip::<module::ModuleHead>),
    ("module-version", round_trip::<module::ModuleVersion>),
    ("payload-ref", round_trip::<payload::PayloadRef>),
    ("job-request", round_trip::<job::JobRequest>),
    ("job-record", round_trip::<job::JobRecord>),
    ("job-wait-request", round_trip::<job::JobWaitRequest>),
    ("job-list-request", round_trip::<job::JobListRequest>),
    ("job-list", round_trip::<job::JobList>),
    ("dead-letter", round_trip::<job::DeadLetter>),
    ("dead-list-request", round_trip::<job::DeadListRequest>),
    ("dead-list", round_trip::<job::DeadList>),
    ("dead-purge-request", round_trip::<job::DeadPurgeRequest>),
    ("dead-purged", round_trip::<job::DeadPurged>),
    ("binding-request", round_trip::<binding::BindingRequest>),
    ("binding", round_trip::<binding::Binding>),
    ("binding-list", round_trip::<binding::BindingList>),
    ("unbound", round_trip::<binding::Unbound>),
    ("worker-beat", round_trip::<beat::WorkerBeat>),
    ("seed-request", round_trip::<seed::SeedRequest>),
    ("seed-loaded", round_trip::<seed::SeedReply<seed::Loaded>>),
    (
        "seed-executed",
        round_trip::<seed::SeedReply<seed::Execution<'_>>>,
    ),
    (
        "seed-chain-executed",
        round_trip::<seed::SeedReply<seed::ChainExecution<'_>>>,
    ),
    ("seed-binaries", round_trip::<seed::SeedReply<seed::Binaries>>),
    ("seed-failed", round_trip::<seed::SeedReply<()>>),
    ("seed-unloaded", round_trip::<seed::SeedReply<seed::Unloaded>>),
];

fn round_trip<T: Serialize + DeserializeOwned>(message: &Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(serde_json::from_value::<T>(message.clone())?)
}

fn golden(stem: &str) -> Value {
    let text = fs::read_to_string(folder("golden").join(format!("{stem}.json")));
    serde_json::from_str(&text.unwrap_or_else(|error| panic!("golden/{stem}.json: {error}"))).unwrap()
}

fn error_stem(code: &ErrorCode) -> String {
    format!("error-{code}")
}

fn assert_fits_schema(name: &str, message: &Value) {
    let (_, schema) = schema::all()
        .into_iter()
        .find(|(known, _)| *known == name)
        .unwrap();
    let mismatch = wess_harness::mismatch(schema.as_value(), message);
    assert_eq!(mismatch, None, "{name}");
}

#[test]
fn every_message_is_read_printed_alike_and_fits_its_schema() {
    for (name, round_trip) in MESSAGES {
        let message = golden(name);
        assert_eq!(round_trip(&message).unwrap(), message, "golden/{name}.json");
        assert_fits_schema(name, &message);
    }
}

#[test]
fn every_error_code_keeps_its_name_and_promises() {
    for code in ErrorCode::ALL {
        let message = golden(&error_stem(code));
        assert_eq!(round_trip::<ErrorBody>(&message).unwrap(), message, "{code}");
        assert_fits_schema("error", &message);
        let read: ErrorBody = serde_json::from_value(message).unwrap();
        let promised = ErrorBody::new(*code, "").error;
        let told = (read.error.code, read.error.retryable, read.error.guest_ran);
        assert_eq!(told, (*code, promised.retryable, promised.guest_ran));
    }
}

#[test]
fn there_is_a_golden_file_for_each_type_and_code_and_none_besides() {
    let messages = schema::all()
        .into_iter()
        .map(|(name, _)| name.to_owned())
        .filter(|name| name != "error");
    let known: BTreeSet<_> = messages.chain(ErrorCode::ALL.iter().map(error_stem)).collect();
    assert_eq!(stems("golden"), known);
}

#[test]
fn a_field_that_nobody_knows_is_refused_in_requests_and_fits_no_schema() {
    for name in [
        "invocation",
        "chain-request",
        "stored-chain",
        "store-request",
        "list-request",
        "tag-request",
        "payload-ref",
        "job-request",
        "job-wait-request",
        "job-list-request",
        "dead-list-request",
        "dead-purge-request",
        "binding-request",
        "seed-request",
    ] {
        let mut message = golden(name);
        message["colour"] = "red".into();
        let (_, schema) = schema::all()
            .into_iter()
            .find(|(known, _)| *known == name)
            .unwrap();
        assert!(
            wess_harness::mismatch(schema.as_value(), &message).is_some(),
            "{name}"
        );
        let (_, round_trip) = MESSAGES.iter().find(|(known, _)| *known == name).unwrap();
        let refused = round_trip(&message).unwrap_err().to_string();
        assert!(refused.contains("colour"), "{name}: {refused}");
    }
}
