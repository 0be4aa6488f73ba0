//! Whatever a message holds, what it prints parses back to it.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use time::OffsetDateTime;
use wess_schemas::beat::WorkerBeat;
use wess_schemas::chain::{ChainOutcome, ChainRequest, ChainStep};
use wess_schemas::export::Export;
use wess_schemas::module::{Abi, ListRequest, TagRequest, VersionSummary};
use wess_schemas::outcome::{ModuleRun, RunStats, StepRun};
use wess_schemas::payload::{PayloadBucket, PayloadRef};
use wess_schemas::secret::SealedSecret;
use wess_schemas::settings::{Grants, Isolation, Settings};
use wess_schemas::store::StoreRequest;
use wess_schemas::subject::Prefix;
use wess_schemas::timestamp::Timestamp;
use wess_schemas::{
    Digest, ErrorBody, ErrorCode, Invocation, JobId, Limits, Module, ModuleId, ModuleName, Outcome,
    Reference, Tag, WorkerId,
};

fn parses_back<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(
    message: &T,
) -> Result<(), TestCaseError> {
    let text = serde_json::to_string(message).unwrap();
    prop_assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), message, "{}", text);
    Ok(())
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,12}|[\\x00-\\x1f\"\\\\]{0,4}"
}

/// Any JSON: also null, and numbers at their ends.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            btree_map(text(), inner, 0..3).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn name() -> impl Strategy<Value = ModuleName> {
    "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?".prop_map(|name| name.parse().unwrap())
}

fn tag() -> impl Strategy<Value = Tag> {
    "[a-z][a-z0-9-]{0,20}".prop_map(|tag| tag.parse().unwrap())
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest::from_bytes)
}

fn job_id() -> impl Strategy<Value = JobId> {
    "[A-Za-z0-9_-]{1,64}".prop_map(|id| id.parse().unwrap())
}

fn worker_id() -> impl Strategy<Value = WorkerId> {
    Just(()).prop_map(|()| WorkerId::generate())
}

fn module_id() -> impl Strategy<Value = ModuleId> {
    Just(()).prop_map(|()| ModuleId::generate())
}

fn reference() -> impl Strategy<Value = Reference> {
    let forms = prop_oneof![
        name().prop_map(|name| name.to_string()),
        (name(), 1..=u32::MAX).prop_map(|(name, version)| format!("{name}@{version}")),
        (name(), tag()).prop_map(|(name, tag)| format!("{name}@{tag}")),
        digest().prop_map(|digest| digest.to_string()),
        module_id().prop_map(|id| id.to_string()),
    ];
    forms.prop_map(|text| text.parse().unwrap())
}

/// From the first to the last second that RFC 3339 can write.
fn timestamp() -> impl Strategy<Value = Timestamp> {
    (-62_167_219_200_i64..=253_402_300_799, 0u32..1_000_000_000).prop_map(|(seconds, nanoseconds)| {
        let instant = OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        instant.replace_nanosecond(nanoseconds).unwrap().into()
    })
}

prop_compose! {
    fn limits()(timeout_ms in of(any::<u64>()), memory_mb in of(any::<u64>()), fuel in of(any::<u64>()), output_bytes in of(any::<u64>())) -> Limits {
        Limits { timeout_ms, memory_mb, fuel, output_bytes }
    }
}

prop_compose! {
    fn payload_ref()(object in text(), digest in digest(), size in any::<u64>()) -> PayloadRef {
        PayloadRef { bucket: PayloadBucket::default(), object, digest, size }
    }
}

prop_compose! {
    fn invocation()(
        module in reference(), function in of("[!-~]{1,12}"), input in of(json()), input_base64 in of(text()),
        input_ref in of(payload_ref()), args in of(vec(json(), 0..3)), env in btree_map(text(), text(), 0..3),
        wait_ms in of(any::<u64>()), limits in limits(),
    ) -> Invocation {
        let function = function.map(|name| serde_json::from_value(name.into()).unwrap());
        Invocation { module, function, input, input_base64, input_ref, args, env, wait_ms, limits }
    }
}

prop_compose! {
    fn stats()(
        queue_us in any::<u64>(), load_us in any::<u64>(), run_us in any::<u64>(), fuel in of(any::<u64>()),
        memory_peak_bytes in of(any::<u64>()), cold in any::<bool>(),
    ) -> RunStats {
        RunStats { queue_us, load_us, run_us, fuel, memory_peak_bytes, cold }
    }
}

prop_compose! {
    fn step_run()(
        name in of(name()), version in of(any::<u32>()), digest in digest(), function in text(),
        exit_code in of(any::<i32>()), stats in stats(),
    ) -> StepRun {
        StepRun { module: ModuleRun { name, version, digest }, function, exit_code, stats }
    }
}

prop_compose! {
    fn outcome()(
        job_id in job_id(), name in of(name()), version in of(any::<u32>()), digest in digest(), function in text(),
        (output, output_base64, output_ref) in (of(text()), of(text()), of(payload_ref())),
        results in of(vec(json(), 0..3)), exit_code in of(any::<i32>()), stats in stats(), steps in vec(step_run(), 0..3), worker in worker_id(),
    ) -> Outcome {
        let module = ModuleRun { name, version, digest };
        Outcome { job_id, module, function, output, output_base64, output_ref, results, exit_code, stats, steps, worker }
    }
}

fn step() -> impl Strategy<Value = ChainStep> {
    prop_oneof![
        reference().prop_map(ChainStep::Module),
        invocation().prop_map(|call| ChainStep::Invocation(Box::new(call))),
    ]
}

