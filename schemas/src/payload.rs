//! Where a payload lies that is too large to travel in a message.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::subject::{JOB_PAYLOADS_BUCKET, PAYLOADS_BUCKET};

/// Which object store a payload lies in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum PayloadBucket {
    /// Uploads, and payloads of calls: kept for an hour.
    #[default]
    #[serde(rename = "wess-payloads")]
    Calls,
    /// Payloads of jobs: kept as long as the job's record, dead letter or schedule.
    #[serde(rename = "wess-job-payloads")]
    Jobs,
}

impl PayloadBucket {
    /// The object store's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Calls => PAYLOADS_BUCKET,
            Self::Jobs => JOB_PAYLOADS_BUCKET,
        }
    }

    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// Bytes in an object store; whoever reads them checks size and digest before use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PayloadRef {
    /// The object store; `wess-payloads` unless told.
    #[serde(default, skip_serializing_if = "PayloadBucket::is_usual")]
    pub bucket: PayloadBucket,
    /// The object's name in it.
    pub object: String,
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// How many bytes.
    pub size: u64,
}
