//! What the gateway reads of a line: the seed protocol's requests, taken apart in place.
//!
//! Invariant: an input stays where it came, in the line; only names and numbers become values of their own. What is not
//! read here, the worker judges.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use wess_schemas::invocation::InvalidInvocation;
use wess_schemas::limits::MAX_CHAIN_STEPS;
use wess_schemas::seed::{LoadBinary, RunConfig, UnloadBinary};
use wess_schemas::{ErrorBody, Limits, ModuleId};

use crate::problem::Problem;

/// A command.
#[derive(Debug)]
pub enum Request {
    /// `LoadBinary`
    Load(LoadBinary),
    /// `Execute`
    Execute(Execute),
    /// `ExecuteChain`
    Chain(Chain),
    /// `ListBinaries`
    List,
    /// `UnloadBinary`
    Unload(UnloadBinary),
}

/// The commands' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub enum Command {
    LoadBinary,
    Execute,
    ExecuteChain,
    ListBinaries,
    UnloadBinary,
}

/// One run.
#[derive(Debug)]
pub struct Execute {
    pub binary_id: ModuleId,
    pub input: Input,
    pub limits: Limits,
}

/// Several.
#[derive(Debug)]
pub struct Chain {
    pub binary_ids: Vec<ModuleId>,
    pub input: Input,
    pub limits: Limits,
}

/// An input as it stands in its line.
#[derive(Debug, PartialEq)]
pub enum Input {
    /// None at all.
    Absent,
    /// A JSON value.
    Json(Bytes),
    /// A JSON string of base64.
    Base64(Bytes),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    command: Command,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExecutePayload<'a> {
    binary_id: ModuleId,
    #[serde(borrow, default, deserialize_with = "present")]
    input: Option<&'a RawValue>,
    #[serde(borrow, default)]
    input_base64: Option<&'a RawValue>,
    #[serde(default)]
    config: Option<RunConfig>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChainPayload<'a> {
    binary_ids: Vec<ModuleId>,
    #[serde(borrow, default, deserialize_with = "present")]
    input: Option<&'a RawValue>,
    #[serde(borrow, default)]
    input_base64: Option<&'a RawValue>,
    #[serde(default)]
    config: Option<RunConfig>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// Keeps `null` apart from nothing at all.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

impl Command {
    /// Its name, as clients write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LoadBinary => "LoadBinary",
            Self::Execute => "Execute",
            Self::ExecuteChain => "ExecuteChain",
            Self::ListBinaries => "ListBinaries",
            Self::UnloadBinary => "UnloadBinary",
        }
    }
}

impl Request {
    /// Reads a line.
    pub fn parse(line: &Bytes) -> Result<Self, Problem> {
        let text = std::str::from_utf8(line)
            .map_err(|error| Problem::invalid(format!("the line is not UTF-8: {error}")))?;
        let Envelope { command, payload } = serde_json::from_str(text)
            .map_err(|error| Problem::invalid(format!("the line is not a request in JSON: {error}")))?;
        match command {
            Command::LoadBinary => owned(command, payload).map(Self::Load),
            Command::UnloadBinary => owned(command, payload).map(Self::Unload),
            Command::ListBinaries => match payload {
                None => Ok(Self::List),
                payload => owned::<Option<Nothing>>(command, payload).map(|_| Self::List),
            },
            Command::Execute => {
                let payload: ExecutePayload<'_> = read(command, payload)?;
                Ok(Self::Execute(Execute {
                    binary_id: payload.binary_id,
                    input: Input::of(line, payload.input, payload.input_base64)?,
                    limits: limits(payload.config),
                }))
            }
            Command::ExecuteChain => {
                let payload: ChainPayload<'_> = read(command, payload)?;
                let steps = payload.binary_ids.len();
                if !(1..=MAX_CHAIN_STEPS).contains(&steps) {
                    let message =
                        format!("binary_ids has {steps} entries, but must have 1 to {MAX_CHAIN_STEPS}");
                    return Err(Problem::invalid(message));
                }
                Ok(Self::Chain(Chain {
                    binary_ids: payload.binary_ids,
                    input: Input::of(line, payload.input, payload.input_base64)?,
                    limits: limits(payload.config),
                }))
            }
        }
    }

    /// Which command it is.
    pub fn command(&self) -> Command {
        match self {
            Self::Load(_) => Command::LoadBinary,
            Self::Execute(_) => Command::Execute,
            Self::Chain(_) => Command::ExecuteChain,
            Self::List => Command::ListBinaries,
            Self::Unload(_) => Command::UnloadBinary,
        }
    }
}

fn read<'a, T: Deserialize<'a>>(command: Command, payload: Option<&'a RawValue>) -> Result<T, Problem> {
    let name = command.as_str();
    let Some(payload) = payload else {
        return Err(Problem::invalid(format!("{name} needs a payload")));
    };
    serde_json::from_str(payload.get())
        .map_err(|error| Problem::invalid(format!("the payload of {name}: {error}")))
}

fn owned<T: DeserializeOwned>(command: Command, payload: Option<&RawValue>) -> Result<T, Problem> {
    read(command, payload)
}

