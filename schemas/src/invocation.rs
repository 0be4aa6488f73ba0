//! A request to run one guest, in its JSON form. Says nothing of how it travels.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error_code::ErrorCode;
use crate::limits::{self, Limits};
use crate::payload::PayloadRef;
use crate::reference::{FunctionName, Reference};

/// The body of `wess.invoke`. Unknown fields are refused by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Invocation {
    /// Which module.
    pub module: Reference,
    /// Which export; left out, the ABI's own entry or the module's only function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionName>,
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
    /// Input that was uploaded before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_ref: Option<PayloadRef>,
    /// Typed arguments; for commands, argv after argv[0].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<Value>>,
    /// What the guest sees as its environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Longest wait for a slot, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// Limits below the module's and the operator's.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
}

/// Keeps `"input": null` apart from no input at all.
pub(crate) fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// The one form of input that an invocation had.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// None at all.
    Absent,
    /// Bytes, as they reach the guest.
    Bytes(Vec<u8>),
    /// Bytes that lie in the object store.
    Stored(PayloadRef),
}

/// What is wrong with an invocation that parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidInvocation {
    /// More than one of the input fields.
    #[error("{0} and {1} exclude each other")]
    Exclusive(&'static str, &'static str),
    /// `input_base64` is not base64.
    #[error("input_base64 is not valid base64 with padding")]
    Base64,
    /// `wait_ms` beyond its bound.
    #[error("wait_ms is {0}, but must be at most {max}", max = limits::MAX_WAIT_MS)]
    Wait(u64),
    /// Too many arguments.
    #[error("args has {0} entries, but must have at most {max}", max = limits::MAX_ARGS)]
    Args(usize),
    /// Too much environment, or an entry no guest could read.
    #[error(
        "env must have at most {entries} entries and {bytes} bytes, with names that are not empty and hold no '=' or NUL",
        entries = limits::MAX_ENV_ENTRIES,
        bytes = limits::MAX_ENV_BYTES
    )]
    Env,
    /// Input larger than any guest may get.
    #[error("input is {0} bytes, but must be at most {max}", max = limits::MAX_INPUT_BYTES)]
    InputTooLarge(u64),
}

impl InvalidInvocation {
    /// The code that a caller is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::InputTooLarge(_) => ErrorCode::PayloadTooLarge,
            Self::Exclusive(..) | Self::Base64 | Self::Wait(_) | Self::Args(_) | Self::Env => {
                ErrorCode::InvalidRequest
            }
        }
    }
}

impl Invocation {
    /// A call of a module's own entry without input.
    pub fn of(module: Reference) -> Self {
        Self {
            module,
            function: None,
            input: None,
            input_base64: None,
            input_ref: None,
            args: None,
            env: BTreeMap::new(),
            wait_ms: None,
            limits: Limits::default(),
        }
    }

    /// Checks every bound that needs no module, and gives the one form of input.
    pub fn check_and_take_input(&mut self) -> Result<Input, InvalidInvocation> {
        check_wait(self.wait_ms)?;
        check_env(&self.env)?;
        if let Some(args) = self.args.as_ref().filter(|args| args.len() > limits::MAX_ARGS) {
            return Err(InvalidInvocation::Args(args.len()));
        }
        take_input(self.input.take(), self.input_base64.take(), self.input_ref.take())
    }
}

/// Checks `wait_ms` against its bound.
pub fn check_wait(wait_ms: Option<u64>) -> Result<(), InvalidInvocation> {
    match wait_ms {
        Some(wait) if wait > limits::MAX_WAIT_MS => Err(InvalidInvocation::Wait(wait)),
        _ => Ok(()),
    }
}

/// Checks that a guest's environment is small and readable.
pub fn check_env(env: &BTreeMap<String, String>) -> Result<(), InvalidInvocation> {
    let bytes: usize = env.iter().map(|(name, value)| name.len() + value.len()).sum();
    let readable = |(name, value): (&String, &String)| {
        !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
    };
    let small = env.len() <= limits::MAX_ENV_ENTRIES && bytes <= limits::MAX_ENV_BYTES;
    if small && env.iter().all(readable) {
        Ok(())
    } else {
        Err(InvalidInvocation::Env)
    }
}

