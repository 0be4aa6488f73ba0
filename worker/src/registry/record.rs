//! Records of `wess-modules` as they travel: raw bytes under a key at a revision, and what they say once parsed.
//!
//! Parsing is the only way from one to the other; what does not parse is named and never half believed.

use wess_schemas::id::InvalidName;
use wess_schemas::module::{ModuleHead, ModuleVersion};
use wess_schemas::subject::ModuleKey;
use wess_schemas::wit::ComponentInterface;
pub(super) use wess_service::feed::RawRecord;

/// A parsed entry.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Change {
    pub(super) key: ModuleKey,
    pub(super) revision: u64,
    pub(super) record: Record,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Record {
    Head(ModuleHead),
    Version(Box<ModuleVersion>),
    Gone,
}

/// Why an entry says nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Garbage {
    #[error("its key is none of ours")]
    Key(#[source] InvalidName),
    #[error("its value is no record")]
    Value(#[source] serde_json::Error),
    #[error("its value breaks a rule: {0}")]
    Rule(&'static str),
}

pub(super) fn parse(raw: &RawRecord) -> Result<Change, Garbage> {
    let key: ModuleKey = raw.key.parse().map_err(Garbage::Key)?;
    let record = match (&key, &raw.value) {
        (_, None) => Record::Gone,
        (ModuleKey::Head(..), Some(value)) => Record::Head(parse_head(value)?),
        (ModuleKey::Version(_, _, number), Some(value)) => {
            Record::Version(Box::new(parse_version(value, number.get())?))
        }
    };
    Ok(Change {
        key,
        revision: raw.revision,
        record,
    })
}

pub(super) fn parse_head(value: &[u8]) -> Result<ModuleHead, Garbage> {
    let head: ModuleHead = serde_json::from_slice(value).map_err(Garbage::Value)?;
    let ascending = head.versions.is_sorted_by(|a, b| a < b);
    if head.versions.first().is_none_or(|first| *first == 0) || !ascending {
        return Err(Garbage::Rule("versions must ascend from 1 or more"));
    }
    if !head
        .tags
        .values()
        .all(|version| head.versions.binary_search(version).is_ok())
    {
        return Err(Garbage::Rule("every tag must name one of its versions"));
    }
    Ok(head)
}

pub(super) fn parse_version(value: &[u8], number: u32) -> Result<ModuleVersion, Garbage> {
    let version: ModuleVersion = serde_json::from_slice(value).map_err(Garbage::Value)?;
    if version.version != number {
        return Err(Garbage::Rule("a version must be stored under its own number"));
    }
    if !version
        .component
        .as_ref()
        .is_none_or(ComponentInterface::is_sound)
    {
        return Err(Garbage::Rule("a type must be made of earlier ones"));
    }
    Ok(version)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use bytes::Bytes;
    use wess_schemas::module::Abi;
    use wess_schemas::timestamp::Timestamp;
    use wess_schemas::{Digest, Limits, ModuleId, ModuleName, Tenant};

    pub(in crate::registry) fn head(versions: &[u32]) -> ModuleHead {
        ModuleHead {
            id: ModuleId::generate(),
            tags: Default::default(),
            versions: versions.into(),
            routes: Default::default(),
            limits: Limits::default(),
            created: Timestamp::now(),
            updated: Timestamp::now(),
        }
    }

    pub(in crate::registry) fn version(number: u32, digest: u8) -> ModuleVersion {
        ModuleVersion {
            version: number,
            digest: Digest::from_bytes([digest; 32]),
            size: 8,
            abi: Abi::Typed,
            exports: Vec::new(),
            component: None,
            chain: None,
            limits: Limits::default(),
            settings: Default::default(),
            created: Timestamp::now(),
        }
    }

    pub(in crate::registry) fn head_change(name: &str, revision: u64, head: ModuleHead) -> Change {
        let name: ModuleName = name.parse().unwrap();
        Change {
            key: ModuleKey::Head(Tenant::default(), name),
            revision,
            record: Record::Head(head),
        }
    }

    pub(in crate::registry) fn version_change(name: &str, revision: u64, version: ModuleVersion) -> Change {
        let number = version.version.try_into().unwrap();
        let key = ModuleKey::Version(Tenant::default(), name.parse().unwrap(), number);
        Change {
            key,
            revision,
            record: Record::Version(Box::new(version)),
        }
    }

    fn raw(key: &str, value: &str) -> RawRecord {
        RawRecord {
            key: key.into(),
            revision: 1,
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
        }
    }

    #[test]
    fn records_parse_back() {
        let head = head(&[1, 3]);
        let parsed = parse(&raw("default.a", &serde_json::to_string(&head).unwrap())).unwrap();
        assert_eq!(parsed, head_change("a", 1, head));
        let version = version(3, 7);
        let parsed = parse(&raw("default.a.v3", &serde_json::to_string(&version).unwrap())).unwrap();
        assert_eq!(parsed, version_change("a", 1, version));
        let gone = RawRecord {
            key: "default.a".into(),
            revision: 2,
            value: None,
        };
        assert_eq!(parse(&gone).unwrap().record, Record::Gone);
    }

    #[test]
    fn garbage_is_refused_with_what_is_wrong() {
        for (key, value) in [
            ("nope", "{}"),
            ("default.a", "{}"),
            ("default.a", ""),
            ("default.a.v1", "[]"),
        ] {
            assert!(parse(&raw(key, value)).is_err(), "{key} {value}");
        }
        let misfiled = serde_json::to_string(&version(2, 7)).unwrap();
        assert!(matches!(
            parse(&raw("default.a.v1", &misfiled)),
            Err(Garbage::Rule(_))
        ));
        for versions in [&[][..], &[0], &[2, 1], &[1, 1]] {
            let text = serde_json::to_string(&head(versions)).unwrap();
            assert!(
                matches!(parse(&raw("default.a", &text)), Err(Garbage::Rule(_))),
                "{versions:?}"
            );
        }
        let mut dangling = head(&[1]);
        dangling.tags.insert("stable".parse().unwrap(), 2);
        let text = serde_json::to_string(&dangling).unwrap();
        assert!(matches!(parse(&raw("default.a", &text)), Err(Garbage::Rule(_))));
    }
}
