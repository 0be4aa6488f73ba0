//! Which binding a run is for, and where its output goes: kept in a letter's headers, so that a redrive knows it too.
//!
//! Refuses what came through too many bindings.

use async_nats::HeaderMap;
use wess_schemas::subject::Subjects;
use wess_schemas::{BindingName, ErrorBody, ErrorCode, header};

use crate::queue::bad_request;

/// Through how many bindings a message may come: a ring that nobody saw ends there.
pub const MAX_HOPS: u32 = 16;

/// Where the run of a message comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Whose message it is.
    pub binding: BindingName,
    /// Where its output goes.
    pub publish_to: Option<String>,
    /// Through how many bindings it came before.
    pub hops: u32,
}

impl Origin {
    /// What headers say; `None` where the run is nobody's but its own.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        Some(Self {
            binding: headers.get(header::BINDING)?.as_str().parse().ok()?,
            publish_to: headers
                .get(header::PUBLISH_TO)
                .map(|subject| subject.as_str().to_owned()),
            hops: hops(headers),
        })
    }

    /// Says it in headers.
    pub fn write(&self, headers: &mut HeaderMap) {
        headers.insert(header::BINDING, self.binding.as_str());
        headers.insert(header::HOPS, self.hops.to_string());
        if let Some(subject) = &self.publish_to {
            headers.insert(header::PUBLISH_TO, subject.as_str());
        }
    }

    /// Refuses a run whose output could not go where it says: the letter may be older than the rule.
    pub fn check(&self, subjects: &Subjects) -> Result<(), ErrorBody> {
        check_hops(self.hops)?;
        match &self.publish_to {
            Some(subject) if !subjects.may_reply_to(subject) => {
                let text = format!("nothing may be published to {subject:?}");
                Err(ErrorBody::new(ErrorCode::Forbidden, text))
            }
            _ => Ok(()),
        }
    }
}

/// Through how many bindings a message with these headers came.
pub fn hops(headers: &HeaderMap) -> u32 {
    let said = headers.get(header::HOPS);
    said.and_then(|hops| hops.as_str().parse().ok()).unwrap_or(0)
}

/// Refuses one that came through too many.
pub fn check_hops(hops: u32) -> Result<(), ErrorBody> {
    match hops {
        MAX_HOPS.. => Err(bad_request(format!(
            "the message came through {MAX_HOPS} bindings: they seem to feed each other"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(publish_to: Option<&str>, hops: u32) -> Origin {
        Origin {
            binding: "orders".parse().unwrap(),
            publish_to: publish_to.map(Into::into),
            hops,
        }
    }

    #[test]
    fn headers_give_back_what_was_written_and_those_of_a_plain_job_nothing() {
        for written in [origin(Some("done"), 3), origin(None, 0)] {
            let mut headers = HeaderMap::new();
            written.write(&mut headers);
            assert_eq!(Origin::read(&headers), Some(written));
        }
        assert_eq!(Origin::read(&HeaderMap::new()), None);
    }

    #[test]
    fn no_output_goes_where_none_may_or_round_for_ever() {
        let subjects = Subjects::default();
        for good in [origin(None, 0), origin(Some("done"), MAX_HOPS - 1)] {
            assert!(good.check(&subjects).is_ok(), "{good:?}");
        }
        for (bad, code) in [
            (origin(Some("done"), MAX_HOPS), ErrorCode::InvalidRequest),
            (origin(Some("$KV.wess-modules.a"), 0), ErrorCode::Forbidden),
            (origin(Some("wess.queue.jobs.default.a"), 0), ErrorCode::Forbidden),
            (origin(Some("done.>"), 0), ErrorCode::Forbidden),
        ] {
            assert_eq!(bad.check(&subjects).unwrap_err().code(), code, "{bad:?}");
        }
    }
}
