//! Sealing secrets to a fleet, and opening them in it: anonymous boxes of X25519 and XSalsa20-Poly1305, as NATS's own
//! curve keys make them.
//!
//! Invariant: a box opens only for the module and the name that it was sealed for, so that copying one gives nothing.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use nkeys::XKey;
use serde::{Deserialize, Serialize};
use wess_schemas::ModuleName;
use wess_schemas::secret::{MAX_SECRET_BYTES, SealedSecret};

/// What is in a box.
#[derive(Serialize, Deserialize)]
struct Content {
    module: ModuleName,
    name: String,
    value: String,
}

/// Why a secret was not sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Not a curve key.
    #[error("{0:?} is no sealing key: one begins with X, see `wess seal --new-key`")]
    Key(String),
    /// Too long, or with a NUL.
    #[error("the secret {0} has more than {MAX_SECRET_BYTES} bytes, or a NUL")]
    Value(String),
    /// The library refused.
    #[error("the secret {0} could not be sealed")]
    Box(String),
}

/// Why a secret does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// This process was given no keys.
    #[error("this worker was started without --secrets-keys")]
    NoKeys,
    /// None of them opens it.
    #[error("it is sealed to another key, or damaged")]
    Closed,
    /// It is not what it stands for.
    #[error("it was sealed for another module or another name")]
    NotForHere,
}

/// What secrets are sealed to: public.
#[derive(Clone)]
pub struct SealingKey(Arc<XKey>);

impl SealingKey {
    /// Reads a public key, `X…`.
    pub fn parse(text: &str) -> Result<Self, SealError> {
        let key = XKey::from_public_key(text.trim());
        key.map(|key| Self(Arc::new(key)))
            .map_err(|_| SealError::Key(text.chars().take(80).collect()))
    }

    /// Seals a secret for one module, under one name.
    pub fn seal(&self, module: &ModuleName, name: &str, value: &str) -> Result<SealedSecret, SealError> {
        if value.len() > MAX_SECRET_BYTES || value.contains('\0') {
            return Err(SealError::Value(name.into()));
        }
        let refused = || SealError::Box(name.into());
        let content = Content {
            module: module.clone(),
            name: name.into(),
            value: value.into(),
        };
        let content = serde_json::to_vec(&content).map_err(|_| refused())?;
        // Nobody keeps this one, so that nobody but the recipient opens the box again.
        let sender = XKey::new();
        let sealed = sender.seal(&content, &self.0).map_err(|_| refused())?;
        let text = format!("{}.{}", sender.public_key(), BASE64.encode(sealed));
        text.try_into().map_err(|_| refused())
    }
}

/// What opens them: one key, and those that were used before it. Cheap to clone.
#[derive(Clone, Default)]
pub struct OpeningKeys(Arc<[XKey]>);

impl fmt::Debug for OpeningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpeningKeys({})", self.0.len())
    }
}

impl OpeningKeys {
    /// A fresh seed, as a line of a file.
    pub fn new_seed() -> Result<String, SealError> {
        XKey::new().seed().map_err(|_| SealError::Key(String::new()))
    }

    /// Reads seeds, `SX…`, one a line, the newest first; empty lines and those that begin with `#` say nothing.
    pub fn parse(text: &str) -> Option<Self> {
        let lines = text.lines().map(str::trim);
        let seeds = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys: Vec<XKey> = seeds
            .map(|seed| XKey::from_seed(seed).ok())
            .collect::<Option<_>>()?;
        (!keys.is_empty()).then(|| Self(keys.into()))
    }

    /// What to seal to now.
    pub fn sealing_key(&self) -> Option<String> {
        self.0.first().map(XKey::public_key)
    }

    /// Opens a secret of a module.
    pub fn open(&self, module: &ModuleName, name: &str, sealed: &SealedSecret) -> Result<String, OpenError> {
        if self.0.is_empty() {
            return Err(OpenError::NoKeys);
        }
        let (sender, sealed) = sealed.parts();
        let sender = XKey::from_public_key(sender).map_err(|_| OpenError::Closed)?;
        let sealed = BASE64.decode(sealed).map_err(|_| OpenError::Closed)?;
        let content = self.0.iter().find_map(|key| key.open(&sealed, &sender).ok());
        let content: Content =
            serde_json::from_slice(&content.ok_or(OpenError::Closed)?).map_err(|_| OpenError::Closed)?;
        match content.module == *module && content.name == name {
            true => Ok(content.value),
            false => Err(OpenError::NotForHere),
        }
    }
}

