//! What a module's owner says of it: what its guests are given, and what they may reach. Part of each version, so that a
//! tag which is moved back brings back what held then.
//!
//! Invariant: what is not granted here no guest has.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hosts::{HostGrant, InvalidHostGrant};
use crate::limits::{Limits, MAX_ENV_BYTES, MAX_ENV_ENTRIES};
use crate::pattern::is_pattern;
use crate::route::{MAX_ROUTES, is_route};
use crate::secret::{MAX_SECRETS, SealedSecret};

/// Longest description, in characters.
pub const MAX_DESCRIPTION: usize = 1024;
/// Most subjects of one module, most hosts, and most containers.
pub const MAX_GRANTS: usize = 64;
/// Most characters of all sealed secrets of a module together: they are part of its record.
pub const MAX_SECRETS_CHARS: usize = 64 << 10;
/// Longest subject.
pub const MAX_GRANT_BYTES: usize = 255;
/// Most calls that one instance may serve.
pub const MAX_REUSE: u32 = 1_000_000;
/// A module's settings; what is left out is empty, off or denied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// A line for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Environment variables of every run. A caller may add others, and cannot change these.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Environment variables that nobody but the guest reads: sealed to the fleet's key, for this module and this name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SealedSecret>,
    /// What guests read through `wasi:config`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
    /// Whether the same job must give the same bytes whenever it runs: randomness comes from the module's bytes and the
    /// job's id, clocks stand at the time when the job was accepted, and nothing may be granted.
    #[serde(skip_serializing_if = "is_false")]
    pub deterministic: bool,
    /// Whether an instance may serve more than one call; left out, each call has a fresh one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// Hosts whose requests at a gateway go to the module, while this is its newest version.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub routes: BTreeSet<String>,
    /// What guests may reach.
    #[serde(skip_serializing_if = "Grants::is_empty")]
    pub grants: Grants,
}

/// What one call of a module may find of another. What a guest leaves in its memory, its next call finds there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Isolation {
    /// Most calls that one instance serves, one after the other.
    #[schemars(range(min = 2, max = 1_000_000))]
    pub reuse: u32,
}

/// The body of `PUT /v1/modules/{name}/settings`: what is said replaces what held before, each as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SettingsChange {
    /// The limits of the next version; left out, those of the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Its settings; left out, those of the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Settings>,
}

/// What a module's guests may reach beyond their input and output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// `wasi:keyvalue`: the module's own state.
    #[serde(skip_serializing_if = "is_false")]
    pub keyvalue: bool,
    /// Subjects that guests may publish to; `*` and `>` as in NATS.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub publish: BTreeSet<String>,
    /// Hosts that guests may send HTTP requests to, as `docs/settings.md` has it.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub http: BTreeSet<String>,
    /// Containers of `wasi:blobstore`, which are the module's own, that guests may make and use.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub blobstore: BTreeSet<String>,
}

impl Grants {
    /// Whether nothing is granted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn check_containers(&self) -> Result<(), InvalidSettings> {
        if self.blobstore.len() > MAX_GRANTS {
            return Err(InvalidSettings::TooManyContainers);
        }
        self.blobstore
            .iter()
            .try_for_each(|name| check_name("grants.blobstore", name))
    }

    fn check_hosts(&self) -> Result<(), InvalidSettings> {
        if self.http.len() > MAX_GRANTS {
            return Err(InvalidSettings::TooManyHosts);
        }
        for entry in &self.http {
            if let Err(why) = entry.parse::<HostGrant>() {
                let entry = brief(entry);
                return Err(InvalidSettings::Host { entry, why });
            }
        }
        Ok(())
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

/// What is wrong with settings that parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    /// Too long a description.
    #[error("settings.description has more than {MAX_DESCRIPTION} characters")]
    Description,
    /// Too many entries, or too many bytes in them.
    #[error("settings.{0} has more than {MAX_ENV_ENTRIES} entries or {MAX_ENV_BYTES} bytes")]
    TooMuch(&'static str),
    /// A name that cannot be one.
    #[error(
        "settings.{field} has the name {name:?}: letters, digits, _, - and . are allowed, 1 to 128 of them"
    )]
    Name {
        /// The field on the wire.
        field: &'static str,
        /// The name.
        name: String,
    },
    /// A value that cannot be passed on.
    #[error("settings.{field}.{name} has a NUL")]
    Value {
        /// The field on the wire.
        field: &'static str,
        /// The name.
        name: String,
    },
    /// Too many subjects.
    #[error("settings.grants.publish has more than {MAX_GRANTS} entries")]
    TooManyGrants,
    /// Too many of them.
    #[error(
        "settings.secrets has more than {MAX_SECRETS} entries, or more than {MAX_SECRETS_CHARS} characters"
    )]
    TooManySecrets,
    /// It cannot be both.
    #[error("{0} stands in settings.env and in settings.secrets")]
    Twice(String),
    /// What is granted differs from one run to the next.
    #[error(
        "settings.deterministic and settings.grants exclude each other: what is granted may differ at the next run"
    )]
    Deterministic,
    /// Not a number of calls for one instance.
    #[error("settings.isolation.reuse is {0}, but must be from 2 to {MAX_REUSE}")]
    Reuse(u32),
    /// What was left by another call differs from one run to the next.
    #[error(
        "settings.deterministic and settings.isolation exclude each other: what another call left may differ at the next run"
    )]
    DeterministicReuse,
    /// No subject, or one that is not to be published to.
    #[error("settings.grants.publish has {0:?}, which is no subject, or one that nobody may publish to")]
    Subject(String),
    /// Too many of them.
    #[error("settings.routes has more than {MAX_ROUTES} entries")]
    TooManyRoutes,
    /// Not a host that a gateway is asked for.
    #[error(
        "settings.routes has {0:?}, which is no name of a host in lower case (of another script: in punycode), and no *.name with a dot in the name"
    )]
    Route(String),
    /// Too many containers.
    #[error("settings.grants.blobstore has more than {MAX_GRANTS} entries")]
    TooManyContainers,
    /// Too many hosts.
    #[error("settings.grants.http has more than {MAX_GRANTS} entries")]
    TooManyHosts,
    /// Not a host.
    #[error("settings.grants.http has {entry:?}: {why}")]
    Host {
        /// The entry.
        entry: String,
        /// What is wrong with it.
        why: InvalidHostGrant,
    },
}

