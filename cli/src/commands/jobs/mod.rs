//! `wess jobs`: a job as it is shown, and how its end becomes this command's.

mod ls;
mod submit;
mod wait;

use std::process::ExitCode;

use wess_schemas::job::{JobOutcome, JobRecord, JobState};

use super::Ask;
use crate::args::{JobCancelArgs, JobGetArgs, JobsArgs, JobsCommand, Output, Remote};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::{output, transport};

pub use ls::{more, pages};

/// The longest output that stands among the facts of a record.
const BRIEF_BYTES: usize = 100;

/// Runs what was asked for.
pub fn run(args: JobsArgs) -> ExitCode {
    match args.command {
        JobsCommand::Submit(args) => super::run(*args),
        JobsCommand::Get(args) => super::run(args),
        JobsCommand::Wait(args) => super::run(args),
        JobsCommand::Cancel(args) => super::run(args),
        JobsCommand::Ls(args) => super::run(args),
    }
}

impl Ask for JobGetArgs {
    fn remote(&self) -> &Remote {
        &self.remote
    }

    async fn ask(self) -> Result<Exit, Fault> {
        let transport = transport::open(&self.remote).await?;
        let record = transport.job(self.job_id).await?;
        match self.remote.output {
            Output::Json => output::json(&record)?,
            Output::Human => output::text(&facts(&record))?,
        }
        Ok(Exit::Done)
    }
}

impl Ask for JobCancelArgs {
    fn remote(&self) -> &Remote {
        &self.remote
    }

    async fn ask(self) -> Result<Exit, Fault> {
        let transport = transport::open(&self.remote).await?;
        let record = transport.cancel(self.job_id).await?;
        match self.remote.output {
            Output::Json => output::json(&record)?,
            Output::Human => output::text(&format!("{} is {}", record.job_id, state(record.state)))?,
        }
        Ok(Exit::Done)
    }
}

/// A state in its own word.
pub fn state(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Succeeded => "succeeded",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
        JobState::Dead => "dead",
    }
}

/// A record for people, a fact a line.
fn facts(record: &JobRecord) -> String {
    let time = |instant: Option<_>| instant.map(output::time);
    output::facts([
        ("job", Some(record.job_id.to_string())),
        ("state", Some(state(record.state).into())),
        ("kind", Some(ls::kind(record.kind).into())),
        ("module", record.module.as_ref().map(ToString::to_string)),
        ("submitted", Some(output::time(record.submitted))),
        ("due", time(record.due)),
        ("cron", record.cron.clone()),
        ("started", time(record.started)),
        ("finished", time(record.finished)),
        ("attempts", Some(record.attempts.to_string())),
        ("worker", record.worker.as_ref().map(ToString::to_string)),
        ("exit code", exit_code(record).map(|code| code.to_string())),
        ("output", brief(record)),
        ("error", record.error.as_ref().map(ToString::to_string)),
    ])
}

/// The last guest's own verdict.
fn exit_code(record: &JobRecord) -> Option<i32> {
    match record.outcome.as_ref()? {
        JobOutcome::Invoke(outcome) => outcome.exit_code,
        JobOutcome::Chain(outcome) => outcome.steps.last()?.exit_code,
        JobOutcome::Store(_) => None,
    }
}

/// A short text itself, of anything else how much there is.
fn brief(record: &JobRecord) -> Option<String> {
    let bytes = wait::output(record.outcome.as_ref()?)?;
    let text = std::str::from_utf8(&bytes).ok().map(str::trim_end);
    let shown = text.filter(|text| text.len() <= BRIEF_BYTES && !text.contains(char::is_control));
    Some(shown.map_or_else(
        || {
            format!(
                "{}; `wess jobs wait {}` prints it",
                output::size(bytes.len() as u64),
                record.job_id
            )
        },
        Into::into,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// The contract's own example, but for these members.
    pub fn record(changed: Value) -> JobRecord {
        let example = include_str!("../../../../schemas/golden/job-record.json");
        let mut record: Value = serde_json::from_str(example).unwrap();
        for (name, value) in changed.as_object().unwrap() {
            record[name] = value.clone();
        }
        serde_json::from_value(record).unwrap()
    }

    #[test]
    fn a_record_is_told_a_fact_a_line_and_nothing_that_is_not_there() {
        let shown = facts(&record(json!({})));
        assert!(shown.contains("\nstate      succeeded\n"), "{shown}");
        assert!(shown.contains("\nmodule     upper@2\n"), "{shown}");
        assert!(shown.contains("\nfinished   2026-02-03T04:05:07Z\n"), "{shown}");
        assert!(shown.ends_with("\nexit code  0\noutput     HELLO"), "{shown}");
        assert!(!shown.contains("cron") && !shown.contains("error"), "{shown}");
        let failure =
            json!({"code": "guest_trapped", "message": "it trapped", "retryable": false, "guest_ran": true});
        let failed = facts(&record(
            json!({"state": "failed", "outcome": null, "error": failure}),
        ));
        assert!(
            failed.ends_with("\nerror      guest_trapped: it trapped"),
            "{failed}"
        );
    }

    #[test]
    fn a_long_output_or_one_of_several_lines_is_only_measured() {
        for output in ["x".repeat(BRIEF_BYTES + 1), "a\nb".into(), "\u{1b}[2J".into()] {
            let mut record = record(json!({}));
            let Some(JobOutcome::Invoke(outcome)) = &mut record.outcome else {
                panic!()
            };
            outcome.output = Some(output.clone());
            let brief = brief(&record).unwrap();
            assert!(
                brief.contains("wess jobs wait") && !brief.contains(&output),
                "{brief}"
            );
        }
    }
}