/// Reduces the three input fields to the one that was given.
pub fn take_input(
    json: Option<Value>,
    base64: Option<String>,
    stored: Option<PayloadRef>,
) -> Result<Input, InvalidInvocation> {
    let input = match (json, base64, stored) {
        (None, None, None) => Input::Absent,
        (Some(Value::String(text)), None, None) => Input::Bytes(text.into_bytes()),
        (Some(value), None, None) => Input::Bytes(value.to_string().into_bytes()),
        (None, Some(text), None) => Input::Bytes(BASE64.decode(text).map_err(|_| InvalidInvocation::Base64)?),
        (None, None, Some(reference)) => Input::Stored(reference),
        (Some(_), Some(_), _) => return Err(InvalidInvocation::Exclusive("input", "input_base64")),
        (Some(_), _, Some(_)) => return Err(InvalidInvocation::Exclusive("input", "input_ref")),
        (_, Some(_), Some(_)) => return Err(InvalidInvocation::Exclusive("input_base64", "input_ref")),
    };
    let size = match &input {
        Input::Absent => 0,
        Input::Bytes(bytes) => bytes.len() as u64,
        Input::Stored(reference) => reference.size,
    };
    if size > limits::MAX_INPUT_BYTES {
        Err(InvalidInvocation::InputTooLarge(size))
    } else {
        Ok(input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(json: &str) -> Result<Invocation, serde_json::Error> {
        serde_json::from_str(json)
    }

    fn refusal(json: &str) -> String {
        parsed(json)
            .unwrap()
            .check_and_take_input()
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn unknown_fields_are_named_at_every_level() {
        for json in [
            r#"{"module":"a","inputs":1}"#,
            r#"{"module":"a","limits":{"inputs":1}}"#,
        ] {
            assert!(
                parsed(json).unwrap_err().to_string().contains("`inputs`"),
                "{json}"
            );
        }
    }

    #[test]
    fn text_reaches_the_guest_as_it_is_and_json_as_json_text() {
        let mut text = parsed(r#"{"module":"a","input":"hi"}"#).unwrap();
        assert_eq!(text.check_and_take_input().unwrap(), Input::Bytes(b"hi".into()));
        let mut null = parsed(r#"{"module":"a","input":null}"#).unwrap();
        assert_eq!(null.check_and_take_input().unwrap(), Input::Bytes(b"null".into()));
        let mut absent = parsed(r#"{"module":"a"}"#).unwrap();
        assert_eq!(absent.check_and_take_input().unwrap(), Input::Absent);
    }

    #[test]
    fn each_bound_is_refused_by_name() {
        assert!(refusal(r#"{"module":"a","input":1,"input_base64":""}"#).contains("exclude"));
        assert!(refusal(r#"{"module":"a","input_base64":"?"}"#).contains("base64"));
        assert!(refusal(r#"{"module":"a","wait_ms":120001}"#).contains("wait_ms"));
        assert!(refusal(r#"{"module":"a","env":{"A=B":"1"}}"#).contains("env"));
        assert!(
            refusal(&format!(
                r#"{{"module":"a","args":[{}1]}}"#,
                "1,".repeat(limits::MAX_ARGS)
            ))
            .contains("args")
        );
        assert_eq!(InvalidInvocation::Env.code(), ErrorCode::InvalidRequest);
        assert_eq!(
            InvalidInvocation::InputTooLarge(1).code(),
            ErrorCode::PayloadTooLarge
        );
        let size = limits::MAX_INPUT_BYTES as usize + 1;
        assert!(refusal(&format!(r#"{{"module":"a","input":"{}"}}"#, "x".repeat(size))).contains("input is"));
    }

    proptest! {
        #[test]
        fn no_body_makes_the_parser_panic(body in any_body()) {
            if let Ok(mut invocation) = parsed(&body) { let _ = invocation.check_and_take_input(); }
        }
    }

    /// Text, and objects with our fields, most of which hold what they should.
    fn any_body() -> impl Strategy<Value = String> {
        let fields = [
            ("module", r#""a"|"a@1"|"[a-z@0-9:-]{0,9}""#),
            ("function", r#""f"|"""#),
            ("input", r#"null|"x"|\{\}|\[1e9\]"#),
            ("input_base64", r#"null|"eA=="|"eA"|"\\u00e9""#),
            (
                "input_ref",
                r#"null|\{"object":"o","digest":"sha256:[0-9a-f]{64}","size":[0-9]{1,20}\}"#,
            ),
            ("args", r#"null|\[\]|\[1,"x",null\]|7"#),
            ("env", r#"\{\}|\{"A":"1"\}|\{"[A=]{0,2}":"\\u0000"\}"#),
            ("wait_ms", "[0-9]{1,20}|-1"),
            (
                "limits",
                r#"\{\}|\{"(timeout_ms|memory_mb|fuel|output_bytes)":[0-9]{1,20}\}"#,
            ),
        ];
        let field = |(name, value): (&'static str, &'static str)| {
            let given = value.prop_map(move |value| format!("\"{name}\":{value}"));
            proptest::option::weighted(if name == "module" { 0.9 } else { 0.3 }, given)
        };
        let object = fields.map(field).to_vec();
        let object = object.prop_map(|given| {
            format!(
                "{{{}}}",
                given.into_iter().flatten().collect::<Vec<_>>().join(",")
            )
        });
        prop_oneof![1 => "\\PC{0,200}", 4 => object]
    }
}
