//! How a caller names a module: by name, version, tag, digest or id. Parsed without looking anything up.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{InvalidName, ModuleId, ModuleName, Tag, text_newtype};

/// A parsed module reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Reference {
    /// `hello`: the newest version.
    Latest(ModuleName),
    /// `hello@3`.
    Version(ModuleName, NonZeroU32),
    /// `hello@stable`; `hello@latest` calls what `hello` does, and cannot be deleted.
    Tag(ModuleName, Tag),
    /// `sha256:<64 hex>`.
    Digest(Digest),
    /// The module's UUID: its newest version.
    Id(ModuleId),
}

impl Reference {
    /// The name, where the reference has one.
    pub fn name(&self) -> Option<&ModuleName> {
        match self {
            Self::Latest(name) | Self::Version(name, _) | Self::Tag(name, _) => Some(name),
            Self::Digest(_) | Self::Id(_) => None,
        }
    }
}

impl FromStr for Reference {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        parse(text).ok_or_else(|| {
            InvalidName::new(
                "module reference",
                "NAME, NAME@VERSION, NAME@TAG, sha256:HEX or a module id",
                text,
            )
        })
    }
}

fn parse(text: &str) -> Option<Reference> {
    if text.starts_with("sha256:") {
        return text.parse().ok().map(Reference::Digest);
    }
    if let Ok(id) = text.parse() {
        return Some(Reference::Id(id));
    }
    let Some((name, which)) = text.split_once('@') else {
        return text.parse().ok().map(Reference::Latest);
    };
    let name: ModuleName = name.parse().ok()?;
    if which.starts_with(|c: char| c.is_ascii_digit()) {
        return parse_version(which).map(|version| Reference::Version(name, version));
    }
    which.parse().ok().map(|tag| Reference::Tag(name, tag))
}

/// Decimal without sign or leading zero, so that every version has one spelling.
fn parse_version(text: &str) -> Option<NonZeroU32> {
    let canonical = !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| canonical)
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest(name) => write!(f, "{name}"),
            Self::Version(name, version) => write!(f, "{name}@{version}"),
            Self::Tag(name, tag) => write!(f, "{name}@{tag}"),
            Self::Digest(digest) => write!(f, "{digest}"),
            Self::Id(id) => write!(f, "{id}"),
        }
    }
}

impl TryFrom<String> for Reference {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> String {
        reference.to_string()
    }
}

impl schemars::JsonSchema for Reference {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Reference".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "NAME, NAME@VERSION, NAME@TAG, sha256:HEX or a module id",
            "maxLength": 127
        })
    }
}

/// An export's name: any text without control characters, at most 256 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct FunctionName(Box<str>);

impl FunctionName {
    /// Whether the function can be called through a subject of its own.
    pub fn is_subject_safe(&self) -> bool {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_:/#@.-".contains(&b);
        self.0.bytes().all(allowed) && self.0.split('.').all(|token| !token.is_empty())
    }

    fn accepts(text: &str) -> bool {
        (1..=256).contains(&text.len()) && !text.contains(char::is_control)
    }
}
text_newtype!(
    FunctionName,
    "function name",
    "1 to 256 bytes without control characters",
    "^[^\\u0000-\\u001f\\u007f-\\u009f]{1,256}$"
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reference(text: &str) -> Reference {
        text.parse().unwrap()
    }

    #[test]
    fn each_form_is_told_apart() {
        let name: ModuleName = "hello".parse().unwrap();
        assert_eq!(reference("hello"), Reference::Latest(name.clone()));
        assert_eq!(
            reference("hello@latest"),
            Reference::Tag(name.clone(), "latest".parse().unwrap())
        );
        assert_eq!(
            reference("hello@3"),
            Reference::Version(name.clone(), NonZeroU32::new(3).unwrap())
        );
        assert_eq!(
            reference("hello@stable"),
            Reference::Tag(name, "stable".parse().unwrap())
        );
        let id = ModuleId::generate();
        assert_eq!(reference(&id.to_string()), Reference::Id(id));
        let digest = Digest::from_bytes([7; 32]);
        assert_eq!(reference(&digest.to_string()), Reference::Digest(digest));
    }

    #[test]
    fn ambiguous_or_broken_references_are_refused() {
        for bad in [
            "",
            "@1",
            "hello@",
            "hello@0",
            "hello@03",
            "hello@+3",
            "hello@4294967296",
            "hello@3x",
            "sha256:ab",
            "a@b@c",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_function_with_spaces_or_empty_tokens_is_no_subject() {
        let safe = |text: &str| text.parse::<FunctionName>().unwrap().is_subject_safe();
        assert!(safe("process") && safe("ns:pkg/iface@1.0.0#run"));
        assert!(!safe("a b") && !safe("a..b") && !safe(".a") && !safe("a*") && !safe("a>"));
    }

    proptest! {
        #[test]
        fn what_parses_prints_back_to_an_equal_reference(
            text in "[a-z0-9-]{1,20}(@([a-z0-9-]{1,10}|[0-9]{1,11}))?|\\PC{0,80}|(sha256:)[0-9a-f]{64}"
        ) {
            if let Ok(parsed) = text.parse::<Reference>() {
                prop_assert_eq!(parsed.to_string().parse::<Reference>().unwrap(), parsed);
            }
            if let Ok(function) = text.parse::<FunctionName>() { prop_assert_eq!(function.as_str(), text); }
        }
    }
}
