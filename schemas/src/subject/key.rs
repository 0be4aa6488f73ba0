//! Keys of the buckets of records: a module's head and its versions, and a binding.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use crate::id::{BindingName, InvalidName, ModuleName, Tenant};

/// KV bucket of bindings.
pub const BINDINGS_BUCKET: &str = "wess-bindings";

/// The key of a binding in [`BINDINGS_BUCKET`].
pub fn binding_key(tenant: &Tenant, name: &BindingName) -> String {
    format!("{tenant}.{name}")
}

/// The queue group in which all workers take a binding's subject, and the durable consumer of its stream.
pub fn binding_group(name: &BindingName) -> String {
    format!("wess-bind-{name}")
}

/// A key of the bucket `wess-modules`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ModuleKey {
    /// `<tenant>.<name>`: the head.
    Head(Tenant, ModuleName),
    /// `<tenant>.<name>.v<N>`: one version.
    Version(Tenant, ModuleName, NonZeroU32),
}

impl fmt::Display for ModuleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(tenant, name) => write!(f, "{tenant}.{name}"),
            Self::Version(tenant, name, version) => write!(f, "{tenant}.{name}.v{version}"),
        }
    }
}

impl FromStr for ModuleKey {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid = || InvalidName::new("module key", "TENANT.NAME or TENANT.NAME.vN", text);
        let (tenant, rest) = text.split_once('.').ok_or_else(invalid)?;
        let tenant = tenant.parse()?;
        let Some((name, version)) = rest.split_once('.') else {
            return Ok(Self::Head(tenant, rest.parse()?));
        };
        let digits = version
            .strip_prefix('v')
            .filter(|digits| !digits.starts_with(['0', '+']));
        let version = digits
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(invalid)?;
        Ok(Self::Version(tenant, name.parse()?, version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_key_that_parses_prints_back(key in "[a-z]{1,5}\\.[a-z]{1,5}(\\.v[0-9]{1,11})?|\\PC{0,40}") {
            if let Ok(parsed) = key.parse::<ModuleKey>() { prop_assert_eq!(parsed.to_string(), key); }
        }
    }
}
