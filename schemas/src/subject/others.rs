//! Which subjects of others may be published to or listened on.

use super::Subjects;
use crate::pattern::is_pattern;

impl Subjects {
    /// Whether a reply may be published to a subject that a caller named.
    ///
    /// NATS does not check a caller's permissions on its reply subject, so a reply to `$KV.wess-modules.hello`
    /// would forge a record: nothing that begins with `$` or our prefix, and nothing with wildcards.
    pub fn may_reply_to(&self, reply: &str) -> bool {
        // Asked of every call: folds without branches, which the compiler does for many bytes at once.
        let bytes = reply.as_bytes();
        let is_odd = |byte: u8| (byte <= b' ') | (byte == 0x7f) | (byte == b'*') | (byte == b'>');
        let has_odd = bytes.iter().fold(false, |has, byte| has | is_odd(*byte));
        let is_dot = |byte: &u8| *byte == b'.';
        let pairs = bytes.iter().zip(bytes.iter().skip(1));
        let has_gap = pairs.fold(false, |has, (one, next)| has | (is_dot(one) & is_dot(next)));
        let has_loose_end = bytes.first().is_none_or(is_dot) || bytes.last().is_some_and(is_dot);
        if has_odd || has_gap || has_loose_end || reply.starts_with('$') {
            return false;
        }
        let is_ours = |rest: &str| rest.is_empty() || rest.starts_with('.');
        let is_text = reply.is_ascii() || !reply.contains(|c: char| c.is_whitespace() || c.is_control());
        is_text && !reply.strip_prefix(&*self.prefix.0).is_some_and(is_ours)
    }

    /// Whether a binding may take messages from a subject, or from those that a pattern covers: not ours, not NATS's own,
    /// nobody's inbox, and nothing so wide that it could be one of them.
    pub fn may_bind(&self, pattern: &str) -> bool {
        let first = pattern.split('.').next().unwrap_or_default();
        is_pattern(pattern) && !first.starts_with(['$', '_', '*', '>']) && first != &*self.prefix.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects() -> Subjects {
        Subjects::default()
    }

    #[test]
    fn no_reply_goes_to_a_stream_a_key_or_our_own_prefix() {
        for good in ["_INBOX.abc.1", "my.app.replies", "wessex.a"] {
            assert!(subjects().may_reply_to(good), "{good} was refused");
        }
        let forged = [
            "$KV.wess-modules.default.hello",
            "$JS.API.STREAM.DELETE.X",
            "$O.x",
            "wess.invoke.upper",
            "wess",
            "a.*",
            "a.>",
            ">",
            "",
            "a..b",
            ".a",
            "a.",
            "a b",
            "a\r\nb",
            "a\u{7f}b",
            "a\u{2003}b",
            "a\u{85}b",
        ];
        for bad in forged {
            assert!(!subjects().may_reply_to(bad), "{bad:?} was accepted");
        }
        let other = Subjects::new("fn".parse().unwrap());
        assert!(other.may_reply_to("wess.x") && !other.may_reply_to("fn.x"));
    }

    #[test]
    fn nothing_of_ours_of_nats_or_of_an_inbox_may_be_bound() {
        for good in ["orders", "orders.*", "orders.>", "wessex.a", "a.*.b"] {
            assert!(subjects().may_bind(good), "{good} was refused");
        }
        let refused = [
            "wess.invoke.upper",
            "wess.>",
            "wess",
            ">",
            "*",
            "*.invoke",
            "$KV.wess-modules.>",
            "$JS.EVENT.>",
            "$SYS.>",
            "_INBOX.>",
            "_INBOX_mine.a",
            "_R_.a",
            "",
            "a..b",
            "a.>.b",
            "a b",
        ];
        for bad in refused {
            assert!(!subjects().may_bind(bad), "{bad:?} was accepted");
        }
        assert!(!Subjects::new("fn".parse().unwrap()).may_bind("fn.x"));
    }
}
