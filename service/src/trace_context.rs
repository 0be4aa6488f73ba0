//! W3C trace context: which trace a request belongs to, passed on in the header `traceparent`.
//!
//! Callers write that header: what does not parse counts as absent, and what does is 25 bytes.

use std::fmt;
use std::str::FromStr;

use async_nats::HeaderMap;
use uuid::Uuid;
use wess_schemas::header::TRACEPARENT;

/// A position in a trace. Printed in version 00 of <https://www.w3.org/TR/trace-context/>.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace_id: u128,
    parent_id: u64,
    flags: u8,
}

/// Not a `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a W3C traceparent")]
pub struct InvalidTraceParent;

impl TraceParent {
    const SAMPLED: u8 = 1;

    /// Begins a trace.
    pub fn generate() -> Self {
        // A UUIDv4 fixes six of its bits, never all: it is not zero, which the standard forbids.
        Self {
            trace_id: Uuid::new_v4().as_u128(),
            parent_id: random_id(),
            flags: Self::SAMPLED,
        }
    }

    /// A step within the same trace.
    #[must_use]
    pub fn child(self) -> Self {
        Self {
            parent_id: random_id(),
            ..self
        }
    }

    /// The trace's id, as it is shown in logs.
    pub fn trace_id(self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// Where the caller is, if it said so properly.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        headers.get(TRACEPARENT)?.as_str().parse().ok()
    }

    /// Says in `headers` where we are, replacing what they said.
    pub fn write(self, headers: &mut HeaderMap) {
        headers.insert(TRACEPARENT, self.to_string());
    }
}

fn random_id() -> u64 {
    // The low half of a UUIDv4 begins with the variant bits 10: it is not zero either.
    Uuid::new_v4().as_u64_pair().1
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            self.trace_id, self.parent_id, self.flags
        )
    }
}

impl FromStr for TraceParent {
    type Err = InvalidTraceParent;

    /// Later versions may add fields at the end; those are ignored, as the standard asks.
    fn from_str(text: &str) -> Result<Self, InvalidTraceParent> {
        let mut fields = text.splitn(5, '-');
        let mut field = |digits| {
            fields
                .next()
                .and_then(|field| hex(field, digits))
                .ok_or(InvalidTraceParent)
        };
        let (version, trace_id, parent_id, flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
        let surplus = fields.next().is_some();
        if version == 0xff || (version == 0 && surplus) || trace_id == 0 || parent_id == 0 {
            return Err(InvalidTraceParent);
        }
        Ok(Self {
            trace_id,
            parent_id: parent_id as u64,
            flags: flags as u8,
        })
    }
}

/// Exactly so many lower-case hex digits.
fn hex(field: &str, digits: usize) -> Option<u128> {
    let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if field.len() != digits || !field.bytes().all(lower_hex) {
        return None;
    }
    u128::from_str_radix(field, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXAMPLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_child_stays_in_its_trace_under_a_new_id() {
        let parent: TraceParent = EXAMPLE.parse().unwrap();
        let child = parent.child();
        assert_eq!(child.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        assert_ne!(child.parent_id, parent.parent_id);
        assert_eq!(child.flags, parent.flags);
    }

    #[test]
    fn a_later_version_may_say_more_and_the_first_may_not() {
        assert_eq!(
            format!("01{}-more-to-come", &EXAMPLE[2..])
                .parse::<TraceParent>()
                .unwrap(),
            EXAMPLE.parse().unwrap()
        );
        assert!(format!("{EXAMPLE}-more").parse::<TraceParent>().is_err());
        assert!(format!("ff{}", &EXAMPLE[2..]).parse::<TraceParent>().is_err());
    }

    #[test]
    fn zero_ids_upper_case_signs_and_wrong_lengths_are_refused() {
        let zero_trace = EXAMPLE.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32));
        let zero_parent = EXAMPLE.replace("b7ad6b7169203331", &"0".repeat(16));
        let sign = EXAMPLE.replace("b7ad", "+7ad");
        let long = EXAMPLE.replace("b7ad", "b7adb");
        for bad in [
            "",
            "00",
            &zero_trace,
            &zero_parent,
            &sign,
            &long,
            &EXAMPLE.to_uppercase(),
            &EXAMPLE[..54],
        ] {
            assert_eq!(bad.parse::<TraceParent>(), Err(InvalidTraceParent), "{bad}");
        }
    }

    #[test]
    fn a_header_that_does_not_parse_counts_as_absent() {
        let mut headers = HeaderMap::new();
        assert_eq!(TraceParent::of(&headers), None);
        headers.insert(TRACEPARENT, "00-nonsense");
        assert_eq!(TraceParent::of(&headers), None);
        let trace = TraceParent::generate();
        trace.write(&mut headers);
        assert_eq!(TraceParent::of(&headers), Some(trace));
    }

    proptest! {
        #[test]
        fn what_parses_prints_back_in_the_first_version(text in "\\PC{0,60}|0[0-9]-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?") {
            if let Ok(trace) = text.parse::<TraceParent>() {
                prop_assert_eq!(&trace.to_string()[2..], &text[2..55]);
                prop_assert_eq!(trace.to_string().parse(), Ok(trace));
            }
        }
    }
}