impl Settings {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks every bound. Whether a subject is one of Wess's own is for whoever knows its prefix.
    pub fn check(&self) -> Result<(), InvalidSettings> {
        let described = self.description.as_ref().map_or(0, |text| text.chars().count());
        if described > MAX_DESCRIPTION {
            return Err(InvalidSettings::Description);
        }
        check_values("env", &self.env)?;
        check_values("config", &self.config)?;
        self.check_secrets()?;
        if self.deterministic && !self.grants.is_empty() {
            return Err(InvalidSettings::Deterministic);
        }
        self.check_isolation()?;
        if self.grants.publish.len() > MAX_GRANTS {
            return Err(InvalidSettings::TooManyGrants);
        }
        if let Some(subject) = self.grants.publish.iter().find(|subject| !is_subject(subject)) {
            return Err(InvalidSettings::Subject(brief(subject)));
        }
        self.check_routes()?;
        self.grants.check_containers()?;
        self.grants.check_hosts()
    }

    fn check_routes(&self) -> Result<(), InvalidSettings> {
        if self.routes.len() > MAX_ROUTES {
            return Err(InvalidSettings::TooManyRoutes);
        }
        match self.routes.iter().find(|route| !is_route(route)) {
            Some(route) => Err(InvalidSettings::Route(brief(route))),
            None => Ok(()),
        }
    }
}

impl Settings {
    fn check_isolation(&self) -> Result<(), InvalidSettings> {
        match self.isolation {
            Some(_) if self.deterministic => Err(InvalidSettings::DeterministicReuse),
            Some(Isolation { reuse }) if !(2..=MAX_REUSE).contains(&reuse) => {
                Err(InvalidSettings::Reuse(reuse))
            }
            _ => Ok(()),
        }
    }

    fn check_secrets(&self) -> Result<(), InvalidSettings> {
        let chars: usize = self.secrets.values().map(|sealed| sealed.as_str().len()).sum();
        if self.secrets.len() > MAX_SECRETS || chars > MAX_SECRETS_CHARS {
            return Err(InvalidSettings::TooManySecrets);
        }
        for name in self.secrets.keys() {
            check_name("secrets", name)?;
            if self.env.contains_key(name) {
                return Err(InvalidSettings::Twice(name.clone()));
            }
        }
        Ok(())
    }
}

fn check_values(field: &'static str, values: &BTreeMap<String, String>) -> Result<(), InvalidSettings> {
    let bytes: usize = values.iter().map(|(name, value)| name.len() + value.len()).sum();
    if values.len() > MAX_ENV_ENTRIES || bytes > MAX_ENV_BYTES {
        return Err(InvalidSettings::TooMuch(field));
    }
    for (name, value) in values {
        check_name(field, name)?;
        if value.contains('\0') {
            let name = name.clone();
            return Err(InvalidSettings::Value { field, name });
        }
    }
    Ok(())
}

fn check_name(field: &'static str, name: &str) -> Result<(), InvalidSettings> {
    match is_setting_name(name) {
        true => Ok(()),
        false => Err(InvalidSettings::Name {
            field,
            name: brief(name),
        }),
    }
}

/// Whether a variable, a value or a container may have this name.
fn is_setting_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=128).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with('.')
        && !name.ends_with('.')
        && !name.contains("..")
}

/// A subject or a pattern of subjects; nothing of NATS's own, and no wildcard that could stand for that.
fn is_subject(subject: &str) -> bool {
    subject.len() <= MAX_GRANT_BYTES && is_pattern(subject) && !subject.starts_with(['$', '_', '*', '>'])
}