prop_compose! {
    fn export()(
        name in text(), params in vec(text(), 0..3), results in vec(text(), 0..3), signature in text(),
        (args_schema, results_schema) in (of(schema()), of(schema())), unsupported in of(text()),
    ) -> Export {
        Export { name, params, results, signature, args_schema, results_schema, unsupported }
    }
}

/// Not null, which reads back as a schema that is not there.
fn schema() -> impl Strategy<Value = serde_json::Value> {
    json().prop_filter("a schema", |value| !value.is_null())
}

prop_compose! {
    fn version()(version in any::<u32>(), digest in digest(), size in any::<u64>(), created in timestamp()) -> VersionSummary {
        VersionSummary { version, digest, size, created }
    }
}

fn sealed() -> impl Strategy<Value = SealedSecret> {
    "X[A-Z0-9]{1,9}\\.[A-Za-z0-9_-]{1,9}".prop_map(|text| text.try_into().expect("the grammar is its own"))
}

prop_compose! {
    fn settings()(
        description in of(text()), env in btree_map(text(), text(), 0..3), config in btree_map(text(), text(), 0..3),
        secrets in btree_map(text(), sealed(), 0..3), (deterministic, keyvalue) in any::<(bool, bool)>(),
        publish in btree_set(text(), 0..3), http in btree_set(text(), 0..3), routes in btree_set(text(), 0..3),
        isolation in of(any::<u32>().prop_map(|reuse| Isolation { reuse })),
        blobstore in btree_set(text(), 0..3),
    ) -> Settings {
        Settings { description, env, secrets, config, deterministic, isolation, routes, grants: Grants { keyvalue, publish, http, blobstore } }
    }
}

prop_compose! {
    fn module()(
        id in module_id(), name in name(), newest in version(),
        abi in prop::sample::select(vec![Abi::Typed, Abi::Plugin, Abi::Command, Abi::Component, Abi::Http, Abi::Chain]),
        tags in btree_map(tag(), any::<u32>(), 0..3), versions in vec(version(), 0..3), exports in vec(export(), 0..3),
        (limits, settings) in (limits(), settings()), (created, updated, wit) in (timestamp(), timestamp(), of(text())),
        (propagated, stored) in (of(any::<bool>()), of(any::<bool>())),
    ) -> Module {
        let VersionSummary { version, digest, size, .. } = newest;
        Module { id, name, version, digest, size, abi, tags, versions, exports, wit, chain: None, limits, settings, created, updated, propagated, stored }
    }
}

proptest! {
    #[test]
    fn every_invocation(message in invocation()) { parses_back(&message)?; }

    #[test]
    fn every_outcome(message in outcome()) { parses_back(&message)?; }

    #[test]
    fn every_chain_request(
        steps in vec(step(), 0..4), input in of(json()), input_base64 in of(text()), input_ref in of(payload_ref()),
        wait_ms in of(any::<u64>()),
    ) {
        parses_back(&ChainRequest { steps, input, input_base64, input_ref, wait_ms })?;
    }

    #[test]
    fn every_chain_outcome(
        steps in vec(outcome(), 0..3), output in of(text()), output_base64 in of(text()),
        output_ref in of(payload_ref()), results in of(vec(json(), 0..3)),
    ) {
        parses_back(&ChainOutcome { steps, output, output_base64, output_ref, results })?;
    }

    #[test]
    fn every_module(message in module()) { parses_back(&message)?; }

    #[test]
    fn every_store_request(
        name in name(), wasm_base64 in of(text()), digest in of(digest()), object in of(text()), limits in of(limits()),
        settings in of(settings()),
    ) {
        parses_back(&StoreRequest { name, wasm_base64, digest, object, limits, settings })?;
    }

    #[test]
    fn every_list_request(prefix in of(text()), after in of(name()), limit in of(any::<u32>())) {
        parses_back(&ListRequest { prefix, after, limit })?;
    }

    #[test]
    fn every_tag_request(tag in tag(), version in of(any::<u32>())) {
        parses_back(&TagRequest { tag, version })?;
    }

    #[test]
    fn every_payload_reference(message in payload_ref()) { parses_back(&message)?; }

    #[test]
    fn every_beat(
        worker in worker_id(), slots_busy in any::<u32>(), slots_total in any::<u32>(), waiting in any::<u32>(),
        catalog_revision in any::<u64>(), draining in any::<bool>(), calls_answered in any::<u64>(),
    ) {
        parses_back(&WorkerBeat {
            worker, slots_busy, slots_total, waiting, catalog_revision, draining, calls_answered,
        })?;
    }

    #[test]
    fn every_error(
        code in prop::sample::select(ErrorCode::ALL), message in text(), facts in btree_map(text(), json(), 0..3),
        early in any::<bool>(), job in of(job_id()),
    ) {
        let body = facts.into_iter().fold(ErrorBody::new(code, message), |body, (key, value)| body.with(&key, value));
        let body = if early { body.before_guest() } else { body };
        parses_back(&match job { Some(job) => body.for_job(job), None => body })?;
    }

    #[test]
    fn every_instant(message in timestamp()) {
        parses_back(&message)?;
        prop_assert_eq!(serde_json::to_value(message).unwrap(), message.to_string());
    }

    #[test]
    fn every_prefix_that_parses(text in "[a-zA-Z0-9_-]{1,12}(\\.[a-zA-Z0-9_-]{1,12}){0,2}|\\PC{0,20}") {
        if let Ok(prefix) = text.parse::<Prefix>() {
            prop_assert_eq!(prefix.to_string(), text);
        }
    }
}
