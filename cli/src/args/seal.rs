//! The flags of `seal`, and where a sealing key comes from.

use clap::Args;
use wess_schemas::ModuleName;
use wess_service::nats::NatsOptions;

/// `wess seal`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  wess seal --new-key > secrets.keys                 for the workers: wess-worker --secrets-keys secrets.keys
  wess seal api STRIPE_KEY < stripe.key              for [secrets] in wess.toml; only the guests of api read it
  wess seal api STRIPE_KEY --sealing-key XB4K… < stripe.key
The secret comes on stdin, one line end after it is left out. Without --sealing-key a worker is asked what to seal to.")]
pub struct SealArgs {
    /// The module whose guests may read it.
    #[arg(value_name = "MODULE", required_unless_present = "new_key")]
    pub module: Option<ModuleName>,
    /// The environment variable that it becomes.
    #[arg(value_name = "NAME", required_unless_present = "new_key")]
    pub name: Option<String>,
    /// Print a new key for workers instead, with what is sealed to it in a comment.
    #[arg(long, conflicts_with_all = ["module", "name", "sealing_key"])]
    pub new_key: bool,
    #[command(flatten)]
    pub key: SealingKeyArg,
    #[command(flatten)]
    pub nats: NatsOptions,
}

/// What to seal to.
#[derive(Debug, Clone, Default, Args)]
pub struct SealingKeyArg {
    /// The fleet's sealing key, X…; without it a worker is asked over NATS.
    #[arg(long, env = "WESS_SEALING_KEY", value_name = "KEY")]
    pub sealing_key: Option<String>,
}
