//! Requests to store a module, in their JSON forms.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::ModuleName;
use crate::limits::{Limits, MIB};
use crate::settings::Settings;

/// Most bytes of Wasm in one module unless the operator says otherwise.
pub const DEFAULT_MAX_MODULE_BYTES: u64 = 64 * MIB;

/// How long to wait for the reply to a store. The worker compiles before it answers, on one core: 4 s for each MiB of
/// code, by what it allows a single function, and 60 s for shapes that are hard to compile. For the largest module that
/// makes 316 s; as much again is for waiting until others are compiled, and for slower machines.
pub const STORE_TIMEOUT: Duration = Duration::from_secs(600);

/// The JSON body of `wess.store`: bytes within, uploaded to `wess-payloads` before, or, by their digest alone, those of a
/// module that is stored already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreRequest {
    /// The name to store under.
    pub name: ModuleName,
    /// The bytes, base64 with padding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wasm_base64: Option<String>,
    /// What the uploaded bytes must hash to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The upload's name in `wess-payloads`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Limits of its own; left out, those of the newest version hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// What its guests are given, and what they may reach; left out, what holds for the newest version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Settings>,
}

/// Where the bytes to store are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreSource {
    /// In the request.
    Bytes(Vec<u8>),
    /// In `wess-payloads`.
    Upload {
        /// What they must hash to.
        digest: Digest,
        /// The object's name.
        object: String,
    },
    /// Those of a module that is stored.
    Known(Digest),
}

/// What is wrong with a store request that parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidStore {
    /// Neither or both of the two sources.
    #[error("a store needs either wasm_base64, or digest and object, or the digest of what is stored")]
    Source,
    /// `wasm_base64` is not base64.
    #[error("wasm_base64 is not valid base64 with padding")]
    Base64,
}

impl StoreRequest {
    /// The one source of bytes.
    pub fn source(&self) -> Result<StoreSource, InvalidStore> {
        match (&self.wasm_base64, self.digest, &self.object) {
            (Some(text), None, None) => BASE64
                .decode(text)
                .map(StoreSource::Bytes)
                .map_err(|_| InvalidStore::Base64),
            (None, Some(digest), Some(object)) => Ok(StoreSource::Upload {
                digest,
                object: object.clone(),
            }),
            (None, Some(digest), None) => Ok(StoreSource::Known(digest)),
            _ => Err(InvalidStore::Source),
        }
    }
}
