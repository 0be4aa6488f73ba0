//! The contract's JSON Schemas, one per message. The files under `json/` are printed from here; a test fails on drift.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};

use crate::{beat, binding, chain, error, invocation, job, module, outcome, payload, seed, settings, store};

/// Every message a client can meet, as `(file name without ending, schema)`.
pub fn all() -> Vec<(&'static str, Schema)> {
    vec![
        ("invocation", schema::<invocation::Invocation>()),
        ("outcome", schema::<outcome::Outcome>()),
        ("chain-request", schema::<chain::ChainRequest>()),
        ("chain-outcome", schema::<chain::ChainOutcome>()),
        ("stored-chain", schema::<chain::StoredChain>()),
        ("store-request", schema::<store::StoreRequest>()),
        ("settings-change", schema::<settings::SettingsChange>()),
        ("module", schema::<module::Module>()),
        ("list-request", schema::<module::ListRequest>()),
        ("module-list", schema::<module::ModuleList>()),
        ("tag-request", schema::<module::TagRequest>()),
        ("deleted", schema::<module::Deleted>()),
        ("blob-location", schema::<module::BlobLocation>()),
        ("module-head", schema::<module::ModuleHead>()),
        ("module-version", schema::<module::ModuleVersion>()),
        ("payload-ref", schema::<payload::PayloadRef>()),
        ("job-request", schema::<job::JobRequest>()),
        ("job-record", schema::<job::JobRecord>()),
        ("job-wait-request", schema::<job::JobWaitRequest>()),
        ("job-list-request", schema::<job::JobListRequest>()),
        ("job-list", schema::<job::JobList>()),
        ("dead-letter", schema::<job::DeadLetter>()),
        ("dead-list-request", schema::<job::DeadListRequest>()),
        ("dead-list", schema::<job::DeadList>()),
        ("dead-purge-request", schema::<job::DeadPurgeRequest>()),
        ("dead-purged", schema::<job::DeadPurged>()),
        ("binding-request", schema::<binding::BindingRequest>()),
        ("binding", schema::<binding::Binding>()),
        ("binding-list", schema::<binding::BindingList>()),
        ("unbound", schema::<binding::Unbound>()),
        ("worker-beat", schema::<beat::WorkerBeat>()),
        ("error", schema::<error::ErrorBody>()),
        ("seed-request", schema::<seed::SeedRequest>()),
        ("seed-loaded", schema::<seed::SeedReply<seed::Loaded>>()),
        ("seed-executed", schema::<seed::SeedReply<seed::Execution<'_>>>()),
        (
            "seed-chain-executed",
            schema::<seed::SeedReply<seed::ChainExecution<'_>>>(),
        ),
        ("seed-binaries", schema::<seed::SeedReply<seed::Binaries>>()),
        ("seed-failed", schema::<seed::SeedReply<()>>()),
        ("seed-unloaded", schema::<seed::SeedReply<seed::Unloaded>>()),
    ]
}

fn schema<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<T>()
}
