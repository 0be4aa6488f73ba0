//! A module's secrets in the clear: opened by this worker's keys when a call first needs them, kept in memory alone.
//!
//! Invariant: no text of ours holds one; what a guest writes into its log is masked.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use wess_schemas::secret::SealedSecret;
use wess_schemas::settings::Settings;
use wess_schemas::{ErrorBody, ErrorCode, ModuleName};
use wess_service::secrets::{OpenError, OpeningKeys};

/// Shorter ones would make a log unreadable, and are no secrets worth the name.
const LEAST_MASKED_BYTES: usize = 4;
/// What stands in their place.
const MASK: &str = "[secret]";

/// The secrets of one version.
#[derive(Clone, Default)]
pub struct Secrets(OnceLock<Result<Opened, ErrorBody>>);

#[derive(Clone)]
struct Opened {
    values: BTreeMap<String, String>,
    /// Finds each of them, and each line of those that have several; none if there is nothing to find.
    masked: Option<AhoCorasick>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

/// They are what the settings say, sealed.
impl PartialEq for Secrets {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Secrets {
    /// Every secret of a module, by name.
    pub fn open(
        &self,
        keys: &OpeningKeys,
        module: Option<&ModuleName>,
        settings: &Settings,
    ) -> Result<&BTreeMap<String, String>, &ErrorBody> {
        let open = || match module {
            Some(module) => open(keys, module, settings).map(Opened::new),
            None => Ok(Opened::new(BTreeMap::new())),
        };
        let opened = self.0.get_or_init(open).as_ref();
        opened.map(|opened| &opened.values)
    }

    /// The first `most` bytes of a text without them, if they have any. What begins there is found wherever it ends.
    pub fn masked(&self, text: &[u8], most: usize) -> Option<Vec<u8>> {
        let Some(Ok(Opened {
            masked: Some(finder), ..
        })) = self.0.get()
        else {
            return None;
        };
        let found = found(finder, text, most);
        if found.is_empty() {
            return None;
        }
        let (mut masked, mut at) = (Vec::new(), 0);
        for (start, end) in found {
            masked.extend_from_slice(&text[at..start]);
            masked.extend_from_slice(MASK.as_bytes());
            at = end;
        }
        masked.extend_from_slice(text.get(at..text.len().min(most)).unwrap_or_default());
        Some(masked)
    }

    /// How far past its end a part of a text has to be known for what begins in it to be found.
    pub fn longest_bytes(&self) -> usize {
        match self.0.get() {
            Some(Ok(Opened {
                masked: Some(finder), ..
            })) => finder.max_pattern_len(),
            _ => 0,
        }
    }
}

#[cfg(test)]
impl Secrets {
    /// Those of a test, opened already.
    pub fn known(values: &[(&str, &str)]) -> Self {
        let values = values
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()));
        Self(OnceLock::from(Ok(Opened::new(values.collect()))))
    }
}

impl Opened {
    fn new(values: BTreeMap<String, String>) -> Self {
        let parts = values.values().flat_map(|value| {
            let lines = value.contains('\n').then(|| value.lines().map(str::trim));
            std::iter::once(value.as_str()).chain(lines.into_iter().flatten())
        });
        let parts: Vec<&str> = parts.filter(|part| part.len() >= LEAST_MASKED_BYTES).collect();
        // Small before fast: a module may have 128 KiB of them, and a table of transitions would take megabytes.
        let finder = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(&parts)
            .expect("secrets are far shorter than what a finder holds");
        Self {
            masked: (!parts.is_empty()).then_some(finder),
            values,
        }
    }
}

/// Where secrets are that begin in the first `most` bytes, in order; those that overlap are one.
fn found(finder: &AhoCorasick, text: &[u8], most: usize) -> Vec<(usize, usize)> {
    let known = text.len().min(most.saturating_add(finder.max_pattern_len()));
    let mut found: Vec<(usize, usize)> = finder
        .find_overlapping_iter(&text[..known])
        .map(|found| (found.start(), found.end()))
        .filter(|(start, _)| *start < most)
        .collect();
    found.sort_unstable();
    found.dedup_by(|next, before| {
        let overlap = next.0 < before.1;
        if overlap {
            before.1 = before.1.max(next.1);
        }
        overlap
    });
    found
}

/// Opens all of them, or says which one does not open and why.
pub fn open(
    keys: &OpeningKeys,
    module: &ModuleName,
    settings: &Settings,
) -> Result<BTreeMap<String, String>, ErrorBody> {
    let open = |(name, sealed): (&String, &SealedSecret)| match keys.open(module, name, sealed) {
        Ok(value) => Ok((name.clone(), value)),
        Err(error) => Err(closed(name, error)),
    };
    settings.secrets.iter().map(open).collect()
}

