//! Names and ids, parsed once. Each type holds only what its grammar in the wire contract allows.
//!
//! Invariant: what `Display` prints, `FromStr` parses back to an equal value.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::timestamp::Timestamp;

/// Why a text is not the name or id it was taken for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {kind}: expected {expected}")]
pub struct InvalidName {
    /// What the text should have been, such as `module name`.
    pub kind: &'static str,
    /// The grammar in words.
    pub expected: &'static str,
    /// The text as given, cut to 80 characters.
    pub text: String,
}

impl InvalidName {
    pub(crate) fn new(kind: &'static str, expected: &'static str, text: &str) -> Self {
        Self {
            kind,
            expected,
            text: text.chars().take(80).collect(),
        }
    }
}

/// Gives a string newtype its `FromStr`, `Display`, `AsRef<str>` and serde forms from one `accepts` function.
macro_rules! text_newtype {
    ($name:ident, $kind:literal, $expected:literal, $pattern:literal) => {
        impl $name {
            /// The text, exactly as parsed.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                match Self::accepts(text) {
                    true => Ok(Self(text.into())),
                    false => Err(InvalidName::new($kind, $expected, text)),
                }
            }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.as_str().to_owned()
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": $pattern, "description": $expected })
            }
        }
    };
}
pub(crate) use text_newtype;

/// The name a module is stored and called under: a DNS label that is not in UUID form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct ModuleName(Box<str>);

impl ModuleName {
    fn accepts(text: &str) -> bool {
        is_dns_label(text) && !is_hyphenated_uuid(text)
    }
}
text_newtype!(
    ModuleName,
    "module name",
    "1 to 63 of a-z, 0-9 and '-', neither first nor last a '-', and not in UUID form",
    "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
);

/// A name for one version of a module. `latest` parses here; that it is ours is the registry's rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Tag(Box<str>);

impl Tag {
    /// The tag that always follows the newest version.
    pub const LATEST: &'static str = "latest";

    /// Whether this is `latest`, which users may not move.
    pub fn is_latest(&self) -> bool {
        &*self.0 == Self::LATEST
    }

    fn accepts(text: &str) -> bool {
        let mut bytes = text.bytes();
        text.len() <= 63 && bytes.next().is_some_and(|b| b.is_ascii_lowercase()) && bytes.all(is_label_byte)
    }
}
text_newtype!(
    Tag,
    "tag",
    "a letter a-z, then up to 62 of a-z, 0-9 and '-'",
    "^[a-z][a-z0-9-]{0,62}$"
);

/// The owner of modules and state: a DNS label. `default` is the tenant whose subjects carry no tenant token.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Tenant(Box<str>);

impl Tenant {
    /// Whether this is the tenant `default`.
    pub fn is_default(&self) -> bool {
        &*self.0 == "default"
    }

    fn accepts(text: &str) -> bool {
        is_dns_label(text)
    }
}
text_newtype!(
    Tenant,
    "tenant",
    "1 to 63 of a-z, 0-9 and '-', neither first nor last a '-'",
    "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
);

/// The name of a binding: a DNS label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct BindingName(Box<str>);

impl BindingName {
    fn accepts(text: &str) -> bool {
        is_dns_label(text)
    }
}
text_newtype!(
    BindingName,
    "binding name",
    "1 to 63 of a-z, 0-9 and '-', neither first nor last a '-'",
    "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
);

impl Default for Tenant {
    fn default() -> Self {
        Self("default".into())
    }
}

/// The id of one request: a UUIDv7 of ours, or the caller's idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct JobId(Arc<str>);

impl JobId {
    /// A fresh id, in the order of time by the millisecond. Takes no lock: executors make one for each call.
    pub fn generate() -> Self {
        let id = Uuid::new_v7(uuid::Timestamp::now(uuid::NoContext));
        let mut text = Uuid::encode_buffer();
        Self(Arc::from(&*id.hyphenated().encode_lower(&mut text)))
    }

