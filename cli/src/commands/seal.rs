//! `wess seal`, and sealing what `--secret` says: a secret leaves this process in a box, or not at all.

use std::io::Read;
use std::time::Duration;

use serde_json::Value;
use wess_schemas::ModuleName;
use wess_schemas::secret::{MAX_SECRET_BYTES, SEALING_KEY, SealedSecret};
use wess_service::nats::NatsOptions;
use wess_service::secrets::{OpeningKeys, SealError, SealingKey};

use super::block_on;
use crate::args::{SealArgs, SealingKeyArg};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output;

/// How long a worker may take to say what to seal to.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs `wess seal`.
pub fn run(args: SealArgs) -> std::process::ExitCode {
    let sealed = block_on(async {
        match (args.new_key, &args.module, &args.name) {
            (false, Some(module), Some(name)) => {
                let value = read_secret()?;
                let key = sealing_key(&args.key, &args.nats).await?;
                let sealed = seal(&key, module, name, &value)?;
                output::text(&format!("{}\n", sealed.as_str()))?;
            }
            _ => output::text(&new_key()?)?,
        }
        Ok(Exit::Done)
    });
    let exit = sealed.unwrap_or_else(|fault: Fault| {
        fault.print(crate::args::Output::Human);
        fault.exit()
    });
    exit.into()
}

/// Seals one secret.
pub fn seal(key: &SealingKey, module: &ModuleName, name: &str, value: &str) -> Result<SealedSecret, Fault> {
    key.seal(module, name, value).map_err(bad_input)
}

/// What was named, else what a worker says.
pub async fn sealing_key(arg: &SealingKeyArg, nats: &NatsOptions) -> Result<SealingKey, Fault> {
    let text = match &arg.sealing_key {
        Some(key) => key.clone(),
        None => ask(nats).await?,
    };
    SealingKey::parse(&text).map_err(bad_input)
}

async fn ask(nats: &NatsOptions) -> Result<String, Fault> {
    let config = nats
        .validate()
        .map_err(|error| Fault::local(Exit::Config, error.to_string()))?;
    let client = config.connect("wess").await?.client;
    let asked = client.request("$SRV.INFO.wess", "".into());
    let nobody = || {
        Fault::local(
            Exit::Unavailable,
            "no worker says what to seal to: name it by --sealing-key",
        )
    };
    let answer = tokio::time::timeout(PATIENCE, asked).await;
    let answer = answer.ok().and_then(Result::ok).ok_or_else(nobody)?;
    let info: Value = serde_json::from_slice(&answer.payload).unwrap_or_default();
    let key = info["metadata"][SEALING_KEY].as_str();
    key.map(str::to_owned).ok_or_else(|| {
        let text = "the workers were started without --secrets-keys, so that nothing can be sealed to them";
        Fault::local(Exit::Unavailable, text)
    })
}

fn new_key() -> Result<String, Fault> {
    let seed = OpeningKeys::new_seed().map_err(bad_input)?;
    let key = OpeningKeys::parse(&seed).and_then(|keys| keys.sealing_key());
    Ok(format!("# sealing key: {}\n{seed}\n", key.unwrap_or_default()))
}

/// A value that flags name: itself, or the content of `@FILE`.
pub fn value(text: &str) -> Result<String, Fault> {
    match text.strip_prefix('@') {
        None => Ok(text.to_owned()),
        Some(path) => {
            let content = std::fs::read_to_string(path);
            let content = content
                .map_err(|error| Fault::local(Exit::BadInput, format!("cannot read {path}: {error}")))?;
            Ok(without_line_end(content))
        }
    }
}

fn read_secret() -> Result<String, Fault> {
    let mut secret = String::new();
    // One byte more than fits shows that it does not.
    let mut input = std::io::stdin().take(MAX_SECRET_BYTES as u64 + 2);
    input
        .read_to_string(&mut secret)
        .map_err(|error| Fault::local(Exit::BadInput, format!("cannot read the secret: {error}")))?;
    Ok(without_line_end(secret))
}

fn without_line_end(text: String) -> String {
    let line = text.strip_suffix('\n').unwrap_or(&text);
    line.strip_suffix('\r').unwrap_or(line).to_owned()
}

fn bad_input(error: SealError) -> Fault {
    Fault::local(Exit::BadInput, error.to_string())
}
