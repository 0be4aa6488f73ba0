//! What the gateway reads of calls in JSON: how long they may take, and where an input is that has to be uploaded.
//!
//! Invariant: a body is taken apart in place. Only names, numbers and a reference become values of their own: a tree of
//! a hostile body's arguments takes forty times its bytes. What is not read here, the worker judges.

use std::fmt;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use wess_schemas::invocation::{Input, take_input};
use wess_schemas::limits::MAX_CHAIN_STEPS;
use wess_schemas::payload::PayloadRef;
use wess_schemas::reference::FunctionName;
use wess_schemas::{Limits, Reference};

use crate::problem::Problem;
use crate::workers::Workers;

/// An Invocation.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Call<'a> {
    module: Reference,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    function: Option<FunctionName>,
    #[serde(
        borrow,
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    input: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    input_base64: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    input_ref: Option<PayloadRef>,
    #[serde(
        borrow,
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    args: Option<&'a RawValue>,
    #[serde(
        borrow,
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    env: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wait_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    limits: Limits,
}

/// A ChainRequest.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Chain<'a> {
    #[serde(borrow)]
    steps: Steps<'a>,
    #[serde(
        borrow,
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    input: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    input_base64: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    input_ref: Option<PayloadRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wait_ms: Option<u64>,
}

/// As many steps as a chain may have, and one more for the worker to see where there are too many.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Steps<'a>(Vec<Step<'a>>);

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Step<'a> {
    Module(Reference),
    Call(Box<Call<'a>>),
}

/// Something that runs guests, as its body says.
pub trait Body: Serialize {
    /// How long to wait for its reply.
    fn patience(&self, workers: &Workers) -> Duration;

    /// Takes its input out, in the one form that it has.
    fn take_input(&mut self) -> Result<Input, Problem>;

    /// Says where its input lies.
    fn refer(&mut self, input: PayloadRef);
}

impl Body for Call<'_> {
    fn patience(&self, workers: &Workers) -> Duration {
        workers.call_patience(self.wait_ms, self.limits.timeout_ms)
    }

    fn take_input(&mut self) -> Result<Input, Problem> {
        input(self.input.take(), self.input_base64.take(), self.input_ref.take())
    }

    fn refer(&mut self, input: PayloadRef) {
        self.input_ref = Some(input);
    }
}

impl Body for Chain<'_> {
    /// As long as its steps one after the other. One of none is waited for too: the worker refuses it.
    fn patience(&self, workers: &Workers) -> Duration {
        let of_step = |step: &Step<'_>| match step {
            Step::Module(_) => workers.call_patience(self.wait_ms, None),
            Step::Call(call) => workers.call_patience(call.wait_ms.or(self.wait_ms), call.limits.timeout_ms),
        };
        let steps = self.steps.0.iter().take(MAX_CHAIN_STEPS);
        steps
            .map(of_step)
            .sum::<Duration>()
            .max(workers.call_patience(None, None))
    }

    fn take_input(&mut self) -> Result<Input, Problem> {
        input(self.input.take(), self.input_base64.take(), self.input_ref.take())
    }

    fn refer(&mut self, input: PayloadRef) {
        self.input_ref = Some(input);
    }
}

/// Text is what it says; any other JSON reaches the guest as it was written.
pub fn input(
    json: Option<&RawValue>,
    base64: Option<&RawValue>,
    stored: Option<PayloadRef>,
) -> Result<Input, Problem> {
    let as_text = |raw: &RawValue| match raw.get() {
        quoted if quoted.starts_with('"') => text("input", raw),
        other => Ok(other.into()),
    };
    let json = json.map(as_text).transpose()?.map(Value::String);
    let base64 = base64.map(|raw| text("input_base64", raw)).transpose()?;
    Ok(take_input(json, base64, stored)?)
}

fn text(field: &str, raw: &RawValue) -> Result<String, Problem> {
    serde_json::from_str(raw.get()).map_err(|error| Problem::invalid(format!("{field}: {error}")))
}

