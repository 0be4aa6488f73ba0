//! The command line: every command, flag and environment variable of `wess`, with examples where they are looked for.
//!
//! Parses and does nothing else; what parses here is within its grammar, not yet within anyone's limits.

mod bindings;
mod call;
mod jobs;
mod peer;
mod seal;
mod servers;
mod settings;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use wess_schemas::{ModuleName, Reference, Tag};
use wess_service::nats::NatsOptions;

pub use bindings::{BindArgs, BindingsArgs, UnbindArgs};
pub use call::{CallLimits, ChainArgs, InvokeArgs, millis};
pub use jobs::{
    DeadArgs, DeadCommand, DeadGetArgs, DeadListArgs, DeadPurgeArgs, DeadRedriveArgs, JobCancelArgs,
    JobGetArgs, JobListArgs, JobSubmitArgs, JobWaitArgs, JobsArgs, JobsCommand, PageArgs,
};
pub use peer::{Peer, Place};
pub use seal::{SealArgs, SealingKeyArg};
pub use servers::{BenchArgs, BenchAxumArgs, BenchEchoArgs, ChildArgs, Scenario, UpArgs};
pub use settings::SettingsArgs;

use crate::exit;

/// Stores WebAssembly modules and runs them over NATS.
#[derive(Parser)]
#[command(
    name = "wess",
    version,
    propagate_version = true,
    after_long_help = exit::TABLE,
    after_help = "Begin with `wess up`; every command's --help has examples, this one's the exit codes."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Start everything in one process: NATS server, worker and gateway.
    Up(Box<UpArgs>),
    /// Store a module under a name.
    Store(Box<StoreArgs>),
    /// Change a module's settings: its limits, what its guests are given, what they may reach.
    Configure(Box<ConfigureArgs>),
    /// Run a module once and print its output.
    Invoke(InvokeArgs),
    /// Run modules in a row, each fed with the output of the one before.
    Chain(ChainArgs),
    /// List the stored modules.
    Ls(LsArgs),
    /// Show a module: its functions and signatures, its tags and versions.
    Describe(DescribeArgs),
    /// Give a version a name of its own, or take that name away.
    Tag(TagArgs),
    /// Remove a module, one version, or a tag.
    Rm(RmArgs),
    /// Submit durable jobs, wait for them, list and cancel them.
    Jobs(Box<JobsArgs>),
    /// See to the jobs that were given up: list them, submit them again, delete them.
    Dead(DeadArgs),
    /// Have a module run for each message of a subject or a stream.
    Bind(Box<BindArgs>),
    /// List what is bound.
    Bindings(BindingsArgs),
    /// Take a binding away.
    Unbind(UnbindArgs),
    /// Seal a secret for a module, or make the key that opens them.
    Seal(Box<SealArgs>),
    /// Measure this machine: what Wess does against a bare echo, in one run.
    Bench(BenchArgs),
    /// Print completions for a shell.
    Completions(CompletionsArgs),
    /// Become another program, one that ends with its parent.
    #[command(hide = true)]
    Child(ChildArgs),
    /// Answer each request with its own bytes.
    #[command(hide = true)]
    BenchEcho(BenchEchoArgs),
    /// Answer each HTTP request with its own body.
    #[command(hide = true)]
    BenchAxum(BenchAxumArgs),
}

/// The heading of what has none: a flattened group's heading would go on.
const OPTIONS: Option<&str> = None;

/// Where Wess is, and how to answer.
#[derive(Args)]
pub struct Remote {
    #[command(flatten)]
    pub nats: NatsOptions,
    /// Speak HTTP to this gateway instead of NATS.
    #[arg(long, env = "WESS_GATEWAY", value_name = "URL", help_heading = "HTTP")]
    pub gateway: Option<String>,
    /// Bearer token for the gateway.
    #[arg(
        id = "bearer_token",
        long = "token",
        env = "WESS_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        help_heading = "HTTP"
    )]
    pub token: Option<String>,
    /// For people, or for programs; errors on stderr follow suit.
    #[arg(
        long,
        short,
        env = "WESS_OUTPUT",
        value_enum,
        default_value_t,
        value_name = "FORM",
        help_heading = OPTIONS
    )]
    pub output: Output,
}

/// In which form to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    /// Tables and plain text.
    #[default]
    Human,
    /// JSON.
    Json,
}