fn limits(config: Option<RunConfig>) -> Limits {
    let config = config.unwrap_or_default();
    Limits {
        timeout_ms: config.timeout_ms,
        memory_mb: config.memory_limit_mb,
        ..Limits::default()
    }
}

impl Input {
    fn of(line: &Bytes, json: Option<&RawValue>, base64: Option<&RawValue>) -> Result<Self, Problem> {
        let base64 = base64.filter(|raw| raw.get() != "null");
        let place = |raw: &RawValue| line.slice_ref(raw.get().as_bytes());
        match (json, base64) {
            (None, None) => Ok(Self::Absent),
            (Some(json), None) => Ok(Self::Json(place(json))),
            (None, Some(base64)) => Ok(Self::Base64(place(base64))),
            (Some(_), Some(_)) => Err(misfit(InvalidInvocation::Exclusive("input", "input_base64"))),
        }
    }

    /// As the guest gets it: text as it is, any other JSON as it was written.
    pub fn into_bytes(self) -> Result<Bytes, Problem> {
        match self {
            Self::Absent => Ok(Bytes::new()),
            Self::Json(raw) if raw.starts_with(b"\"") => text("input", &raw),
            Self::Json(raw) => Ok(raw),
            Self::Base64(raw) => {
                let text = text("input_base64", &raw)?;
                let bytes = BASE64.decode(text);
                bytes
                    .map(Bytes::from)
                    .map_err(|_| misfit(InvalidInvocation::Base64))
            }
        }
    }

    /// The field of a chain's request that it stands in.
    pub fn write(&self, body: &mut Vec<u8>) {
        let (field, raw) = match self {
            Self::Absent => return,
            Self::Json(raw) => (",\"input\":", raw),
            Self::Base64(raw) => (",\"input_base64\":", raw),
        };
        body.extend_from_slice(field.as_bytes());
        body.extend_from_slice(raw);
    }
}

impl Chain {
    /// As the worker is asked.
    pub fn body(&self) -> Bytes {
        #[derive(Serialize)]
        struct Step<'a> {
            module: &'a ModuleId,
            limits: &'a Limits,
        }
        let mut body = b"{\"steps\":[".to_vec();
        for (at, module) in self.binary_ids.iter().enumerate() {
            if at > 0 {
                body.push(b',');
            }
            let limits = &self.limits;
            // Ids and numbers have no way to fail at being written.
            let _ = match limits.is_empty() {
                true => serde_json::to_writer(&mut body, module),
                false => serde_json::to_writer(&mut body, &Step { module, limits }),
            };
        }
        body.push(b']');
        self.input.write(&mut body);
        body.push(b'}');
        body.into()
    }
}

/// A JSON string's text: in place where nothing in it is escaped.
fn text(field: &str, raw: &Bytes) -> Result<Bytes, Problem> {
    let inner = raw
        .len()
        .checked_sub(1)
        .filter(|end| *end > 0 && raw.starts_with(b"\""));
    if let Some(end) = inner
        && memchr::memchr(b'\\', raw).is_none()
    {
        return Ok(raw.slice(1..end));
    }
    let text: Result<Cow<'_, str>, _> = serde_json::from_slice(raw);
    text.map(|text| Bytes::from(text.into_owned()))
        .map_err(|error| Problem::invalid(format!("{field}: {error}")))
}

