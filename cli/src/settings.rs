//! `wess.toml` and its flags: what holds for a version, and perhaps its name and where its bytes are.
//!
//! Whoever says anything about settings says all of them; whoever says nothing leaves what holds for the newest version.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use wess_schemas::settings::{Isolation, Settings, SettingsChange};
use wess_schemas::{Limits, ModuleName};
use wess_service::nats::NatsOptions;

use crate::args::SettingsArgs;
use crate::commands::seal;
use crate::exit::Exit;
use crate::fault::Fault;

/// What a file says besides terms.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The module's name.
    pub name: Option<ModuleName>,
    /// Where its bytes are, by the file's own folder.
    pub module: Option<PathBuf>,
    /// Its terms.
    pub terms: SettingsChange,
}

impl SettingsArgs {
    /// The file, if one is named, and over it the flags.
    pub fn read(&self) -> Result<Manifest, Fault> {
        let mut manifest = match &self.settings {
            Some(path) => read(path)?,
            None => Manifest::default(),
        };
        let flags = self.limits.limits();
        if !flags.is_empty() {
            let file = manifest.terms.limits.unwrap_or_default();
            manifest.terms.limits = Some(Limits {
                timeout_ms: flags.timeout_ms.or(file.timeout_ms),
                memory_mb: flags.memory_mb.or(file.memory_mb),
                fuel: flags.fuel.or(file.fuel),
                output_bytes: flags.output_bytes.or(file.output_bytes),
            });
        }
        if self.says_settings() {
            let settings = manifest.terms.settings.get_or_insert_default();
            self.write(settings);
        }
        if let Some(settings) = &manifest.terms.settings {
            settings
                .check()
                .map_err(|error| Fault::local(Exit::BadInput, error.to_string()))?;
        }
        Ok(manifest)
    }

    /// Seals the secrets that flags name, and adds them.
    pub async fn seal_into(
        &self,
        terms: &mut SettingsChange,
        module: &ModuleName,
        nats: &NatsOptions,
    ) -> Result<(), Fault> {
        if self.secrets.is_empty() {
            return Ok(());
        }
        let key = seal::sealing_key(&self.sealing_key, nats).await?;
        let settings = terms.settings.get_or_insert_default();
        for (name, value) in &self.secrets {
            let sealed = seal::seal(&key, module, name, &seal::value(value)?)?;
            settings.secrets.insert(name.clone(), sealed);
        }
        settings
            .check()
            .map_err(|error| Fault::local(Exit::BadInput, error.to_string()))
    }

    fn says_settings(&self) -> bool {
        self.description.is_some()
            || self.deterministic
            || self.reuse.is_some()
            || self.allow_keyvalue
            || !self.env.is_empty()
            || !self.values.is_empty()
            || !self.routes.is_empty()
            || !self.publish.is_empty()
            || !self.http.is_empty()
            || !self.blobstore.is_empty()
    }

    fn write(&self, settings: &mut Settings) {
        settings.description = self.description.clone().or(settings.description.take());
        settings.env.extend(self.env.iter().cloned());
        settings.config.extend(self.values.iter().cloned());
        settings.deterministic |= self.deterministic;
        settings.isolation = self.reuse.map(|reuse| Isolation { reuse }).or(settings.isolation);
        settings.routes.extend(self.routes.iter().cloned());
        settings.grants.keyvalue |= self.allow_keyvalue;
        settings.grants.publish.extend(self.publish.iter().cloned());
        settings.grants.http.extend(self.http.iter().cloned());
        settings.grants.blobstore.extend(self.blobstore.iter().cloned());
    }
}