/// `wess store`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  wess store guests/out/upper.wasm                named upper, after its file
  wess store add guests/typed/add.wat             text is assembled here
  wess store big app.wasm --memory-mb 256 --timeout 20s
  wess store --settings wess.toml                 name, file and all else stand there
  zig build-exe … && cat app.wasm | wess store app -
  wess store shout.json                           a chain: {\"steps\": [\"upper\", \"reverse\"]}
Storing the same again changes nothing; other bytes or settings become the next version.")]
pub struct StoreArgs {
    /// The name to store it under; left out, its file's.
    #[arg(value_name = "NAME")]
    pub first: Option<String>,
    /// A .wasm file, a .wat text, the .json of a chain, or - for stdin.
    #[arg(value_name = "FILE")]
    pub second: Option<String>,
    #[command(flatten)]
    pub settings: SettingsArgs,
    #[command(flatten)]
    pub remote: Remote,
}

/// `wess configure`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  wess configure upper --timeout 1s --description 'in upper case'
  wess configure api --settings wess.toml
  wess tag api stable 3                           and back, if it was wrong
The newest version's bytes with other settings become the next version. What is said
replaces what held before: limits and settings each as a whole.")]
pub struct ConfigureArgs {
    /// The module's name.
    pub name: ModuleName,
    #[command(flatten)]
    pub settings: SettingsArgs,
    #[command(flatten)]
    pub remote: Remote,
}

/// `wess ls`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  wess ls
  wess ls image-
  wess ls -o json | jq -r '.modules[].name'")]
pub struct LsArgs {
    /// Only names that begin so.
    #[arg(id = "name_prefix", value_name = "PREFIX")]
    pub prefix: Option<String>,
    #[command(flatten)]
    pub remote: Remote,
}

/// `wess describe`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  wess describe upper
  wess describe upper@3
  wess describe upper -o json")]
pub struct DescribeArgs {
    /// NAME, NAME@VERSION, NAME@TAG, sha256:HEX or a module id.
    #[arg(value_name = "REF")]
    pub reference: Reference,
    #[command(flatten)]
    pub remote: Remote,
}

/// `wess tag`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  wess tag upper stable 3              upper@stable is version 3 from now on
  wess tag upper stable --remove")]
pub struct TagArgs {
    /// The module's name.
    pub name: ModuleName,
    /// The tag; `latest` moves by itself.
    pub tag: Tag,
    /// The version that it shall name.
    #[arg(required_unless_present = "remove", value_parser = clap::value_parser!(u32).range(1..))]
    pub version: Option<u32>,
    /// Take the tag away.
    #[arg(long, conflicts_with = "version")]
    pub remove: bool,
    #[command(flatten)]
    pub remote: Remote,
}

/// `wess rm`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  wess rm upper                        the module with all its versions
  wess rm upper@3                      one version that no tag but latest names
  wess rm upper@stable                 only the tag")]
pub struct RmArgs {
    /// NAME, NAME@VERSION or NAME@TAG.
    #[arg(value_name = "REF")]
    pub reference: Reference,
    /// Do not ask, not even on a terminal.
    #[arg(long, short)]
    pub yes: bool,
    #[command(flatten)]
    pub remote: Remote,
}

/// `wess completions`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  wess completions bash > ~/.local/share/bash-completion/completions/wess
  wess completions zsh > ~/.zfunc/_wess
  wess completions fish > ~/.config/fish/completions/wess.fish")]
pub struct CompletionsArgs {
    /// Which shell.
    pub shell: clap_complete::Shell,
}

/// The whole grammar. What tunes or secures a server is shown by `--help`, not by `-h`.
pub fn grammar() -> clap::Command {
    let calm = |arg: clap::Arg| {
        let rare = RARE.contains(&arg.get_help_heading().unwrap_or_default())
            && !USUAL.contains(&arg.get_id().as_str());
        arg.hide_short_help(rare)
    };
    let here = |data: clap::Arg| {
        data.required(false)
            .default_value("wess-data")
            .help("Where everything is kept")
    };
    Cli::command()
        .mut_subcommand("up", |up| up.mut_arg("data", here))
        .mut_subcommands(|command| {
            command
                .mut_args(calm)
                .mut_subcommands(|command| command.mut_args(calm))
        })
}
const RARE: &[&str] = &["NATS", "HTTP", "Registry", "Worker", "Logs"];
const USUAL: &[&str] = &[
    "urls",
    "gateway",
    "bearer_token",
    "nats_listen",
    "http",
    "data",
    "executors",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    /// Every command that takes arguments of its own, those within others too.
    fn commands() -> Vec<clap::Command> {
        let leaves = |command: &clap::Command| match command.has_subcommands() {
            true => command.get_subcommands().cloned().collect(),
            false => vec![command.clone()],
        };
        grammar().get_subcommands().flat_map(leaves).collect()
    }

    /// Clap checks this itself only where debug assertions are on.
    #[test]
    fn no_two_arguments_of_a_command_have_the_same_name_flag_or_variable() {
        for command in commands() {
            let names = |name: fn(&clap::Arg) -> Option<String>| {
                command.get_arguments().filter_map(name).collect::<Vec<_>>()
            };
            let ids = names(|arg| Some(arg.get_id().to_string()));
            let flags = names(|arg| arg.get_long().map(Into::into));
            let letters = names(|arg| arg.get_short().map(Into::into));
            let variables = names(|arg| arg.get_env().map(|name| name.to_string_lossy().into_owned()));
            for mut names in [ids, flags, letters, variables] {
                names.sort();
                let twice = names.windows(2).find(|pair| pair[0] == pair[1]);
                assert_eq!(twice, None, "{}", command.get_name());
            }
        }
    }

    #[test]
    fn every_command_for_people_has_examples() {
        for command in commands().iter().filter(|command| !command.is_hide_set()) {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(help.contains("Examples:"), "{}", command.get_name());
        }
    }

    #[test]
    fn a_tag_needs_a_version_or_its_removal() {
        assert!(parse("wess tag upper stable").is_err());
        assert!(parse("wess tag upper stable 0").is_err());
        assert!(parse("wess tag upper stable 3 --remove").is_err());
        assert!(parse("wess tag upper stable 3").is_ok());
        assert!(parse("wess tag upper stable --remove").is_ok());
    }

    #[test]
    fn names_and_references_are_checked_before_anything_is_sent() {
        assert!(parse("wess describe upper@0").is_err());
        assert!(parse("wess rm upper@stable --yes").is_ok());
    }

    #[test]
    fn limits_that_are_not_given_are_not_sent() {
        let terms = |line: &str| match parse(line).unwrap().command {
            Command::Store(store) => store.settings.read().unwrap().terms,
            _ => panic!("{line}"),
        };
        assert_eq!(terms("wess store a f").limits, None);
        let limits = terms("wess store a f --timeout 20s --memory-mb 256")
            .limits
            .unwrap();
        assert_eq!(
            (limits.timeout_ms, limits.memory_mb, limits.fuel),
            (Some(20_000), Some(256), None)
        );
    }
}
