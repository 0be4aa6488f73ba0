//! The key that secrets are sealed to on this machine: made when there is none yet, beside the server that keeps the records.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use wess_service::secrets::{KeysError, OpeningKeys, SecretsOptions};

/// Its file in the data folder.
const FILE: &str = "secrets.keys";

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum NoKeys {
    /// They cannot be made.
    #[error("cannot make {FILE} in the data folder (--data)")]
    Make(#[from] io::Error),
    /// They cannot be read.
    #[error(transparent)]
    Read(#[from] KeysError),
}

/// The keys of a data folder, in a file that nobody else may read.
pub fn keys_in(data: &Path) -> Result<OpeningKeys, NoKeys> {
    let file = Some(file_in(data)?);
    Ok(SecretsOptions { file }.read()?)
}

/// Made whole or not at all; whoever else made it first has made it.
fn file_in(data: &Path) -> io::Result<PathBuf> {
    let path = data.join(FILE);
    if path.exists() {
        return Ok(path);
    }
    fs::create_dir_all(data)?;
    let seed = OpeningKeys::new_seed().map_err(io::Error::other)?;
    let mut file = NamedTempFile::new_in(data)?;
    writeln!(file, "{seed}")?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(&path) {
        Ok(_) => Ok(path),
        Err(taken) if taken.error.kind() == io::ErrorKind::AlreadyExists => Ok(path),
        Err(failed) => Err(failed.error),
    }
}
