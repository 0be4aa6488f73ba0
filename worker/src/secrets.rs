//! A module's secrets in the clear: opened by this worker's keys when a call first needs them, kept in memory alone.
//!
//! Invariant: no text of ours holds one; what a guest writes into its log is masked.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

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
pub struct Secrets(OnceLock<Result<BTreeMap<String, String>, ErrorBody>>);

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
            Some(module) => open(keys, module, settings),
            None => Ok(BTreeMap::new()),
        };
        self.0.get_or_init(open).as_ref()
    }

    /// A line without them, if it has any.
    pub fn masked(&self, line: &str) -> Option<String> {
        let Some(Ok(opened)) = self.0.get() else {
            return None;
        };
        let mut masked = None;
        for value in opened.values().filter(|value| value.len() >= LEAST_MASKED_BYTES) {
            let text = masked.as_deref().unwrap_or(line);
            if text.contains(value.as_str()) {
                masked = Some(text.replace(value.as_str(), MASK));
            }
        }
        masked
    }
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
        assert_eq!(secrets.masked("hunter2"), None);
        assert!(secrets.open(&keys, Some(&module), &settings).is_ok());
        secrets
    }

    #[test]
    fn what_a_guest_writes_of_its_secrets_is_masked() {
        let secrets = opened(&[("A", "hunter2"), ("B", "xyz"), ("C", "correct horse")]);
        assert_eq!(secrets.masked("nothing of it"), None);
        assert_eq!(secrets.masked("xyz alone"), None);
        let line = "hunter2, hunter2 and correct horse";
        assert_eq!(secrets.masked(line).unwrap(), "[secret], [secret] and [secret]");
        assert!(!format!("{secrets:?}").contains("hunter2"));
    }
}
