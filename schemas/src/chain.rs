//! Several invocations in a row, each fed with the output of the one before.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::invocation::{Invocation, present};
use crate::outcome::{Outcome, output_bytes};
use crate::payload::PayloadRef;
use crate::reference::Reference;

/// The body of `wess.chain`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChainRequest {
    /// One to ten steps.
    #[schemars(length(min = 1, max = 10))]
    pub steps: Vec<ChainStep>,
    /// Input of the first step, as text or any JSON value.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    pub input: Option<Value>,
    /// Input of the first step, as bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_base64: Option<String>,
    /// Input of the first step that was uploaded before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_ref: Option<PayloadRef>,
    /// Longest wait for each slot, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

impl ChainRequest {
    /// Whether it, or one of its steps, says how long to wait for a slot.
    pub fn waits(&self) -> bool {
        let step_waits =
            |step: &ChainStep| matches!(step, ChainStep::Invocation(call) if call.wait_ms.is_some());
        self.wait_ms.is_some() || self.steps.iter().any(step_waits)
    }
}

/// A chain under a name: the JSON that stands in the place of a module's WebAssembly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoredChain {
    /// One to ten steps; none of them a stored chain.
    #[schemars(length(min = 1, max = 10))]
    pub steps: Vec<ChainStep>,
}

/// A module reference, or an Invocation without input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum ChainStep {
    /// The module's own entry.
    Module(Reference),
    /// With function, environment or limits.
    Invocation(Box<Invocation>),
}

impl From<ChainStep> for Invocation {
    fn from(step: ChainStep) -> Self {
        match step {
            ChainStep::Module(reference) => Self::of(reference),
            ChainStep::Invocation(invocation) => *invocation,
        }
    }
}

/// Not derived: an untagged enum would hide which field of a step is wrong.
impl<'de> Deserialize<'de> for ChainStep {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        match Value::deserialize(deserializer)? {
            Value::String(text) => text.parse().map(Self::Module).map_err(D::Error::custom),
            step => serde_json::from_value(step)
                .map(Self::Invocation)
                .map_err(D::Error::custom),
        }
    }
}

/// The reply to a chain that ran to its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChainOutcome {
    /// Every step's outcome, in order.
    pub steps: Vec<Outcome>,
    /// The last output, when the bytes are UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// The last output, when the bytes are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_base64: Option<String>,
    /// The last output, when it is too large for a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_ref: Option<PayloadRef>,
    /// What the last step returned, when it was a typed function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<Vec<Value>>,
}

impl ChainOutcome {
    /// The last output's bytes, wherever they are in the message; `None` when there are none or they lie in the object
    /// store.
    pub fn output_bytes(&self) -> Option<Vec<u8>> {
        output_bytes(self.output.as_deref(), self.output_base64.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_an_input_as_in_an_invocation() {
        let input = |json: &str| serde_json::from_str::<ChainRequest>(json).unwrap().input;
        assert_eq!(input(r#"{"steps":["a"],"input":null}"#), Some(Value::Null));
        assert_eq!(input(r#"{"steps":["a"]}"#), None);
    }

    #[test]
    fn a_step_is_a_reference_or_an_invocation_and_its_faults_are_named() {
        let chain: ChainRequest =
            serde_json::from_str(r#"{"steps":["upper",{"module":"add@2","env":{"A":"1"}}]}"#).unwrap();
        assert!(matches!(
            &chain.steps[..],
            [ChainStep::Module(_), ChainStep::Invocation(_)]
        ));
        let unknown =
            serde_json::from_str::<ChainRequest>(r#"{"steps":[{"module":"a","colour":1}]}"#).unwrap_err();
        assert!(unknown.to_string().contains("`colour`"));
        let name = serde_json::from_str::<ChainRequest>(r#"{"steps":["NO"]}"#).unwrap_err();
        assert!(name.to_string().contains("module reference"));
    }
}
