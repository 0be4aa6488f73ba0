//! Jobs that were given up: their letters, and what may be asked of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::JobRequest;
use crate::error::Failure;
use crate::id::{BindingName, InvalidName, JobId};
use crate::timestamp::Timestamp;

/// Why a job was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeadReason {
    /// Its guest failed as often as its retry policy allows.
    AttemptsExhausted,
    /// It was handed to workers too often without coming to an end: it may crash them.
    TooManyDeliveries,
    /// Nobody can read it.
    Unreadable,
    /// Its id was used as the key of another request, and the outcome under it is that one's.
    KeyTaken,
    /// The module of its binding does not take it.
    Refused,
}

impl DeadReason {
    /// Its name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::TooManyDeliveries => "too_many_deliveries",
            Self::Unreadable => "unreadable",
            Self::KeyTaken => "key_taken",
            Self::Refused => "refused",
        }
    }
}

impl std::str::FromStr for DeadReason {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [
            Self::AttemptsExhausted,
            Self::TooManyDeliveries,
            Self::Unreadable,
            Self::KeyTaken,
            Self::Refused,
        ]
        .into_iter()
        .find(|reason| reason.as_str() == text)
        .ok_or_else(|| Self::Err::new("reason", "one of the contract's", text))
    }
}

/// A job that was given up: the reply to `wess.dead.get.<job id>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetter {
    /// The job's id.
    pub job_id: JobId,
    /// Why.
    pub reason: DeadReason,
    /// How often its guest ended.
    pub attempts: u32,
    /// How often NATS handed it over.
    pub deliveries: u32,
    /// When it was given up.
    pub died: Timestamp,
    /// When it was submitted, when that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitted: Option<Timestamp>,
    /// How the last attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// Whose message it was, when it was a binding's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<BindingName>,
    /// Where the output of a binding's message goes once it is redriven, when the binding said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish_to: Option<String>,
    /// What was submitted; absent when nobody can read it. Of a binding's message, the run that it asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<JobRequest>,
}

/// The body of `wess.dead.list`; may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeadListRequest {
    /// Only letters after this one: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<JobId>,
    /// How many at most; 1 to 100, 100 unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// The reply to `wess.dead.list`, in the order of ids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeadList {
    /// The page.
    pub letters: Vec<DeadLetter>,
    /// What to ask as `after` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<JobId>,
}

/// The body of `wess.dead.purge`: one letter, or every one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeadPurgeRequest {
    /// Which one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// Every one; must be said.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

/// The reply to `wess.dead.purge`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadPurged {
    /// How many letters are gone.
    pub purged: u64,
}
