//! The flags of `jobs` and `dead`: what to submit and how to go about it, and which jobs to show.
//!
//! What they make of each other (a delay beside a cron, say) is the contract's own check, before anything is sent.

use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;
use wess_schemas::chain::{ChainRequest, ChainStep};
use wess_schemas::job::{JobKind, JobRequest, JobState, MAX_ATTEMPTS, MAX_JOBS_PAGE, RetryPolicy};
use wess_schemas::{JobId, ModuleName};

use super::call::{CallArgs, CallLimits, Step, duration, millis};
use super::{OPTIONS, Remote};

/// `wess jobs`.
#[derive(Args)]
pub struct JobsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: JobsCommand,
}

/// What to do with jobs.
#[derive(Subcommand)]
pub enum JobsCommand {
    /// Submit a job and print its id; it is kept until it has ended, whatever stops meanwhile.
    Submit(Box<JobSubmitArgs>),
    /// Show a job's record.
    Get(JobGetArgs),
    /// Wait until a job has ended and print its output.
    Wait(JobWaitArgs),
    /// Cancel a job that has not ended.
    Cancel(JobCancelArgs),
    /// List jobs in the order of their ids.
    Ls(JobListArgs),
}

/// `wess jobs submit`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  wess jobs submit upper hello
  wess jobs submit resize --file photo.jpg --wait > small.jpg
  wess jobs submit charge --args '[17]' --key order-4711 --retry 3 --backoff 1s,10s
  wess jobs submit --chain parse summarize --input - < page.html
  wess jobs submit report --delay 10m --webhook https://example.com/done
  wess jobs submit report --cron '0 0 6 * * 1-5' --time-zone Europe/Oslo
  wess jobs submit --job job.json
The same key with the same request is the same job, however often it is submitted.
Prints the job's id; with --wait its output, and then this command ends as `wess invoke` would.")]
pub struct JobSubmitArgs {
    /// The module, as NAME, NAME@VERSION, NAME@TAG, sha256:HEX or its id; a function may follow after a dot.
    #[arg(value_name = "REF", required_unless_present_any = ["chain", "job"])]
    pub step: Option<Step>,
    /// The input as text, or - for stdin.
    #[arg(id = "text", value_name = "INPUT")]
    pub text: Option<String>,
    /// The same; with --chain the first step's.
    #[arg(
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        conflicts_with = "text"
    )]
    pub input: Option<String>,
    /// Read the input from a file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["text", "input"])]
    pub file: Option<String>,
    /// Run these modules in a row instead of one, each fed with the output of the one before.
    #[arg(
        long,
        value_name = "REF",
        num_args = 1..,
        conflicts_with_all = ["step", "text", "CallArgs", "CallLimits"]
    )]
    pub chain: Vec<Step>,
    /// Read the whole request from a JSON file, or - for stdin.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["step", "text", "input", "file", "chain", "CallArgs", "CallLimits", "JobOptions"]
    )]
    pub job: Option<String>,
    #[command(flatten)]
    pub call: CallArgs,
    #[command(flatten)]
    pub limits: CallLimits,
    #[command(flatten)]
    pub options: JobOptions,
    /// Wait until it has ended and print its output.
    #[arg(id = "job_wait", long = "wait", conflicts_with = "cron", help_heading = OPTIONS)]
    pub wait: bool,
    #[command(flatten)]
    pub remote: Remote,
}

/// How to go about a job.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Job")]
pub struct JobOptions {
    /// Its id and idempotency key; else one is made.
    #[arg(long, value_name = "ID")]
    pub key: Option<JobId>,
    /// How many runs a guest that fails may have, the first one included.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_ATTEMPTS)))]
    pub retry: Option<u32>,
    /// The pause after each of them, e.g. 1s,10s; the last one holds for all that follow.
    #[arg(
        long,
        value_name = "TIME",
        value_delimiter = ',',
        value_parser = duration,
        requires = "retry"
    )]
    pub backoff: Vec<Duration>,
    /// Do not start before so much time has passed, e.g. 10m or 24h.
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "cron")]
    pub delay: Option<Duration>,
    /// Start again and again: @every 10m, @hourly, or six fields from seconds to weekday.
    #[arg(long, value_name = "PATTERN")]
    pub cron: Option<String>,
    /// Where the fields of --cron are read, as an IANA name.
    #[arg(long, value_name = "ZONE", requires = "cron")]
    pub time_zone: Option<String>,
    /// A subject that gets the record once it has ended.
    #[arg(long, value_name = "SUBJECT")]
    pub reply_to: Option<String>,
    /// A URL that gets the record by POST once it has ended.
    #[arg(long, value_name = "URL")]
    pub webhook: Option<String>,
}

