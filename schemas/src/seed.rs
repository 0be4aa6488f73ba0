//! The seed protocol, spoken over the gateway's Unix socket: one JSON document a line, each request answered by one line.
//!
//! Unknown fields are refused by name. Says nothing of how lines travel.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::Digest;
use crate::error::{ErrorBody, Failure};
use crate::id::{ModuleId, ModuleName};
use crate::invocation::present;

/// Most modules that one reply to `ListBinaries` names.
pub const MAX_LISTED: usize = 10_000;

/// A line from a client: `{"type":"Execute","payload":{…}}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "payload", deny_unknown_fields)]
pub enum SeedRequest {
    /// Stores the module in a file. Answered by [`Loaded`].
    LoadBinary(LoadBinary),
    /// Runs one module. Answered by [`Execution`].
    Execute(Execute),
    /// Runs modules one after the other, each on the output of the one before. Answered by [`ChainExecution`].
    ExecuteChain(ExecuteChain),
    /// Names what was loaded. Answered by [`Binaries`]. Its payload, if it has one, is `{}`.
    ListBinaries,
    /// Deletes a module with all its versions. Answered by [`Unloaded`].
    UnloadBinary(UnloadBinary),
}

/// Which file to load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadBinary {
    /// Where it is on the gateway's machine; a relative one begins at the gateway's working folder.
    pub path: String,
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Execute {
    /// Which module: its newest version runs.
    pub binary_id: ModuleId,
    /// Input as text, or any JSON value that the guest gets as JSON text.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    pub input: Option<Value>,
    /// Input as bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_base64: Option<String>,
    /// Its bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<RunConfig>,
}

/// What to run one after the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecuteChain {
    /// One to ten modules.
    #[schemars(length(min = 1, max = 10))]
    pub binary_ids: Vec<ModuleId>,
    /// Input of the first, as text or any JSON value.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    pub input: Option<Value>,
    /// Input of the first, as bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_base64: Option<String>,
    /// The bounds of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<RunConfig>,
}

/// Bounds below the module's and the operator's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Longest run from the guest's start, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Most linear memory, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit_mb: Option<u64>,
}

/// Which module to delete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnloadBinary {
    /// The module.
    pub binary_id: ModuleId,
}

/// A line to a client: `{"success":true,"data":{…}}` or `{"success":false,"error":"code: message",…}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SeedReply<T> {
    /// Whether it was done. A guest's own return code says nothing of that.
    pub success: bool,
    /// What came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<T>,
    /// What went wrong: its code, a colon and one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What went wrong, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

impl<T> SeedReply<T> {
    /// It was done.
    pub fn done(data: T) -> Self {
        Self {
            success: true,
            data: Some(data),
            error: None,
            failure: None,
        }
    }

    /// It was not.
    pub fn failed(body: ErrorBody) -> Self {
        Self {
            success: false,
            data: None,
            error: Some(body.error.to_string()),
            failure: Some(body.error),
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Execution<'a> {
    /// The guest's own verdict; 0 for functions, which have none.
    pub return_code: i32,
    /// Output, when the bytes are UTF-8; of a function what it returned, as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Cow<'a, str>>,
    /// Output, when the bytes are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_base64: Option<Cow<'a, str>>,
    /// From the guest's start to its end, in whole milliseconds.
    pub execution_time_ms: u64,
    /// The same in microseconds.
    pub execution_time_us: u64,
    /// Fuel used; 0 when it was not counted, which it is where the module has a limit on fuel.
    pub fuel_consumed: u64,
}

/// How a chain ended: the last step's answer, and all steps' time and fuel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChainExecution<'a> {
    /// Return code and output are the last step's, time and fuel all steps' together.
    #[serde(flatten)]
    pub whole: Execution<'a>,
    /// Each step in order, without its output.
    pub steps: Vec<StepExecution>,
}

/// How one step of a chain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StepExecution {
    /// The guest's own verdict; 0 for functions.
    pub return_code: i32,
    /// From the guest's start to its end, in microseconds.
    pub execution_time_us: u64,
    /// Fuel used; 0 when it was not counted.
    pub fuel_consumed: u64,
}

/// A module that was loaded from a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Loaded {
    /// The module's id, the same for the same path for as long as the module is not unloaded.
    pub binary_id: ModuleId,
    /// The file, as an absolute path.
    pub path: String,
    /// What the module is called, made of the path.
    pub name: ModuleName,
    /// The version that has these bytes.
    pub version: u32,
    /// The bytes.
    pub digest: Digest,
    /// Their number.
    pub size_bytes: u64,
}

/// What was loaded from files, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Binaries {
    /// At most [`MAX_LISTED`] of them.
    pub binaries: Vec<Binary>,
    /// Whether these are all.
    pub complete: bool,
}

/// A module in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Binary {
    /// Its id.
    pub binary_id: ModuleId,
    /// Its name.
    pub name: ModuleName,
    /// Its newest version.
    pub version: u32,
    /// That version's bytes.
    pub digest: Digest,
    /// Their number.
    pub size_bytes: u64,
}

/// A module that was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unloaded {
    /// Its id, which is not given out again.
    pub binary_id: ModuleId,
    /// What it was called.
    pub name: ModuleName,
}