    /// When it was made, if it is one of ours, or made like ours.
    pub fn made_at(&self) -> Option<Timestamp> {
        let (seconds, nanos) = Uuid::try_parse(&self.0).ok()?.get_timestamp()?.to_unix();
        let at = OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok()?;
        at.replace_nanosecond(nanos).ok().map(Timestamp::from)
    }

    fn accepts(text: &str) -> bool {
        (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    }
}
text_newtype!(
    JobId,
    "job id",
    "1 to 64 of A-Z, a-z, 0-9, '_' and '-'",
    "^[A-Za-z0-9_-]{1,64}$"
);

/// The id of one worker process, new at every start; unique in a fleet.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct WorkerId(Box<str>);

impl WorkerId {
    /// A fresh id.
    pub fn generate() -> Self {
        Self(Uuid::now_v7().simple().to_string().into())
    }

    fn accepts(text: &str) -> bool {
        JobId::accepts(text)
    }
}
text_newtype!(
    WorkerId,
    "worker id",
    "1 to 64 of A-Z, a-z, 0-9, '_' and '-'",
    "^[A-Za-z0-9_-]{1,64}$"
);

/// The identity of a module through all its versions, in hyphenated lower-case form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "Uuid")]
pub struct ModuleId(Uuid);

impl ModuleId {
    /// A fresh, time-ordered id.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl FromStr for ModuleId {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid = || InvalidName::new("module id", "a UUID in hyphenated lower-case form", text);
        if !is_hyphenated_uuid(text) {
            return Err(invalid());
        }
        Uuid::try_parse(text).map(Self).map_err(|_| invalid())
    }
}

impl TryFrom<String> for ModuleId {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<ModuleId> for String {
    fn from(id: ModuleId) -> String {
        id.to_string()
    }
}

impl fmt::Display for ModuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

fn is_label_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}

fn is_dns_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(is_label_byte)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_hyphenated_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn module_names_are_dns_labels_and_never_uuids() {
        for good in ["a", "hello", "a-b", "0x", &"a".repeat(63)] {
            assert_eq!(good.parse::<ModuleName>().unwrap().as_str(), good);
        }
        let uuid = ModuleId::generate().to_string();
        for bad in ["", "-a", "a-", "A", "a.b", "a b", "ä", &"a".repeat(64), &uuid] {
            assert!(bad.parse::<ModuleName>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn tags_begin_with_a_letter() {
        assert!("stable-2".parse::<Tag>().is_ok());
        for bad in ["", "2", "-a", "S", &"a".repeat(64)] {
            assert!(bad.parse::<Tag>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn an_error_never_repeats_more_than_eighty_characters_of_its_input() {
        let error = "ä".repeat(1000).parse::<JobId>().unwrap_err();
        assert_eq!(error.text.chars().count(), 80);
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic_and_what_parses_prints_back(text in "\\PC{0,80}|[a-z0-9-]{1,70}|[A-Za-z0-9_-]{1,70}") {
            if let Ok(name) = text.parse::<ModuleName>() { prop_assert_eq!(name.to_string(), text.clone()); }
            if let Ok(tag) = text.parse::<Tag>() { prop_assert_eq!(tag.to_string(), text.clone()); }
            if let Ok(tenant) = text.parse::<Tenant>() { prop_assert_eq!(tenant.to_string(), text.clone()); }
            if let Ok(job) = text.parse::<JobId>() { prop_assert_eq!(job.to_string(), text.clone()); }
            if let Ok(worker) = text.parse::<WorkerId>() { prop_assert_eq!(worker.to_string(), text.clone()); }
            if let Ok(id) = text.parse::<ModuleId>() { prop_assert_eq!(id.to_string(), text.clone()); }
        }

        #[test]
        fn every_module_id_parses_back(bits in any::<u128>()) {
            let id = ModuleId(Uuid::from_u128(bits));
            prop_assert_eq!(id.to_string().parse::<ModuleId>().unwrap(), id);
        }
    }
}
