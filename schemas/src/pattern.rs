//! Subjects with wildcards: which are well formed, and which cover which.

/// Whether a text is a subject that may be subscribed to: tokens between dots, `*` for one of them, `>` for all that
/// follow.
pub fn is_pattern(text: &str) -> bool {
    let mut tokens = text.split('.').peekable();
    while let Some(token) = tokens.next() {
        let is_last = tokens.peek().is_none();
        let well_formed = match token {
            "*" => true,
            ">" => is_last,
            token => {
                !token.is_empty()
                    && !token.contains(|c: char| c == '*' || c == '>' || c.is_whitespace() || c.is_control())
            }
        };
        if !well_formed {
            return false;
        }
    }
    true
}

/// Whether every message on `subject`, which may have wildcards of its own, also comes to who subscribes to `pattern`.
pub fn covers(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wildcards_are_whole_tokens_and_the_long_one_is_the_last() {
        for good in ["a", "a.b", "a.*", "*.a", "a.>", ">", "a.*.b.>", "ä.$x"] {
            assert!(is_pattern(good), "{good:?}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a.>.b", "a*", "a.b>", "a b", "a\n"] {
            assert!(!is_pattern(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_pattern_covers_what_it_would_be_sent() {
        for (pattern, subject) in [
            ("a.b", "a.b"),
            ("a.*", "a.b"),
            ("a.>", "a.b.c"),
            (">", "a"),
            ("*.b", "a.b"),
            ("a.>", "a.*"),
            ("a.*", "a.*"),
        ] {
            assert!(covers(pattern, subject), "{pattern} {subject}");
        }
        for (pattern, subject) in [
            ("a.b", "a"),
            ("a", "a.b"),
            ("a.*", "a"),
            ("a.>", "a"),
            ("a.*", "a.b.c"),
            ("a.*", "a.>"),
            ("*.b", "a.c"),
            ("a.b", "a.*"),
        ] {
            assert!(!covers(pattern, subject), "{pattern} {subject}");
        }
    }

    proptest! {
        #[test]
        fn what_is_a_pattern_covers_itself(text in "[a-c*>]{1,2}(\\.[a-c*>]{1,2}){0,4}|\\PC{0,20}") {
            if is_pattern(&text) { prop_assert!(covers(&text, &text)); }
            let _ = covers(&text, "a.b.c");
        }
    }
}