fn brief(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(json: &str) -> Settings {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_fits_is_taken_and_read_back_as_it_was() {
        let all = settings(
            r#"{"description":"resizes","env":{"LANG":"C"},"config":{"size.max":"9"},"isolation":{"reuse":2},
                "routes":["hello.example.com","*.shop.example.com"],
                "grants":{"keyvalue":true,"publish":["orders.>","a.*.b"],"http":["*.a.com"],
                    "blobstore":["pictures","raw_v2.EU"]}}"#,
        );
        assert_eq!(all.check(), Ok(()));
        let text = serde_json::to_string(&all).unwrap();
        assert_eq!(settings(&text), all);
        assert_eq!(serde_json::to_string(&Settings::default()).unwrap(), "{}");
    }

    #[test]
    fn every_bound_is_held_by_its_name() {
        let entries: Vec<_> = (0..=MAX_ENV_ENTRIES).map(|at| format!(r#""a{at}":"""#)).collect();
        let sealed: Vec<_> = (0..=MAX_SECRETS).map(|at| format!(r#""a{at}":"XA.b""#)).collect();
        let subjects: Vec<_> = (0..=MAX_GRANTS).map(|at| format!(r#""a{at}""#)).collect();
        for (json, named) in [
            (
                format!(r#"{{"description":"{}"}}"#, "a".repeat(MAX_DESCRIPTION + 1)),
                "description",
            ),
            (format!(r#"{{"env":{{{}}}}}"#, entries.join(",")), "settings.env"),
            (
                format!(r#"{{"config":{{"a":"{}"}}}}"#, "a".repeat(MAX_ENV_BYTES)),
                "settings.config",
            ),
            (
                r#"{"deterministic":true,"grants":{"keyvalue":true}}"#.into(),
                "settings.deterministic",
            ),
            (
                r#"{"isolation":{"reuse":1}}"#.into(),
                "settings.isolation.reuse is 1,",
            ),
            (
                r#"{"isolation":{"reuse":1000001}}"#.into(),
                "settings.isolation.reuse is 1000001,",
            ),
            (
                r#"{"deterministic":true,"isolation":{"reuse":2}}"#.into(),
                "settings.deterministic and settings.isolation",
            ),
            (
                r#"{"env":{"A":""},"secrets":{"A":"XA.b"}}"#.into(),
                "settings.env and in settings.secrets",
            ),
            (
                format!(r#"{{"secrets":{{{}}}}}"#, sealed.join(",")),
                "settings.secrets",
            ),
            (r#"{"env":{"A=B":""}}"#.into(), "settings.env has the name"),
            (r#"{"env":{"":""}}"#.into(), "settings.env has the name"),
            (r#"{"env":{"A":"\u0000"}}"#.into(), "settings.env.A"),
            (
                format!(r#"{{"grants":{{"publish":[{}]}}}}"#, subjects.join(",")),
                "settings.grants.publish",
            ),
            (
                r#"{"grants":{"publish":["$JS.API.>"]}}"#.into(),
                "settings.grants.publish",
            ),
            (
                r#"{"grants":{"publish":[">"]}}"#.into(),
                "settings.grants.publish",
            ),
            (
                r#"{"grants":{"publish":["a..b"]}}"#.into(),
                "settings.grants.publish",
            ),
            (
                r#"{"grants":{"publish":["a.>.b"]}}"#.into(),
                "settings.grants.publish",
            ),
            (
                format!(r#"{{"routes":[{}]}}"#, subjects[..=MAX_ROUTES].join(",")),
                "settings.routes has more than",
            ),
            (
                r#"{"routes":["a.com","a.com:80"]}"#.into(),
                r#"settings.routes has "a.com:80""#,
            ),
            (
                format!(r#"{{"grants":{{"http":[{}]}}}}"#, subjects.join(",")),
                "settings.grants.http has more than",
            ),
            (
                format!(r#"{{"grants":{{"blobstore":[{}]}}}}"#, subjects.join(",")),
                "settings.grants.blobstore has more than",
            ),
            (
                r#"{"grants":{"blobstore":["a/b"]}}"#.into(),
                r#"settings.grants.blobstore has the name "a/b""#,
            ),
            (
                r#"{"grants":{"http":["https://a.com/b"]}}"#.into(),
                r#"settings.grants.http has "https://a.com/b": its host"#,
            ),
        ] {
            let refused = settings(&json).check().expect_err(&json).to_string();
            assert!(refused.contains(named), "{json}: {refused}");
        }
        for unknown in [
            r#"{"grant":{}}"#,
            r#"{"isolation":{}}"#,
            r#"{"isolation":{"reuse":2,"idle":1}}"#,
        ] {
            assert!(serde_json::from_str::<Settings>(unknown).is_err(), "{unknown}");
        }
    }
}