impl JobSubmitArgs {
    /// Everything but the input; `None` when a file has the whole.
    pub fn request(&self) -> Option<JobRequest> {
        if self.job.is_some() {
            return None;
        }
        let mut request = self.options.request();
        match &self.step {
            Some(step) => {
                let mut call = self.call.invocation(step);
                call.limits = self.limits.limits();
                request.invoke = Some(Box::new(call));
            }
            None => {
                request.chain = Some(ChainRequest {
                    steps: self.chain.iter().cloned().map(ChainStep::from).collect(),
                    input: None,
                    input_base64: None,
                    input_ref: None,
                    wait_ms: None,
                });
            }
        }
        Some(request)
    }
}

impl JobOptions {
    fn request(&self) -> JobRequest {
        JobRequest {
            job_id: self.key.clone(),
            retry: self.retry.map(|max_attempts| RetryPolicy {
                max_attempts,
                backoff_ms: self.backoff.iter().copied().map(millis).collect(),
            }),
            delay_ms: self.delay.map(millis),
            cron: self.cron.clone(),
            time_zone: self.time_zone.clone(),
            reply_to: self.reply_to.clone(),
            webhook: self.webhook.clone(),
            ..JobRequest::default()
        }
    }
}

/// `wess jobs get`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  wess jobs get order-4711
  wess jobs get order-4711 -o json | jq -r .state")]
pub struct JobGetArgs {
    /// The job's id.
    #[arg(value_name = "ID")]
    pub job_id: JobId,
    #[command(flatten)]
    pub remote: Remote,
}

/// `wess jobs wait`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  wess jobs wait order-4711
  wess jobs wait order-4711 --timeout 30s -o json
Prints the job's output and ends as `wess invoke` would; 75 when it has not ended in time.")]
pub struct JobWaitArgs {
    /// The job's id.
    #[arg(value_name = "ID")]
    pub job_id: JobId,
    /// Give up waiting after so long, e.g. 30s; the job goes on.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
    #[command(flatten)]
    pub remote: Remote,
}

/// `wess jobs cancel`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  wess jobs cancel order-4711
A schedule is cancelled by its own id; jobs that it has started already go on.")]
pub struct JobCancelArgs {
    /// The job's id.
    #[arg(value_name = "ID")]
    pub job_id: JobId,
    #[command(flatten)]
    pub remote: Remote,
}

/// `wess jobs ls`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  wess jobs ls
  wess jobs ls --state failed --module upper
  wess jobs ls --state queued --all -o json | jq -r '.jobs[].job_id'")]
pub struct JobListArgs {
    /// Only jobs in this state.
    #[arg(long, value_name = "STATE", value_parser = word::<JobState>(
        &["queued", "running", "succeeded", "failed", "cancelled", "dead"]
    ))]
    pub state: Option<JobState>,
    /// Only jobs that do this.
    #[arg(long, value_name = "KIND", value_parser = word::<JobKind>(&["invoke", "chain", "store"]))]
    pub kind: Option<JobKind>,
    /// Only jobs that ask for this module, in whatever version.
    #[arg(long, value_name = "NAME")]
    pub module: Option<ModuleName>,
    #[command(flatten)]
    pub page: PageArgs,
    #[command(flatten)]
    pub remote: Remote,
}

/// Which part of a list.
#[derive(Debug, Clone, Args)]
pub struct PageArgs {
    /// How many to show.
    #[arg(long, value_name = "N", default_value_t = MAX_JOBS_PAGE, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// Only those after this id.
    #[arg(long, value_name = "ID")]
    pub after: Option<JobId>,
    /// Show every one.
    #[arg(long, conflicts_with = "limit")]
    pub all: bool,
}

/// A word of the contract, as it stands in JSON.
fn word<T: DeserializeOwned + Clone + Send + Sync + 'static>(
    words: &'static [&'static str],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(words.iter().copied()).try_map(|word| serde_json::from_value::<T>(word.into()))
}

/// `wess dead`.
#[derive(Args)]
pub struct DeadArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: DeadCommand,
}

/// What to do with dead letters.
#[derive(Subcommand)]
pub enum DeadCommand {
    /// List the jobs that were given up.
    Ls(DeadListArgs),
    /// Show one, with what was submitted and how it ended.
    Get(DeadGetArgs),
    /// Submit one again under its id, with all its attempts.
    Redrive(DeadRedriveArgs),
    /// Delete one, or every one.
    Purge(DeadPurgeArgs),
}

/// `wess dead ls`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  wess dead ls
  wess dead ls --all -o json | jq -r '.letters[].job_id' | xargs -n 1 wess dead redrive")]
