//! How things are named and laid out in the local database. Anything that does not parse is skipped: it is a cache.
//!
//! Another layout needs another [`FOLDER`], so that an old one is never misread.

use bytes::Bytes;
use wess_schemas::Digest;

use super::record::RawRecord;

/// The database's folder within the data folder.
pub(super) const FOLDER: &str = "cache-v1";
/// Digest to Wasm bytes.
pub(super) const BLOBS: &str = "blobs";
/// Digest to size and last use, so that a start reads no blob.
pub(super) const USES: &str = "uses";
/// Key of `wess-modules` to revision and record.
pub(super) const CATALOG: &str = "catalog";
/// In [`CATALOG`]: the revision up to which it is complete. No module key begins so.
pub(super) const CATALOG_REVISION: &[u8] = b"\0revision";

/// How large a blob is and when it was last used, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) bytes: u64,
    pub(super) last_used: u64,
}

impl Use {
    pub(super) fn encode(self) -> [u8; 16] {
        let mut value = [0; 16];
        value[..8].copy_from_slice(&self.bytes.to_be_bytes());
        value[8..].copy_from_slice(&self.last_used.to_be_bytes());
        value
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let (bytes, last_used) = value.split_first_chunk()?;
        let last_used = last_used.try_into().ok()?;
        Some(Self {
            bytes: u64::from_be_bytes(*bytes),
            last_used: u64::from_be_bytes(last_used),
        })
    }
}

/// The digest that a key of [`BLOBS`] or [`USES`] is.
pub(super) fn decode_digest(key: &[u8]) -> Option<Digest> {
    key.try_into().ok().map(Digest::from_bytes)
}

/// The value that [`CATALOG`] holds for a record.
pub(super) fn encode_record(revision: u64, value: &[u8]) -> Vec<u8> {
    [&revision.to_be_bytes(), value].concat()
}

/// The record in an entry of [`CATALOG`].
pub(super) fn decode_record(key: &[u8], value: &[u8]) -> Option<RawRecord> {
    let (revision, value) = value.split_first_chunk()?;
    Some(RawRecord {
        key: String::from_utf8(key.into()).ok()?,
        revision: u64::from_be_bytes(*revision),
        value: Some(Bytes::copy_from_slice(value)),
    })
}

/// The value of [`CATALOG_REVISION`].
pub(super) fn decode_revision(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let usage = Use {
            bytes: 7,
            last_used: u64::MAX,
        };
        assert_eq!(Use::decode(&usage.encode()), Some(usage));
        let digest = Digest::from_bytes([9; 32]);
        assert_eq!(decode_digest(digest.as_bytes()), Some(digest));
        let record = decode_record(b"default.a", &encode_record(5, b"{}")).unwrap();
        let expected = RawRecord {
            key: "default.a".into(),
            revision: 5,
            value: Some("{}".into()),
        };
        assert_eq!(record, expected);
        assert_eq!(decode_revision(&6u64.to_be_bytes()), Some(6));
    }

    #[test]
    fn half_written_values_are_nothing() {
        assert_eq!(Use::decode(&[0; 15]), None);
        assert_eq!(decode_digest(&[0; 31]), None);
        assert_eq!(decode_record(b"a", &[0; 7]), None);
        assert_eq!(decode_record(&[0xff], &[0; 9]), None);
        assert_eq!(decode_revision(&[]), None);
    }
}
