//! The key that secrets are sealed to on this machine: made when there is none yet, beside the server that keeps the records.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use wess_service::secrets::OpeningKeys;

/// Its file in the data folder.
const FILE: &str = "secrets.keys";

/// The file with the keys, which nobody else may read.
pub fn keys_in(data: &Path) -> io::Result<PathBuf> {
    let path = data.join(FILE);
    fs::create_dir_all(data)?;
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path);
    match made {
        Ok(mut file) => {
            let seed = OpeningKeys::new_seed().map_err(io::Error::other)?;
            writeln!(file, "{seed}")?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    Ok(path)
}