pub struct DeadListArgs {
    #[command(flatten)]
    pub page: PageArgs,
    #[command(flatten)]
    pub remote: Remote,
}

/// `wess dead get`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  wess dead get order-4711
  wess dead get order-4711 -o json | jq .request > job.json")]
pub struct DeadGetArgs {
    /// The job's id.
    #[arg(value_name = "ID")]
    pub job_id: JobId,
    #[command(flatten)]
    pub remote: Remote,
}

/// `wess dead redrive`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  wess dead redrive order-4711
  wess dead redrive order-4711 && wess jobs wait order-4711")]
pub struct DeadRedriveArgs {
    /// The job's id.
    #[arg(value_name = "ID")]
    pub job_id: JobId,
    #[command(flatten)]
    pub remote: Remote,
}

/// `wess dead purge`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  wess dead purge order-4711
  wess dead purge --all --yes")]
pub struct DeadPurgeArgs {
    /// The job's id.
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    pub job_id: Option<JobId>,
    /// Every dead letter.
    #[arg(long)]
    pub all: bool,
    /// Do not ask, not even on a terminal.
    #[arg(long, short)]
    pub yes: bool,
    #[command(flatten)]
    pub remote: Remote,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;
    use serde_json::{Value, json};

    fn jobs(line: &[&str]) -> Result<JobsCommand, clap::Error> {
        match Cli::try_parse_from(["wess", "jobs"].iter().chain(line))?.command {
            Command::Jobs(jobs) => Ok(jobs.command),
            _ => panic!(),
        }
    }

    fn submitted(line: &[&str]) -> Value {
        match jobs(&[&["submit"], line].concat()).unwrap() {
            JobsCommand::Submit(args) => serde_json::to_value(args.request()).unwrap(),
            _ => panic!(),
        }
    }

    #[test]
    fn flags_become_the_fields_of_a_job() {
        let line = "math.divmod --args [17,5] --timeout 2s --key order-1 --retry 3 --backoff 1s,10s --delay 24h \
                    --reply-to done.here --webhook https://example.com/x";
        let expected = json!({
            "invoke": {"module": "math", "function": "divmod", "args": [17, 5], "limits": {"timeout_ms": 2000}},
            "job_id": "order-1", "retry": {"max_attempts": 3, "backoff_ms": [1000, 10_000]}, "delay_ms": 86_400_000,
            "reply_to": "done.here", "webhook": "https://example.com/x",
        });
        assert_eq!(submitted(&line.split_whitespace().collect::<Vec<_>>()), expected);
        let line = [
            "--chain",
            "a",
            "b.f",
            "--input",
            "-",
            "--cron",
            "@hourly",
            "--time-zone",
            "Asia/Tokyo",
        ];
        let expected = json!({
            "chain": {"steps": ["a", {"module": "b", "function": "f"}]},
            "cron": "@hourly", "time_zone": "Asia/Tokyo",
        });
        assert_eq!(submitted(&line), expected);
        assert_eq!(submitted(&["--job", "-"]), Value::Null);
    }

    #[test]
    fn a_job_is_one_thing_and_flags_that_exclude_each_other_are_refused() {
        for line in [
            "submit",
            "submit a x --input y",
            "submit a x --file f",
            "submit a --chain b",
            "submit --chain a --fuel 3",
            "submit --chain a --env X=1",
            "submit a --job f",
            "submit --job f --input x",
            "submit --job f --key k",
            "submit --job f --timeout 1s",
            "submit a --delay 1m --cron @hourly",
            "submit a --cron @hourly --wait",
            "submit a --time-zone UTC",
            "submit a --retry 0",
            "submit a --retry 11",
            "submit a --backoff 1s",
            "submit a --retry 2 --backoff 1",
            "submit a --key no/key",
            "get",
            "wait a --timeout 5",
            "ls --state asleep",
            "ls --all --limit 3",
            "ls --limit 0",
        ] {
            assert!(jobs(&line.split(' ').collect::<Vec<_>>()).is_err(), "{line}");
        }
    }

    #[test]
    fn states_and_kinds_are_those_of_the_contract() {
        let JobsCommand::Ls(args) = jobs(&["ls", "--state", "dead", "--kind", "chain"]).unwrap() else {
            panic!()
        };
        assert_eq!(
            (args.state, args.kind),
            (Some(JobState::Dead), Some(JobKind::Chain))
        );
    }

    #[test]
    fn a_purge_says_what_goes() {
        let dead = |line: &str| Cli::try_parse_from(format!("wess dead {line}").split(' '));
        assert!(dead("purge").is_err() && dead("purge a --all").is_err());
        assert!(dead("purge a").is_ok() && dead("purge --all --yes").is_ok());
    }
}
