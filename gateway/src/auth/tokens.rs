//! The file of tokens: their hashes, never they themselves. Read again as it changes.
//!
//! A new file that is wrong changes nothing: the tokens before it stay valid, and the log says why.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

/// How soon a changed file holds.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Ten thousand tokens; a larger file is not one of tokens.
const MAX_FILE_BYTES: u64 = 2 * 1024 * 1024;

/// What a token may do beside reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Call modules.
    Invoke,
    /// Store modules.
    Store,
    /// Delete and tag modules.
    Admin,
}

impl Scope {
    /// The name in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invoke => "invoke",
            Self::Store => "store",
            Self::Admin => "admin",
        }
    }
}

/// A token, without the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// What the log calls it.
    pub name: Arc<str>,
    /// What it may do.
    pub scopes: HashSet<Scope>,
}

/// A file of tokens is of no use.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is larger than any file of tokens.
    #[error("{} is larger than {MAX_FILE_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is not what it should be.
    #[error("{}: {message}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong; never repeats a value of the file.
        message: String,
    },
}

type Hash = [u8; 32];
type Table = HashMap<Hash, Token>;

/// The tokens that hold now.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    current: ArcSwap<(Hash, Table)>,
}

impl TokenFile {
    /// Reads the file for the first time.
    pub fn open(path: &Path) -> Result<Self, TokensError> {
        let contents = read(path)?;
        let table = parse(path, &contents)?;
        Ok(Self {
            path: path.to_owned(),
            current: ArcSwap::from_pointee((hash(&contents), table)),
        })
    }

    /// The token with this text. It is found by its hash: how long that takes says nothing of the text.
    pub fn find(&self, token: &str) -> Option<Token> {
        self.current.load().1.get(&hash(token)).cloned()
    }

    /// Follows the file's changes until `shutdown`.
    pub async fn follow(self: Arc<Self>, shutdown: CancellationToken) {
        let mut reported = None;
        while shutdown
            .run_until_cancelled(tokio::time::sleep(LOOK_INTERVAL))
            .await
            .is_some()
        {
            let tokens = self.clone();
            let looked = tokio::task::spawn_blocking(move || tokens.look()).await;
            let error = looked.ok().and_then(Result::err).map(|error| error.to_string());
            if error != reported
                && let Some(error) = &error
            {
                tracing::error!(%error, "the tokens stay as they were");
            }
            reported = error;
        }
    }

    /// Takes the file's contents if they have changed.
    fn look(&self) -> Result<(), TokensError> {
        let contents = read(&self.path)?;
        let seen = hash(&contents);
        if self.current.load().0 != seen {
            let table = parse(&self.path, &contents)?;
            tracing::info!(tokens = table.len(), "read the tokens again");
            self.current.store(Arc::new((seen, table)));
        }
        Ok(())
    }
}

fn hash(text: &str) -> Hash {
    Sha256::digest(text).into()
}

fn read(path: &Path) -> Result<String, TokensError> {
    let unreadable = |source| TokensError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut contents = String::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut contents)
        .map_err(unreadable)?;
    if contents.len() as u64 > MAX_FILE_BYTES {
        return Err(TokensError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(contents)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    #[serde(default)]
    token: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    sha256: String,
    scopes: HashSet<Scope>,
}

fn parse(path: &Path, contents: &str) -> Result<Table, TokensError> {
    let wrong = |message: String| TokensError::Wrong {
        path: path.to_owned(),
        message,
    };
    // The parser's own message without the excerpt of the file, which may hold what should not be there.
    let Contents { token: entries } =
        toml::from_str(contents).map_err(|error| wrong(error.message().into()))?;
    if entries.is_empty() {
        return Err(wrong("it holds no [[token]]".into()));
    }
    let mut table = Table::new();
    let mut names = HashSet::new();
    for (at, entry) in entries.into_iter().enumerate() {
        let (hash, token) = entry
            .check()
            .map_err(|message| wrong(format!("token {}: {message}", at + 1)))?;
        let is_new = names.insert(token.name.clone()) && table.insert(hash, token).is_none();
        if !is_new {
            return Err(wrong(format!(
                "token {}: its name or its sha256 stands there twice",
                at + 1
            )));
        }
    }
    Ok(table)
}

impl Entry {
    fn check(self) -> Result<(Hash, Token), &'static str> {
        let sane = |b: u8| b.is_ascii_alphanumeric() || b"-_.@".contains(&b);
        if !(1..=64).contains(&self.name.len()) || !self.name.bytes().all(sane) {
            return Err("name must be 1 to 64 of A-Z, a-z, 0-9, '-', '_', '.' and '@'");
        }
        let digest = format!("sha256:{}", self.sha256.to_ascii_lowercase()).parse::<wess_schemas::Digest>();
        let hash = *digest
            .map_err(|_| "sha256 must be the 64 hex digits of the token's SHA-256")?
            .as_bytes();
        let token = Token {
            name: self.name.into(),
            scopes: self.scopes,
        };
        Ok((hash, token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, token: &str, scopes: &str) -> String {
        let hash = wess_schemas::Digest::from_bytes(hash(token)).to_hex();
        format!("[[token]]\nname = \"{name}\"\nsha256 = \"{hash}\"\nscopes = [{scopes}]\n")
    }

    fn written(contents: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), contents).unwrap();
        file
    }

    #[test]
    fn a_token_is_found_by_its_hash_and_no_other_text_is() {
        let file = written(&(entry("ci", "secret", r#""invoke", "store""#) + &entry("ro", "other", "")));
        let tokens = TokenFile::open(file.path()).unwrap();
        let ci = tokens.find("secret").unwrap();
        assert_eq!(
            (&*ci.name, ci.scopes),
            ("ci", HashSet::from([Scope::Invoke, Scope::Store]))
        );
        assert_eq!(tokens.find("other").unwrap().scopes, HashSet::new());
        for other in ["", "secre", "secrets", "SECRET"] {
            assert_eq!(tokens.find(other), None);
        }
    }

    #[test]
    fn each_mistake_is_named_without_repeating_the_file() {
        let good = entry("ci", "secret", "");
        let twice = good.clone() + &entry("ci", "other", "");
        let wrongs = [
            ("", "no [[token]]"),
            ("[[token]]\nname = \"ci\"", "sha256"),
            (&good.replace("ci", "c i"), "token 1: name"),
            (&good.replace("sha256 = \"", "sha256 = \"hush"), "64 hex digits"),
            (&twice, "token 2: its name"),
            (&good.replace("[]", "[\"hush\"]"), "expected one of"),
            (&(good.clone() + "hush = 1\n"), "unknown field"),
        ];
        for (contents, named) in wrongs {
            let error = TokenFile::open(written(contents).path()).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
        assert!(matches!(
            TokenFile::open(Path::new("/nowhere")),
            Err(TokensError::Unreadable { .. })
        ));
        let huge = written(&"#".repeat(MAX_FILE_BYTES as usize + 1));
        assert!(matches!(
            TokenFile::open(huge.path()),
            Err(TokensError::TooLarge { .. })
        ));
    }

    #[test]
    fn a_changed_file_holds_and_a_broken_one_changes_nothing() {
        let file = written(&entry("ci", "first", ""));
        let tokens = TokenFile::open(file.path()).unwrap();
        std::fs::write(file.path(), "broken").unwrap();
        assert!(tokens.look().is_err() && tokens.find("first").is_some());
        std::fs::write(file.path(), entry("ci", "second", "")).unwrap();
        tokens.look().unwrap();
        assert!(tokens.find("first").is_none() && tokens.find("second").is_some());
    }
}