/// Where the keys are, which every worker of a fleet must have alike.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Secrets")]
pub struct SecretsOptions {
    /// A file with the keys that open modules' secrets, the newest first; see `wess seal --new-key`.
    #[arg(long = "secrets-keys", env = "WESS_SECRETS_KEYS", value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It holds something else.
    #[error("{} holds no seeds of curve keys, SX…, one a line", .0.display())]
    Content(PathBuf),
}

impl SecretsOptions {
    /// The keys; none where no file is named.
    pub fn read(&self) -> Result<OpeningKeys, KeysError> {
        match &self.file {
            Some(path) => read(path),
            None => Ok(OpeningKeys::default()),
        }
    }
}

fn read(path: &Path) -> Result<OpeningKeys, KeysError> {
    let text = std::fs::read_to_string(path).map_err(|source| KeysError::Read {
        path: path.into(),
        source,
    })?;
    OpeningKeys::parse(&text).ok_or_else(|| KeysError::Content(path.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str) -> ModuleName {
        name.parse().unwrap()
    }

    fn keys(seeds: &[String]) -> OpeningKeys {
        OpeningKeys::parse(&seeds.join("\n")).unwrap()
    }

    #[test]
    fn a_box_opens_with_its_key_for_its_module_and_name_and_with_nothing_else() {
        let [first, second] = [(); 2].map(|()| OpeningKeys::new_seed().unwrap());
        let fleet = keys(std::slice::from_ref(&first));
        let key = SealingKey::parse(&fleet.sealing_key().unwrap()).unwrap();
        let sealed = key.seal(&module("api"), "TOKEN", "hunter2").unwrap();
        assert!(!sealed.as_str().contains("hunter2"));
        assert_eq!(fleet.open(&module("api"), "TOKEN", &sealed).unwrap(), "hunter2");
        assert_eq!(
            fleet.open(&module("spy"), "TOKEN", &sealed),
            Err(OpenError::NotForHere)
        );
        assert_eq!(
            fleet.open(&module("api"), "OTHER", &sealed),
            Err(OpenError::NotForHere)
        );
        let other = keys(std::slice::from_ref(&second));
        assert_eq!(
            other.open(&module("api"), "TOKEN", &sealed),
            Err(OpenError::Closed)
        );
        assert_eq!(
            OpeningKeys::default().open(&module("api"), "TOKEN", &sealed),
            Err(OpenError::NoKeys)
        );
        // A new key before the old one opens what was sealed to either.
        let rotated = keys(&[second, first]);
        assert_eq!(rotated.open(&module("api"), "TOKEN", &sealed).unwrap(), "hunter2");
        assert_ne!(rotated.sealing_key(), fleet.sealing_key());
    }

    #[test]
    fn the_same_secret_is_sealed_differently_each_time_and_damage_shows() {
        let fleet = keys(&[OpeningKeys::new_seed().unwrap()]);
        let key = SealingKey::parse(&fleet.sealing_key().unwrap()).unwrap();
        let [one, two] = [(); 2].map(|()| key.seal(&module("api"), "TOKEN", "hunter2").unwrap());
        assert_ne!(one, two);
        let (sender, sealed) = one.parts();
        let damaged = format!("{sender}.A{}", &sealed[1..]);
        let damaged = SealedSecret::try_from(damaged).unwrap();
        assert_eq!(
            fleet.open(&module("api"), "TOKEN", &damaged),
            Err(OpenError::Closed)
        );
    }

    #[test]
    fn the_longest_secret_fits_and_one_more_byte_does_not() {
        let fleet = keys(&[OpeningKeys::new_seed().unwrap()]);
        let key = SealingKey::parse(&fleet.sealing_key().unwrap()).unwrap();
        // The character that takes most room in JSON.
        let longest = "\u{1}".repeat(MAX_SECRET_BYTES);
        assert!(key.seal(&module("api"), "TOKEN", &longest).is_ok());
        assert!(matches!(
            key.seal(&module("api"), "TOKEN", &format!("{longest}x")),
            Err(SealError::Value(_))
        ));
    }

    #[test]
    fn a_file_of_something_else_is_refused_by_its_name_and_not_repeated() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hunter2").unwrap();
        let options = SecretsOptions {
            file: Some(file.path().into()),
        };
        let refused = options.read().unwrap_err().to_string();
        assert!(
            !refused.contains("hunter2") && refused.contains("curve keys"),
            "{refused}"
        );
        std::fs::write(
            file.path(),
            format!("# newest\n{}\n\n", OpeningKeys::new_seed().unwrap()),
        )
        .unwrap();
        assert!(options.read().unwrap().sealing_key().unwrap().starts_with('X'));
    }
}
