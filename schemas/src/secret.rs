//! A secret as it stands in a module's settings: sealed to the fleet's key, so that whoever reads a record, a job or a
//! message has nothing of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::InvalidName;

/// Where the metadata of the service, in the answer to `$SRV.INFO`, says what to seal to.
pub const SEALING_KEY: &str = "sealing_key";
/// Most secrets of one module.
pub const MAX_SECRETS: usize = 32;
/// Longest secret, in bytes.
pub const MAX_SECRET_BYTES: usize = 4096;
/// Longest sealed secret, in characters: the secret, the module's name and its own as JSON, escaped, in base64.
const MAX_SEALED_CHARS: usize = 36 << 10;

/// Whose box it is, a dot, and the box in base64 for URLs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SealedSecret(Box<str>);

impl SealedSecret {
    /// The sender's public key, and the box in base64.
    pub fn parts(&self) -> (&str, &str) {
        self.0.split_once('.').unwrap_or((&self.0, ""))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SealedSecret {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        let in_base64 = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        let fits = text.len() <= MAX_SEALED_CHARS
            && text.split_once('.').is_some_and(|(sender, sealed)| {
                sender.starts_with('X')
                    && sender.bytes().all(|b| b.is_ascii_alphanumeric())
                    && !sealed.is_empty()
                    && sealed.bytes().all(in_base64)
            });
        match fits {
            true => Ok(Self(text.into())),
            // What was taken for a sealed secret may be one that is not sealed.
            false => Err(InvalidName::new(
                "sealed secret",
                "what `wess seal` prints",
                "(not shown)",
            )),
        }
    }
}

impl From<SealedSecret> for String {
    fn from(sealed: SealedSecret) -> String {
        sealed.0.into()
    }
}

impl JsonSchema for SealedSecret {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SealedSecret".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "maxLength": MAX_SEALED_CHARS,
            "pattern": r"^X[A-Za-z0-9]*\.[A-Za-z0-9_-]+$",
            "description": "What `wess seal` prints: a secret sealed to the fleet's key, for one module and one name"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_sealed_is_refused_and_not_repeated() {
        for text in ["hunter2", "XABC.", "XABC", ".abc", "XA BC.abc", "XABC.a=c", ""] {
            let refused = SealedSecret::try_from(text.to_owned()).unwrap_err().to_string();
            assert!(text.is_empty() || !refused.contains(text), "{refused}");
        }
        let sealed = SealedSecret::try_from("XABC.a-_9".to_owned()).unwrap();
        assert_eq!(sealed.parts(), ("XABC", "a-_9"));
        assert!(SealedSecret::try_from(format!("X.{}", "a".repeat(MAX_SEALED_CHARS))).is_err());
    }
}