fn closed(name: &str, error: OpenError) -> ErrorBody {
    let code = match error {
        // Another worker may have them.
        OpenError::NoKeys => ErrorCode::Unavailable,
        OpenError::Closed | OpenError::NotForHere => ErrorCode::InvalidRequest,
    };
    ErrorBody::new(code, format!("the module's secret {name} does not open: {error}"))
}

#[cfg(test)]
mod tests {
    use wess_service::secrets::SealingKey;

    use super::*;

    fn opened(values: &[(&str, &str)]) -> Secrets {
        let keys = OpeningKeys::parse(&OpeningKeys::new_seed().unwrap()).unwrap();
        let (key, module) = (
            SealingKey::parse(&keys.sealing_key().unwrap()).unwrap(),
            "api".parse().unwrap(),
        );
        let seal = |(name, value): &(&str, &str)| (name.to_string(), key.seal(&module, name, value).unwrap());
        let settings = Settings {
            secrets: values.iter().map(seal).collect(),
            ..Settings::default()
        };
        let secrets = Secrets::default();
        assert_eq!(shown(&secrets, "hunter2"), None);
        assert!(secrets.open(&keys, Some(&module), &settings).is_ok());
        secrets
    }

    fn shown(secrets: &Secrets, text: &str) -> Option<String> {
        let masked = secrets.masked(text.as_bytes(), usize::MAX)?;
        Some(String::from_utf8(masked).unwrap())
    }

    #[test]
    fn what_a_guest_writes_of_its_secrets_is_masked() {
        let secrets = opened(&[("A", "hunter2"), ("B", "xyz"), ("C", "correct horse")]);
        assert_eq!(shown(&secrets, "nothing of it"), None);
        assert_eq!(shown(&secrets, "xyz alone"), None);
        let line = "hunter2, hunter2 and correct horse";
        assert_eq!(shown(&secrets, line).unwrap(), "[secret], [secret] and [secret]");
        assert_eq!(shown(&secrets, "hunter2hunter2").unwrap(), "[secret][secret]");
        assert!(!format!("{secrets:?}").contains("hunter2"));
    }

    #[test]
    fn a_secret_within_or_across_another_leaves_nothing_of_either() {
        let secrets = opened(&[("A", "hunt"), ("B", "hunter2"), ("C", "r2d2"), ("D", "aaaa")]);
        assert_eq!(shown(&secrets, "a hunter2!").unwrap(), "a [secret]!");
        assert_eq!(shown(&secrets, "a hunter2d2!").unwrap(), "a [secret]!");
        assert_eq!(shown(&secrets, "the hunt is on").unwrap(), "the [secret] is on");
        assert_eq!(shown(&secrets, "aaaaaa").unwrap(), "[secret]");
    }

    #[test]
    fn each_line_of_a_secret_is_one_if_it_is_long_enough() {
        let secrets = opened(&[("KEY", "-----BEGIN-----\r\nMIIEvQ\nab=\n-----END-----\n")]);
        for (text, masked) in [
            ("-----BEGIN-----", Some("[secret]")),
            ("key: MIIEvQ.", Some("key: [secret].")),
            ("ab=", None),
            (
                "-----BEGIN-----\r\nMIIEvQ\nab=\n-----END-----\n",
                Some("[secret]"),
            ),
            ("-----BEGIN-----\nMIIEvQ", Some("[secret]\n[secret]")),
        ] {
            assert_eq!(shown(&secrets, text).as_deref(), masked, "{text:?}");
        }
    }

    #[test]
    fn a_part_of_a_text_shows_no_part_of_a_secret_that_begins_in_it() {
        let secrets = opened(&[("A", "hunter2"), ("B", "2 + 2 = 5")]);
        assert_eq!(secrets.longest_bytes(), 9);
        let text = b"0123hunter2 + 2 = 5 and so on";
        for most in 0..text.len() {
            let masked = secrets.masked(text, most);
            let expected = match most {
                0..=4 => None,
                5..=19 => Some("0123[secret]".to_owned()),
                _ => Some(format!("0123[secret]{}", &" and so on"[..most - 19])),
            };
            assert_eq!(
                masked.map(|text| String::from_utf8(text).unwrap()),
                expected,
                "{most}"
            );
        }
        // What begins past it is not in it, whatever is taken out before.
        let masked = secrets.masked(b"2 + 2 = 5 hunter2", 10).unwrap();
        assert_eq!(masked, b"[secret] ");
    }
}
