//! Every NATS header of ours, named and parsed here and nowhere else.

use std::str::FromStr;

use serde::Serialize;

use crate::id::{InvalidName, JobId};
use crate::limits::Limits;
use crate::payload::PayloadRef;

/// In, on `wess.store`: the name to store under.
pub const MODULE: &str = "Wess-Module";
/// In: longest run, in milliseconds.
pub const TIMEOUT_MS: &str = "Wess-Timeout-Ms";
/// In: longest wait for a slot, in milliseconds.
pub const WAIT_MS: &str = "Wess-Wait-Ms";
/// In: instruction budget.
pub const FUEL: &str = "Wess-Fuel";
/// In: most linear memory, in MiB.
pub const MEMORY_MB: &str = "Wess-Memory-Mb";
/// In: any value asks for all facts of a raw call; any other header but [`TRACEPARENT`] and [`INPUT_REF`] asks for them too.
pub const FACTS: &str = "Wess-Facts";
/// In, on stores of raw bytes: the module's settings, as JSON.
pub const SETTINGS: &str = "Wess-Settings";
/// In: where a large input lies, as JSON.
pub const INPUT_REF: &str = "Wess-Input-Ref";
/// In: idempotency key.
pub const MSG_ID: &str = "Nats-Msg-Id";
/// In and on: W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// Out: media type of the payload.
pub const CONTENT_TYPE: &str = "Content-Type";
/// Out: the request's id.
pub const JOB_ID: &str = "Wess-Job-Id";
/// Out: which bytes ran.
pub const MODULE_DIGEST: &str = "Wess-Module-Digest";
/// Out: the guest's own verdict.
pub const EXIT_CODE: &str = "Wess-Exit-Code";
/// Out: wait for a slot, in microseconds.
pub const QUEUE_US: &str = "Wess-Queue-Us";
/// Out: the guest's run, in microseconds.
pub const RUN_US: &str = "Wess-Run-Us";
/// Out: fuel used.
pub const FUEL_USED: &str = "Wess-Fuel-Used";
/// Out: whether the module had to be loaded first.
pub const COLD: &str = "Wess-Cold";
/// Out: where a large output lies, as JSON.
pub const OUTPUT_REF: &str = "Wess-Output-Ref";
/// Out, on guest logs: which version of the module.
pub const MODULE_VERSION: &str = "Wess-Module-Version";
/// Out, on guest logs: `log` or `stderr`.
pub const LOG_STREAM: &str = "Wess-Log-Stream";
/// On queued calls: where the caller waits for the reply.
pub const REPLY_TO: &str = "Wess-Reply-To";
/// On queued calls: the subject that was asked.
pub const SUBJECT: &str = "Wess-Subject";
/// On queued calls: until when the call may wait, in milliseconds since 1970.
pub const DEADLINE_MS: &str = "Wess-Deadline-Ms";
/// On queued calls: begins the names of the caller's own headers, none of which NATS shall take for its own.
pub const CALLER_PREFIX: &str = "Wess-Caller-";
/// On jobs: SHA-256 of the request as it was submitted.
pub const REQUEST_DIGEST: &str = "Wess-Request-Digest";
/// On dead letters: why.
pub const REASON: &str = "Wess-Reason";
/// On dead letters: how often a guest ended.
pub const ATTEMPTS: &str = "Wess-Attempts";
/// On dead letters: how often NATS handed the job over.
pub const DELIVERIES: &str = "Wess-Deliveries";
/// On dead letters: when the job was submitted, in RFC 3339.
pub const SUBMITTED: &str = "Wess-Submitted";
/// On dead letters: how the last attempt ended, as an error in JSON.
pub const LAST_ERROR: &str = "Wess-Last-Error";
/// On what bindings publish, on their dead letters, and on jobs that were such a letter: which binding.
pub const BINDING: &str = "Wess-Binding";
/// On the same: through how many bindings it came.
pub const HOPS: &str = "Wess-Hops";
/// On dead letters of bindings, and on jobs that were one: where the output goes.
pub const PUBLISH_TO: &str = "Wess-Publish-To";
/// On webhooks: when it was signed, and the signature.
pub const SIGNATURE: &str = "Wess-Signature";
/// In, on HTTP requests: the method.
pub const HTTP_METHOD: &str = "Wess-Http-Method";
/// In, on HTTP requests: path and query.
pub const HTTP_PATH: &str = "Wess-Http-Path";
/// In, on HTTP requests: the host, and its port where it is not the usual one.
pub const HTTP_AUTHORITY: &str = "Wess-Http-Authority";
/// In, on HTTP requests: `http` or `https`.
pub const HTTP_SCHEME: &str = "Wess-Http-Scheme";
/// On HTTP requests and responses: the header lines, as pairs in JSON.
pub const HTTP_HEADERS: &str = "Wess-Http-Headers";
/// Out, on HTTP responses: the status.
pub const HTTP_STATUS: &str = "Wess-Http-Status";
/// On HTTP requests and responses, and the last frame of a body: the trailers, as pairs in JSON.
pub const HTTP_TRAILERS: &str = "Wess-Http-Trailers";
/// On HTTP requests and responses: `stream` when the body follows in frames.
pub const HTTP_BODY: &str = "Wess-Http-Body";
/// In, on HTTP requests: how many bytes of frames the caller takes before it grants more; without it, none.
pub const HTTP_WINDOW: &str = "Wess-Http-Window";
/// On frames: what kind it is.
pub const HTTP_FRAME: &str = "Wess-Http-Frame";
/// On frames: which one of its body it is, counted from 0.
pub const HTTP_SEQ: &str = "Wess-Http-Seq";
/// On frames: how many bytes more may be sent.
pub const HTTP_CREDIT: &str = "Wess-Http-Credit";
/// Out, on errors: the message for people (NATS Services convention).
pub const SERVICE_ERROR: &str = "Nats-Service-Error";
/// Out, on errors: the HTTP status (NATS Services convention).
pub const SERVICE_ERROR_CODE: &str = "Nats-Service-Error-Code";

