//! How one guest run ended, in its JSON form. A non-zero exit code is the guest's answer, not an error.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::Digest;
use crate::id::{JobId, ModuleName, WorkerId};
use crate::payload::PayloadRef;

/// The reply to an Invocation that ran to its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outcome {
    /// The request's id.
    pub job_id: JobId,
    /// What ran.
    pub module: ModuleRun,
    /// Which export ran.
    pub function: String,
    /// Output, when the bytes are UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Output, when the bytes are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_base64: Option<String>,
    /// Output, or the JSON of `results`, when it is too large for a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_ref: Option<PayloadRef>,
    /// What a function that takes arguments returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<Vec<Value>>,
    /// The guest's own verdict, for plugins, commands and components' `result`s that were called by raw input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Where time and memory went.
    pub stats: RunStats,
    /// What each step of a stored chain did; left out of modules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepRun>,
    /// Which worker ran it.
    pub worker: WorkerId,
}

/// One step of a stored chain, without its output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StepRun {
    /// What ran.
    pub module: ModuleRun,
    /// Which export ran.
    pub function: String,
    /// The guest's own verdict, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Where time and memory went.
    pub stats: RunStats,
}

/// Which module, version and bytes ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModuleRun {
    /// The module's name; absent when it was called by digest alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<ModuleName>,
    /// The version; absent when it was called by digest alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The bytes.
    pub digest: Digest,
}

/// Where the time and memory of one run went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunStats {
    /// Wait for a slot, in microseconds.
    pub queue_us: u64,
    /// Loading and compiling, in microseconds; 0 when the module was ready.
    pub load_us: u64,
    /// From the guest's start to its end, in microseconds.
    pub run_us: u64,
    /// Fuel used, when it was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
    /// Most linear memory held at once, in bytes, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak_bytes: Option<u64>,
    /// Whether the module had to be loaded first.
    pub cold: bool,
}

impl Outcome {
    /// Puts output bytes into the field that fits them.
    pub fn set_output(&mut self, bytes: Vec<u8>) {
        match String::from_utf8(bytes) {
            Ok(text) => self.output = Some(text),
            Err(not_text) => self.output_base64 = Some(BASE64.encode(not_text.as_bytes())),
        }
    }

    /// The output bytes, wherever they are in the message; `None` when there are none or they lie in the object store.
    pub fn output_bytes(&self) -> Option<Vec<u8>> {
        output_bytes(self.output.as_deref(), self.output_base64.as_deref())
    }
}

/// The output bytes, from whichever of the two fields has them.
pub(crate) fn output_bytes(text: Option<&str>, base64: Option<&str>) -> Option<Vec<u8>> {
    match (text, base64) {
        (Some(text), _) => Some(text.into()),
        (None, Some(base64)) => BASE64.decode(base64).ok(),
        (None, None) => None,
    }
}