/// Keeps `null` apart from nothing at all.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

impl<'de: 'a, 'a> Deserialize<'de> for Steps<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfSteps;
        impl<'de> Visitor<'de> for OfSteps {
            type Value = Steps<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of steps")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Steps<'de>, A::Error> {
                let mut steps = Vec::new();
                while steps.len() <= MAX_CHAIN_STEPS {
                    match list.next_element()? {
                        Some(step) => steps.push(step),
                        None => return Ok(Steps(steps)),
                    }
                }
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Steps(steps))
            }
        }
        deserializer.deserialize_seq(OfSteps)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Step<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfStep;
        impl<'de> Visitor<'de> for OfStep {
            type Value = Step<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a module reference or an Invocation")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Step<'de>, E> {
                text.parse().map(Step::Module).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Step<'de>, A::Error> {
                let call = Call::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Step::Call(Box::new(call)))
            }
        }
        deserializer.deserialize_any(OfStep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bodies;

    #[test]
    fn what_a_client_can_make_large_stays_where_it_came() {
        let body = r#"{"module":"a","input_base64":"eA==","args":[[],[]],"env":{"":"","":""}}"#;
        let call: Call<'_> = bodies::json(body.as_bytes()).unwrap();
        for part in [call.input_base64, call.args, call.env] {
            assert!(
                body.as_bytes()
                    .as_ptr_range()
                    .contains(&part.unwrap().get().as_ptr())
            );
        }
        let chain: Chain<'_> =
            bodies::json(br#"{"steps":["a",{"module":"b"},"c"],"input":[[],[]]}"#).unwrap();
        assert_eq!((chain.steps.0.len(), chain.input.unwrap().get()), (3, "[[],[]]"));
    }

    #[test]
    fn steps_are_kept_as_far_as_it_takes_to_see_that_there_are_too_many() {
        let body = serde_json::json!({ "steps": vec!["a"; 100_000] }).to_string();
        let chain: Chain<'_> = bodies::json(body.as_bytes()).unwrap();
        let sent: Value = serde_json::from_str(&serde_json::to_string(&chain).unwrap()).unwrap();
        assert_eq!(
            sent,
            serde_json::json!({ "steps": vec!["a"; MAX_CHAIN_STEPS + 1] })
        );
    }

    #[test]
    fn without_its_input_a_call_goes_on_as_it_was() {
        let body = r#"{"module":"a","function":"f","input":"h\u00e9","args":[1.50,null],"env":{"A":"1"},"wait_ms":7,"limits":{"fuel":9}}"#;
        let mut call: Call<'_> = bodies::json(body.as_bytes()).unwrap();
        assert_eq!(call.take_input().unwrap(), Input::Bytes("hé".into()));
        let rest = body.replace(r#""input":"h\u00e9","#, "");
        assert_eq!(serde_json::to_string(&call).unwrap(), rest);
    }

    #[test]
    fn input_is_text_or_json_or_base64_and_null_is_json() {
        let taken = |fields: &str| {
            let body = format!(r#"{{"module":"a"{fields}}}"#);
            let mut call: Call<'_> = bodies::json(body.as_bytes()).unwrap();
            call.take_input()
        };
        assert_eq!(taken("").unwrap(), Input::Absent);
        assert_eq!(taken(r#","input":null"#).unwrap(), Input::Bytes(b"null".into()));
        assert_eq!(
            taken(r#","input":{"a":1.0}"#).unwrap(),
            Input::Bytes(br#"{"a":1.0}"#.into())
        );
        assert_eq!(
            taken(r#","input_base64":"eHg=""#).unwrap(),
            Input::Bytes(b"xx".into())
        );
        assert_eq!(taken(r#","input_base64":null"#).unwrap(), Input::Absent);
        for wrong in [
            r#","input_base64":7"#,
            r#","input":"\ud800""#,
            r#","input":1,"input_base64":"""#,
        ] {
            assert!(taken(wrong).unwrap_err().message().contains("input"), "{wrong}");
        }
    }
}
