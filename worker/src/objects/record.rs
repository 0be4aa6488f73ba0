//! What is stored of an object, or of a container: the JSON that NATS's tools list object stores by.
//!
//! Trusts nothing that it reads: whoever may write into the object store may have written it.

use serde::{Deserialize, Serialize};
use wess_schemas::ModuleName;

use crate::guest::{CHUNK_BYTES, Upload, Written};

/// What the digest begins with.
const SHA256: &str = "SHA-256=";

/// The value of a message under `M`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    name: String,
    bucket: String,
    /// The module's name and the upload's: together what chunks are found by.
    nuid: String,
    size: u64,
    chunks: u64,
    digest: String,
}

impl Record {
    /// Of an object.
    pub fn object(bucket: &str, module: &ModuleName, container: &str, name: &str, written: &Written) -> Self {
        Self {
            name: format!("{module}/{container}/{name}"),
            bucket: bucket.into(),
            nuid: format!("{module}.{}", written.upload.0),
            size: written.size,
            chunks: written.size.div_ceil(CHUNK_BYTES),
            digest: format!("{SHA256}{}", written.digest.to_hex()),
        }
    }

    /// Of a container.
    pub fn container(bucket: &str, module: &ModuleName, container: &str) -> Self {
        Self {
            name: format!("{module}/{container}/"),
            bucket: bucket.into(),
            nuid: String::new(),
            size: 0,
            chunks: 0,
            digest: String::new(),
        }
    }

    /// What was written, if it can have been by this module.
    pub fn written(&self, module: &ModuleName) -> Option<Written> {
        let (owner, upload) = self.nuid.split_once('.')?;
        let is_upload = !upload.is_empty() && upload.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let is_ours = owner == module.as_str() && is_upload;
        (is_ours && self.chunks == self.size.div_ceil(CHUNK_BYTES)).then_some(())?;
        let digest = self.digest.strip_prefix(SHA256)?;
        Some(Written {
            upload: Upload(upload.into()),
            size: self.size,
            digest: format!("sha256:{digest}").parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use wess_schemas::Digest;

    use super::*;

    fn written(size: u64) -> Written {
        Written {
            upload: Upload("a1".into()),
            size,
            digest: Digest::from_bytes([7; 32]),
        }
    }

    #[test]
    fn what_was_written_is_read_back_by_its_module_alone() {
        let (module, other) = ("resize".parse().unwrap(), "other".parse().unwrap());
        for size in [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1] {
            let record = Record::object("b", &module, "pictures", "a", &written(size));
            assert_eq!(record.written(&module), Some(written(size)));
            assert_eq!(record.written(&other), None);
        }
        assert_eq!(Record::container("b", &module, "c").written(&module), None);
    }

    #[test]
    fn nothing_forged_leads_to_bytes_that_are_not_there() {
        let module = "resize".parse().unwrap();
        let forged = |change: fn(&mut Record)| {
            let mut record = Record::object("b", &module, "pictures", "a", &written(1));
            change(&mut record);
            record.written(&module)
        };
        assert_eq!(forged(|record| record.nuid = "resize.>".into()), None);
        assert_eq!(forged(|record| record.nuid = "resize.".into()), None);
        assert_eq!(forged(|record| record.size = u64::MAX), None);
        assert_eq!(forged(|record| record.digest = "SHA-256=00".into()), None);
    }
}