fn misfit(why: InvalidInvocation) -> Problem {
    ErrorBody::new(why.code(), why.to_string()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use wess_schemas::Invocation;
    use wess_schemas::chain::ChainRequest;
    use wess_schemas::seed::SeedRequest;

    const ID: &str = "0193cf4e-7d2b-7c3a-9e3f-2b1f6a5d4c3b";

    fn parse(line: &str) -> Result<Request, Problem> {
        Request::parse(&Bytes::from(line.to_owned()))
    }

    fn refusal(line: &str) -> String {
        parse(line).unwrap_err().message().to_owned()
    }

    fn input(fields: &str) -> Result<Bytes, Problem> {
        let line = format!(r#"{{"type":"Execute","payload":{{"binary_id":"{ID}"{fields}}}}}"#);
        match parse(&line)? {
            Request::Execute(execute) => execute.input.into_bytes(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_the_contract_prints_is_read_whatever_the_order_of_its_fields() {
        let id: ModuleId = ID.parse().unwrap();
        let (path, config) = ("/a".to_owned(), Some(RunConfig::default()));
        let requests = [
            SeedRequest::LoadBinary(LoadBinary { path }),
            SeedRequest::Execute(wess_schemas::seed::Execute {
                binary_id: id,
                input: Some("x".into()),
                input_base64: None,
                config,
            }),
            SeedRequest::ExecuteChain(wess_schemas::seed::ExecuteChain {
                binary_ids: vec![id],
                input: None,
                input_base64: Some("eA==".into()),
                config,
            }),
            SeedRequest::ListBinaries,
            SeedRequest::UnloadBinary(UnloadBinary { binary_id: id }),
        ];
        for request in requests {
            let printed = serde_json::to_value(&request).unwrap();
            let name = printed["type"].as_str().unwrap();
            let payload = printed.get("payload").cloned().unwrap_or(Value::Null);
            for line in [
                printed.to_string(),
                format!(r#"{{"payload":{payload},"type":"{name}"}}"#),
            ] {
                assert_eq!(parse(&line).unwrap().command().as_str(), name, "{line}");
            }
        }
        for payload in ["{}", "null"] {
            parse(&format!(r#"{{"type":"ListBinaries","payload":{payload}}}"#)).unwrap();
        }
    }

    #[test]
    fn what_is_unknown_or_missing_is_named() {
        let id = format!(r#""binary_id":"{ID}""#);
        for (line, named) in [
            (r#"{"type":"Format","payload":{}}"#.into(), "`Format`"),
            (r#"{"type":"ListBinaries","colour":1}"#.into(), "`colour`"),
            (
                r#"{"type":"ListBinaries","payload":{"colour":1}}"#.into(),
                "`colour`",
            ),
            (r#"{"type":"LoadBinary"}"#.into(), "LoadBinary needs a payload"),
            (r#"{"type":"LoadBinary","payload":{}}"#.into(), "`path`"),
            (r#"{"payload":{}}"#.into(), "`type`"),
            (
                format!(r#"{{"type":"Execute","payload":{{{id},"colour":1}}}}"#),
                "`colour`",
            ),
            (
                format!(r#"{{"type":"Execute","payload":{{{id},"config":{{"fuel":1}}}}}}"#),
                "`fuel`",
            ),
            (
                r#"{"type":"Execute","payload":{"binary_id":"upper"}}"#.into(),
                "UUID",
            ),
            (
                r#"{"type":"ExecuteChain","payload":{"binary_ids":[]}}"#.into(),
                "0 entries",
            ),
            ("[]".into(), "not a request"),
            ("{".into(), "not a request"),
            ("hello".into(), "line 1 column 1"),
        ] {
            let line: String = line;
            assert!(refusal(&line).contains(named), "{line}: {}", refusal(&line));
        }
        let eleven = vec![ID; 11];
        let line = json!({"type": "ExecuteChain", "payload": {"binary_ids": eleven}}).to_string();
        assert!(refusal(&line).contains("11 entries"));
        let not_text = Request::parse(&Bytes::from_static(b"{\"type\":\"\xff\"}")).unwrap_err();
        assert!(not_text.message().contains("UTF-8"), "{}", not_text.message());
    }

    #[test]
    fn text_reaches_the_guest_as_it_is_and_json_as_it_was_written() {
        for (fields, expected) in [
            ("", ""),
            (r#","input":"""#, ""),
            (r#","input":"hé""#, "hé"),
            (r#","input":"h\u00e9\n\"""#, "hé\n\""),
            (r#","input":null"#, "null"),
            (r#","input":{"a" : 1.0}"#, r#"{"a" : 1.0}"#),
            (r#","input_base64":"eHg=""#, "xx"),
            (r#","input_base64":null"#, ""),
        ] {
            assert_eq!(input(fields).unwrap(), expected, "{fields}");
        }
        for wrong in [
            r#","input":"\ud800""#,
            r#","input_base64":7"#,
            r#","input_base64":"?""#,
            r#","input":1,"input_base64":"""#,
        ] {
            assert!(input(wrong).unwrap_err().message().contains("input"), "{wrong}");
        }
    }

    #[test]
    fn an_input_without_escapes_stays_where_it_came() {
        let line = Bytes::from(format!(
            r#"{{"type":"Execute","payload":{{"binary_id":"{ID}","input":"hello"}}}}"#
        ));
        let Request::Execute(execute) = Request::parse(&line).unwrap() else {
            panic!("another command");
        };
        let input = execute.input.into_bytes().unwrap();
        assert_eq!(input, "hello");
        assert!(line.as_ptr_range().contains(&input.as_ptr()));
    }

    #[test]
    fn a_chain_is_asked_in_the_contracts_form() {
        for (config, input) in [
            ("", r#","input":{"a":1.0}"#),
            (
                r#","config":{"memory_limit_mb":8,"timeout_ms":5}"#,
                r#","input_base64":"eA==""#,
            ),
            (r#","config":{}"#, ""),
        ] {
            let payload = format!(r#"{{"binary_ids":["{ID}","{ID}"]{input}{config}}}"#);
            let Request::Chain(chain) =
                parse(&format!(r#"{{"type":"ExecuteChain","payload":{payload}}}"#)).unwrap()
            else {
                panic!("another command");
            };
            let asked: ChainRequest = serde_json::from_slice(&chain.body()).unwrap();
            let given: Value = serde_json::from_str(&payload).unwrap();
            assert_eq!(asked.input.as_ref(), given.get("input"));
            assert_eq!(asked.input_base64.as_deref(), given["input_base64"].as_str());
            assert_eq!(asked.steps.len(), 2);
            for step in asked.steps {
                let call = Invocation::from(step);
                assert_eq!(call.limits.memory_mb, given["config"]["memory_limit_mb"].as_u64());
                assert_eq!(call.limits.timeout_ms, given["config"]["timeout_ms"].as_u64());
            }
        }
    }
}