fn read(path: &Path) -> Result<Manifest, Fault> {
    let wrong = |error: &dyn std::fmt::Display| {
        Fault::local(Exit::BadInput, format!("cannot read {}: {error}", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    let mut manifest = parse(&text).map_err(|error| wrong(&error))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    manifest.module = manifest.module.map(|module| folder.join(module));
    Ok(manifest)
}

/// What is neither name, bytes nor limits is a setting, and refused by name if there is none such.
fn parse(text: &str) -> Result<Manifest, toml::de::Error> {
    let mut table: toml::Table = text.parse()?;
    let (name, module, limits) = (
        table.remove("name"),
        table.remove("module"),
        table.remove("limits"),
    );
    let settings = Settings::deserialize(table)?;
    Ok(Manifest {
        name: name.map(ModuleName::deserialize).transpose()?,
        module: module.map(PathBuf::deserialize).transpose()?,
        terms: SettingsChange {
            limits: limits.map(Limits::deserialize).transpose()?,
            settings: Some(settings),
        },
    })
}

/// The name that a file's own suggests: `my_module.wasm` is `my-module`.
pub fn name_of(file: &str) -> Result<ModuleName, Fault> {
    let stem = Path::new(file).file_stem().unwrap_or_default().to_string_lossy();
    let plain = stem.to_ascii_lowercase().replace(['_', '.', ' '], "-");
    let name = plain.trim_matches('-').parse();
    name.map_err(|_| {
        Fault::local(
            Exit::Usage,
            format!("{file:?} suggests no name: say wess store NAME FILE"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = r#"
        name = "resize"
        module = "out/resize.wasm"
        description = "resizes"
        routes = ["a.example.com"]
        isolation = { reuse = 10 }
        [limits]
        memory_mb = 128
        [env]
        LANG = "C"
        [config]
        "size.max" = "9"
        [grants]
        keyvalue = true
        publish = ["pictures.>"]
        http = ["api.example.com"]
        blobstore = ["pictures"]
    "#;

    #[test]
    fn a_file_says_all_that_flags_can_and_flags_come_after_it() {
        let manifest = parse(ALL).unwrap();
        assert_eq!(manifest.name.unwrap().as_str(), "resize");
        assert_eq!(manifest.module.unwrap(), Path::new("out/resize.wasm"));
        assert_eq!(manifest.terms.limits.unwrap().memory_mb, Some(128));
        let mut settings = manifest.terms.settings.unwrap();
        assert_eq!(settings.isolation, Some(Isolation { reuse: 10 }));
        let flags = SettingsArgs {
            env: vec![("LANG".into(), "de".into())],
            reuse: Some(20),
            routes: vec!["*.b.example.com".into()],
            publish: vec!["b.c".into()],
            http: vec!["*.example.org".into()],
            blobstore: vec!["raw".into()],
            ..SettingsArgs::default()
        };
        flags.write(&mut settings);
        assert_eq!(settings.env["LANG"], "de");
        let grants = &settings.grants;
        assert_eq!(
            (grants.publish.len(), grants.http.len(), grants.blobstore.len()),
            (2, 2, 2)
        );
        assert_eq!(settings.routes.len(), 2);
        assert_eq!(settings.isolation, Some(Isolation { reuse: 20 }));
        assert!(settings.grants.keyvalue && settings.description.as_deref() == Some("resizes"));
    }

    #[test]
    fn what_a_file_may_not_say_is_named() {
        for (text, named) in [
            ("grant = 1", "grant"),
            ("[limits]\ntimeout = 1", "timeout"),
            ("name = \"A\"", "name"),
            ("[env]\nA = 1", "string"),
        ] {
            assert!(parse(text).unwrap_err().to_string().contains(named), "{text}");
        }
    }

    #[test]
    fn nothing_said_is_nothing_changed() {
        let manifest = SettingsArgs::default().read().unwrap();
        assert_eq!(manifest, Manifest::default());
    }

    #[test]
    fn a_file_suggests_a_name() {
        assert_eq!(name_of("a/My_module.v2.wasm").unwrap().as_str(), "my-module-v2");
        assert!(name_of("___.wasm").is_err());
    }
}
