//! The seal of compiled files: a keyed MAC with a key that never leaves this node.
//!
//! It binds the machine code to the module, metering and compiler settings that it was made for. Without it, whoever
//! can write into the folder could have their machine code run.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use tempfile::Builder;

use super::artifacts::ArtifactKey;

/// Bytes of a seal.
pub(super) const SEAL_BYTES: usize = 32;
const KEY_FILE: &str = "node.key";
const KEY_BYTES: usize = 32;
const CONTEXT: &[u8] = b"wess compiled artifact v1";
const BUFFER_BYTES: usize = 128 * 1024;
/// Owner may read, nobody may write.
pub(super) const READ_ONLY: u32 = 0o400;

/// This node's key.
pub(super) struct NodeKey([u8; KEY_BYTES]);

impl NodeKey {
    /// Reads the key of a data folder, or makes one. One that others could have read or written is replaced.
    pub(super) fn load(data: &Path) -> io::Result<Self> {
        let path = data.join(KEY_FILE);
        match read_key(&path) {
            Ok(Some(key)) => return Ok(Self(key)),
            Ok(None) => {
                tracing::warn!(path = %path.display(), "the node key is not ours alone: making a new one")
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (),
            Err(error) => return Err(error),
        }
        let key = random_key()?;
        write_key(data, &path, &key)?;
        Ok(Self(key))
    }

    /// A key that only this process knows, for a disk that keeps none.
    pub(super) fn fleeting() -> io::Result<Self> {
        random_key().map(Self)
    }

    /// The seal of compiled bytes.
    pub(super) fn seal(&self, key: &ArtifactKey, compatibility: &str, compiled: &[u8]) -> [u8; SEAL_BYTES] {
        *self
            .hasher(key, compatibility)
            .update(compiled)
            .finalize()
            .as_bytes()
    }

    /// Whether a file ends with the seal of what comes before; reads all of it.
    pub(super) fn verify(
        &self,
        key: &ArtifactKey,
        compatibility: &str,
        file: &impl FileExt,
        size: u64,
    ) -> io::Result<bool> {
        let Some(mut left) = size.checked_sub(SEAL_BYTES as u64) else {
            return Ok(false);
        };
        let mut hasher = self.hasher(key, compatibility);
        let most = |left: u64| usize::try_from(left).map_or(BUFFER_BYTES, |left| left.min(BUFFER_BYTES));
        let mut buffer = vec![0; most(left)];
        let mut at = 0;
        while left > 0 {
            let take = most(left);
            let chunk = &mut buffer[..take];
            file.read_exact_at(chunk, at)?;
            hasher.update(chunk);
            at += take as u64;
            left -= take as u64;
        }
        let mut seal = [0; SEAL_BYTES];
        file.read_exact_at(&mut seal, at)?;
        // `blake3::Hash` compares in constant time.
        Ok(hasher.finalize() == blake3::Hash::from_bytes(seal))
    }

    /// Each part has a fixed length or states it, so that no two inputs look alike.
    fn hasher(&self, key: &ArtifactKey, compatibility: &str) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(key.digest.as_bytes());
        for part in [
            CONTEXT,
            key.metering.as_str().as_bytes(),
            compatibility.as_bytes(),
        ] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        hasher
    }
}

/// Whether a file is a regular one of ours that nobody may write and only we may read.
pub(super) fn is_private(file: &File) -> io::Result<bool> {
    let metadata = file.metadata()?;
    let ours = metadata.uid() == rustix::process::geteuid().as_raw();
    Ok(metadata.is_file() && ours && metadata.mode() & 0o7777 == READ_ONLY)
}

/// Opens a file to read it; a link is refused.
pub(super) fn open_no_follow(path: &Path) -> io::Result<File> {
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(no_follow).open(path)
}

/// `None` when there is a file, but not one to be trusted.
fn read_key(path: &Path) -> io::Result<Option<[u8; KEY_BYTES]>> {
    let mut file = open_no_follow(path)?;
    if !is_private(&file)? || file.metadata()?.len() != KEY_BYTES as u64 {
        return Ok(None);
    }
    let mut key = [0; KEY_BYTES];
    file.read_exact(&mut key)?;
    Ok(Some(key))
}

fn write_key(data: &Path, path: &Path, key: &[u8]) -> io::Result<()> {
    let mut file = Builder::new()
        .permissions(std::fs::Permissions::from_mode(READ_ONLY))
        .tempfile_in(data)?;
    file.write_all(key)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn random_key() -> io::Result<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::Metering;
    use std::fs::Permissions;
    use wess_schemas::Digest;

    const KEY: ArtifactKey = ArtifactKey {
        digest: Digest::from_bytes([1; 32]),
        metering: Metering::Off,
    };

    fn verifies(node: &NodeKey, key: &ArtifactKey, compatibility: &str, sealed: &[u8]) -> bool {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(sealed).unwrap();
        node.verify(key, compatibility, &file, sealed.len() as u64)
            .unwrap()
    }

    #[test]
    fn a_key_is_made_once_and_read_only() {
        let data = tempfile::tempdir().unwrap();
        let (first, second) = (
            NodeKey::load(data.path()).unwrap(),
            NodeKey::load(data.path()).unwrap(),
        );
        assert_eq!(first.0, second.0);
        let mode = std::fs::metadata(data.path().join(KEY_FILE)).unwrap().mode();
        assert_eq!(mode & 0o7777, READ_ONLY);
    }

    #[test]
    fn a_key_that_others_may_have_seen_or_that_was_cut_is_replaced() {
        let data = tempfile::tempdir().unwrap();
        let first = NodeKey::load(data.path()).unwrap();
        let path = data.path().join(KEY_FILE);
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let second = NodeKey::load(data.path()).unwrap();
        assert_ne!(first.0, second.0);
        std::fs::remove_file(&path).unwrap();
        write_key(data.path(), &path, b"short").unwrap();
        assert_ne!(NodeKey::load(data.path()).unwrap().0, second.0);
    }

    #[test]
    fn a_seal_holds_for_its_bytes_module_metering_compiler_and_node_alone() {
        let node = NodeKey::fleeting().unwrap();
        let compiled = vec![7; BUFFER_BYTES + 1];
        let sealed = [&compiled[..], &node.seal(&KEY, "a", &compiled)].concat();
        assert!(verifies(&node, &KEY, "a", &sealed));
        assert!(!verifies(&node, &KEY, "b", &sealed));
        assert!(!verifies(
            &node,
            &ArtifactKey {
                metering: Metering::Fuel,
                ..KEY
            },
            "a",
            &sealed
        ));
        assert!(!verifies(
            &node,
            &ArtifactKey {
                digest: Digest::from_bytes([2; 32]),
                ..KEY
            },
            "a",
            &sealed
        ));
        assert!(!verifies(&NodeKey::fleeting().unwrap(), &KEY, "a", &sealed));
        for at in [0, BUFFER_BYTES, sealed.len() - 1] {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(!verifies(&node, &KEY, "a", &damaged), "byte {at}");
        }
        for length in [0, SEAL_BYTES - 1, SEAL_BYTES, sealed.len() - 1] {
            assert!(!verifies(&node, &KEY, "a", &sealed[..length]), "{length} bytes");
        }
    }
}
