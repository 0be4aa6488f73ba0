//! How we prove to NATS who we are. Files are read again on each connect, so that rotated ones are used.
//!
//! Never prints a secret: not in `Debug`, not in an error.

use std::path::{Path, PathBuf};

use async_nats::{Auth, AuthError, ConnectOptions};
use nkeys::KeyPair;

use super::options::Secret;

/// One way to authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// The server asks for nothing, or TLS certificates say it.
    None,
    /// A `.creds` file: a user's JWT and its nkey seed.
    File(PathBuf),
    /// A file that holds an nkey seed.
    Nkey(PathBuf),
    /// A user and a password.
    User {
        /// The user's name.
        name: String,
        /// The password.
        password: Secret,
    },
    /// A token.
    Token(Secret),
}

/// A credentials file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It lacks what it is for.
    #[error("{} holds no {missing}", path.display())]
    Incomplete {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        missing: &'static str,
    },
}

impl Credentials {
    /// Reads the file once, so that a wrong one is reported before anything opens.
    pub(super) fn check(&self) -> Result<(), CredentialsError> {
        match self {
            Self::File(path) => parse_creds(path, &read(path)?).map(drop),
            Self::Nkey(path) => parse_seed(path, &read(path)?).map(drop),
            Self::None | Self::User { .. } | Self::Token(_) => Ok(()),
        }
    }

    pub(super) fn into_connect_options(self) -> ConnectOptions {
        match self {
            Self::None => ConnectOptions::new(),
            Self::User { name, password } => {
                ConnectOptions::with_user_and_password(name, password.into_inner())
            }
            Self::Token(token) => ConnectOptions::with_token(token.into_inner()),
            Self::File(path) => answering(move |nonce| sign_with_creds(&path, nonce)),
            Self::Nkey(path) => answering(move |nonce| sign_with_seed(&path, nonce)),
        }
    }
}

/// Asks `answer` on each connect. It reads a small local file inline: there is nothing else to do meanwhile.
fn answering(
    answer: impl Fn(&[u8]) -> Result<Auth, CredentialsError> + Send + Sync + 'static,
) -> ConnectOptions {
    ConnectOptions::with_auth_callback(move |nonce| {
        let answer = answer(&nonce).map_err(AuthError::new);
        async move { answer }
    })
}

fn sign_with_creds(path: &Path, nonce: &[u8]) -> Result<Auth, CredentialsError> {
    let contents = read(path)?;
    let (jwt, key) = parse_creds(path, &contents)?;
    let mut auth = signed(path, &key, nonce)?;
    auth.jwt = Some(jwt.to_owned());
    Ok(auth)
}

fn sign_with_seed(path: &Path, nonce: &[u8]) -> Result<Auth, CredentialsError> {
    let key = parse_seed(path, &read(path)?)?;
    let mut auth = signed(path, &key, nonce)?;
    auth.nkey = Some(key.public_key());
    Ok(auth)
}

fn signed(path: &Path, key: &KeyPair, nonce: &[u8]) -> Result<Auth, CredentialsError> {
    let mut auth = Auth::new();
    auth.signature = Some(
        key.sign(nonce)
            .map_err(|_| incomplete(path, "nkey seed that can sign"))?,
    );
    Ok(auth)
}

fn read(path: &Path) -> Result<String, CredentialsError> {
    std::fs::read_to_string(path).map_err(|source| CredentialsError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

/// The JWT is what lies between the first pair of `-----` lines, the seed between the second.
fn parse_creds<'a>(path: &Path, contents: &'a str) -> Result<(&'a str, KeyPair), CredentialsError> {
    let mut blocks = decorated_blocks(contents);
    let jwt = blocks.next().ok_or_else(|| incomplete(path, "user JWT"))?;
    let seed = blocks.next().ok_or_else(|| incomplete(path, "nkey seed"))?;
    Ok((jwt, parse_seed(path, seed)?))
}

fn decorated_blocks(contents: &str) -> impl Iterator<Item = &str> {
    let mut lines = contents.lines().map(str::trim);
    std::iter::from_fn(move || {
        lines.find(|line| line.starts_with("---"))?;
        let block = lines.find(|line| !line.is_empty())?;
        lines.find(|line| line.starts_with("---"))?;
        Some(block)
    })
}

fn parse_seed(path: &Path, seed: &str) -> Result<KeyPair, CredentialsError> {
    KeyPair::from_seed(seed.trim()).map_err(|_| incomplete(path, "nkey seed"))
}

fn incomplete(path: &Path, missing: &'static str) -> CredentialsError {
    CredentialsError::Incomplete {
        path: path.to_owned(),
        missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: &str = "SUANQDPB2RUOE4ETUA26CNX7FUKE5ZZKFCQIIW63OX225F2CO7UEXTM7ZY";

    fn creds(jwt: &str) -> String {
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             ************************* IMPORTANT *************************\n\
             NKEY Seed printed below can be used sign and prove identity.\n\n\
             -----BEGIN USER NKEY SEED-----\r\n{SEED}\r\n------END USER NKEY SEED------\r\n"
        )
    }

    fn file(contents: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), contents).unwrap();
        file
    }

    #[test]
    fn a_rotated_credentials_file_is_used_at_the_next_connect() {
        let file = file(&creds("first.jwt"));
        let first = sign_with_creds(file.path(), b"nonce").unwrap();
        std::fs::write(file.path(), creds("second.jwt")).unwrap();
        let second = sign_with_creds(file.path(), b"nonce").unwrap();
        assert_eq!(
            (first.jwt.as_deref(), second.jwt.as_deref()),
            (Some("first.jwt"), Some("second.jwt"))
        );
        let key = KeyPair::from_seed(SEED).unwrap();
        key.verify(b"nonce", &second.signature.unwrap()).unwrap();
    }

    #[test]
    fn a_seed_file_signs_with_its_public_key() {
        let auth = sign_with_seed(file(&format!("{SEED}\n")).path(), b"nonce").unwrap();
        let key = KeyPair::from_seed(SEED).unwrap();
        assert_eq!(auth.nkey, Some(key.public_key()));
    }

    #[test]
    fn useless_files_are_reported_without_their_contents() {
        for contents in [
            "",
            "SECRET",
            "---\nSECRET\n---\n",
            "---\nSECRET\n---\n---\nSECRET\n---\n",
            "---\nSECRET",
        ] {
            let file = file(contents);
            for credentials in [
                Credentials::File(file.path().into()),
                Credentials::Nkey(file.path().into()),
            ] {
                let error = credentials.check().unwrap_err();
                assert!(matches!(error, CredentialsError::Incomplete { .. }), "{error}");
                assert!(!format!("{error} {error:?}").contains("SECRET"), "{error:?}");
            }
        }
    }

    #[test]
    fn a_missing_file_is_unreadable() {
        let error = Credentials::File("/nowhere/at.creds".into()).check().unwrap_err();
        assert!(matches!(error, CredentialsError::Unreadable { .. }), "{error}");
    }
}