/// What headers may say of a raw call.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CallHeaders {
    /// Limits below the module's and the operator's.
    pub limits: Limits,
    /// Longest wait for a slot, in milliseconds.
    pub wait_ms: Option<u64>,
    /// Where the input lies, when not in the payload.
    pub input_ref: Option<PayloadRef>,
    /// The caller's idempotency key.
    pub job_id: Option<JobId>,
}

/// A header that does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHeader {
    /// Not a decimal number.
    #[error("header {0} is not a whole number")]
    Number(&'static str),
    /// Not a payload reference.
    #[error("header {name} is not a payload reference in JSON", name = INPUT_REF)]
    PayloadRef,
    /// Not an idempotency key.
    #[error("header {name}: {0}", name = MSG_ID)]
    JobId(InvalidName),
}

impl CallHeaders {
    /// Reads them from whatever holds the headers.
    pub fn read<'a>(get: impl Fn(&'static str) -> Option<&'a str>) -> Result<Self, InvalidHeader> {
        let number = |name| {
            get(name)
                .map(|text| u64::from_str(text).map_err(|_| InvalidHeader::Number(name)))
                .transpose()
        };
        let limits = Limits {
            timeout_ms: number(TIMEOUT_MS)?,
            memory_mb: number(MEMORY_MB)?,
            fuel: number(FUEL)?,
            output_bytes: None,
        };
        let input_ref = get(INPUT_REF)
            .map(serde_json::from_str)
            .transpose()
            .map_err(|_| InvalidHeader::PayloadRef)?;
        let job_id = get(MSG_ID)
            .map(JobId::from_str)
            .transpose()
            .map_err(InvalidHeader::JobId)?;
        Ok(Self {
            limits,
            wait_ms: number(WAIT_MS)?,
            input_ref,
            job_id,
        })
    }
}

/// A text made fit for a header value: one line, printable, at most 500 characters.
pub fn header_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(500)
        .collect()
}

/// A value as JSON in one line of ASCII, as headers take it.
pub fn json_line(value: &impl Serialize) -> String {
    // What this is for are messages of ours, which always serialize.
    let text = serde_json::to_string(value).unwrap_or_default();
    let mut line = String::with_capacity(text.len());
    for unit in text.chars() {
        if unit.is_ascii() {
            line.push(unit);
        } else {
            for half in unit.encode_utf16(&mut [0; 2]) {
                line.push_str(&format!("\\u{half:04x}"));
            }
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn json_in_a_header_is_ascii_and_says_the_same() {
        let text = "café \u{1f980}\n";
        let line = json_line(&text);
        assert!(line.is_ascii() && !line.contains('\n'), "{line}");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
    }

    #[test]
    fn absent_headers_ask_for_nothing_and_bad_ones_are_named() {
        assert_eq!(CallHeaders::read(|_| None).unwrap(), CallHeaders::default());
        for name in [TIMEOUT_MS, MEMORY_MB, FUEL, WAIT_MS, INPUT_REF, MSG_ID] {
            let refused = CallHeaders::read(|asked| (asked == name).then_some("-1 ")).unwrap_err();
            assert!(refused.to_string().contains(name), "{refused}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_the_parser_panic(value in "\\PC{0,60}|[0-9]{1,30}") {
            let _ = CallHeaders::read(|_| Some(&value));
            prop_assert!(!header_line(&value).contains(char::is_control));
        }
    }
}
