//! Where a payload lies that is too large to travel in a message.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Bytes in the object store `wess-payloads`; whoever reads them checks size and digest before use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PayloadRef {
    /// The object's name in `wess-payloads`.
    pub object: String,
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// How many bytes.
    pub size: u64,
}
