//! The flags that say what holds for a version: its limits, what its guests are given, what they may reach.

use std::path::PathBuf;

use clap::Args;

use super::{CallLimits, SealingKeyArg};

/// A version's terms, as a file and flags; flags come after the file.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Settings")]
pub struct SettingsArgs {
    /// A file that says all of this: see docs/settings.md.
    #[arg(long, short = 'f', value_name = "wess.toml")]
    pub settings: Option<PathBuf>,
    /// A line for people.
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// An environment variable of every run.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub env: Vec<(String, String)>,
    /// An environment variable that only guests read: sealed before it leaves this machine; @FILE reads it from a file.
    #[arg(long = "secret", value_name = "NAME=VALUE|@FILE", value_parser = pair)]
    pub secrets: Vec<(String, String)>,
    #[command(flatten)]
    pub sealing_key: SealingKeyArg,
    /// A value that guests read through wasi:config.
    #[arg(long = "config", value_name = "NAME=VALUE", value_parser = pair)]
    pub values: Vec<(String, String)>,
    /// Give the same job the same bytes whenever it runs; excludes every grant.
    #[arg(long)]
    pub deterministic: bool,
    /// Let an instance serve up to so many calls, one after the other: each finds what the others left in its memory.
    #[arg(long, value_name = "N")]
    pub reuse: Option<u32>,
    /// A host whose requests at a gateway go to the module: NAME or *.NAME.
    #[arg(long = "route", value_name = "HOST")]
    pub routes: Vec<String>,
    /// Let guests use wasi:keyvalue.
    #[arg(long)]
    pub allow_keyvalue: bool,
    /// A subject that guests may publish to.
    #[arg(long = "allow-publish", value_name = "SUBJECT")]
    pub publish: Vec<String>,
    /// A host that guests may send HTTP requests to: [SCHEME://]HOST[:PORT], where HOST is a name, *.name or an address.
    #[arg(long = "allow-http", value_name = "HOST")]
    pub http: Vec<String>,
    /// A container of wasi:blobstore that guests may make and use.
    #[arg(long = "allow-blobstore", value_name = "CONTAINER")]
    pub blobstore: Vec<String>,
    #[command(flatten)]
    pub limits: CallLimits,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it must be NAME=VALUE")?;
    Ok((name.into(), value.into()))
}
