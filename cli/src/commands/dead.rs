//! `wess dead`: the jobs that were given up.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use wess_schemas::job::{DeadLetter, DeadList, DeadListRequest, DeadPurgeRequest};

use super::jobs::{more, pages};
use super::{Ask, confirm};
use crate::args::{
    DeadArgs, DeadCommand, DeadGetArgs, DeadListArgs, DeadPurgeArgs, DeadRedriveArgs, Output, Remote,
};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::{output, transport};

/// Runs what was asked for.
pub fn run(args: DeadArgs) -> ExitCode {
    match args.command {
        DeadCommand::Ls(args) => super::run(args),
        DeadCommand::Get(args) => super::run(args),
        DeadCommand::Redrive(args) => super::run(args),
        DeadCommand::Purge(args) => super::run(args),
    }
}

impl Ask for DeadListArgs {
    fn remote(&self) -> &Remote {
        &self.remote
    }

    async fn ask(self) -> Result<Exit, Fault> {
        let transport = transport::open(&self.remote).await?;
        let (letters, next) = pages(&self.page, async |after, limit| {
            let request = DeadListRequest {
                after,
                limit: Some(limit),
            };
            let page = transport.dead_letters(request).await?;
            Ok((page.letters, page.next))
        })
        .await?;
        match self.remote.output {
            Output::Json => output::json(&DeadList { letters, next })?,
            Output::Human if letters.is_empty() => eprintln!("no job was given up"),
            Output::Human => {
                output::text(&table(letters))?;
                more(next);
            }
        }
        Ok(Exit::Done)
    }
}

impl Ask for DeadGetArgs {
    fn remote(&self) -> &Remote {
        &self.remote
    }

    async fn ask(self) -> Result<Exit, Fault> {
        let transport = transport::open(&self.remote).await?;
        let letter = transport.dead_letter(self.job_id).await?;
        match self.remote.output {
            Output::Json => output::json(&letter)?,
            Output::Human => output::text(&facts(&letter))?,
        }
        Ok(Exit::Done)
    }
}

impl Ask for DeadRedriveArgs {
    fn remote(&self) -> &Remote {
        &self.remote
    }

    async fn ask(self) -> Result<Exit, Fault> {
        let transport = transport::open(&self.remote).await?;
        let record = transport.redrive(self.job_id).await?;
        match self.remote.output {
            Output::Json => output::json(&record)?,
            Output::Human => output::text(&format!("{} is submitted again", record.job_id))?,
        }
        Ok(Exit::Done)
    }
}

impl Ask for DeadPurgeArgs {
    fn remote(&self) -> &Remote {
        &self.remote
    }

    async fn ask(self) -> Result<Exit, Fault> {
        if !self.yes && io::stdin().is_terminal() && io::stderr().is_terminal() {
            confirm(&self.job_id.as_ref().map_or_else(
                || "every dead letter".into(),
                |job_id| format!("the dead letter of {job_id}"),
            ))?;
        }
        let transport = transport::open(&self.remote).await?;
        let request = DeadPurgeRequest {
            job_id: self.job_id,
            all: self.all,
        };
        let purged = transport.purge(request).await?;
        match self.remote.output {
            Output::Json => output::json(&purged)?,
            Output::Human => output::text(&format!("removed {}", purged.purged))?,
        }
        Ok(Exit::Done)
    }
}

fn table(letters: Vec<DeadLetter>) -> String {
    let rows = letters.into_iter().map(|letter| {
        [
            letter.job_id.to_string(),
            letter.reason.as_str().into(),
            letter.attempts.to_string(),
            letter.deliveries.to_string(),
            output::time(letter.died),
            letter
                .error
                .map(|error| error.code.to_string())
                .unwrap_or_default(),
        ]
    });
    output::table(["JOB", "REASON", "ATTEMPTS", "DELIVERIES", "DIED", "ERROR"], rows)
}

/// A letter for people, a fact a line; the request as it was submitted.
fn facts(letter: &DeadLetter) -> String {
    let request = letter.request.as_ref();
    output::facts([
        ("job", Some(letter.job_id.to_string())),
        ("reason", Some(letter.reason.as_str().into())),
        ("attempts", Some(letter.attempts.to_string())),
        ("deliveries", Some(letter.deliveries.to_string())),
        ("submitted", letter.submitted.map(output::time)),
        ("died", Some(output::time(letter.died))),
        ("binding", letter.binding.as_ref().map(ToString::to_string)),
        ("publish to", letter.publish_to.clone()),
        ("error", letter.error.as_ref().map(ToString::to_string)),
        (
            "request",
            request.and_then(|request| serde_json::to_string(request).ok()),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_told_with_its_reason_and_what_was_submitted() {
        let example = include_str!("../../../schemas/golden/dead-letter.json");
        let letter: DeadLetter = serde_json::from_str(example).unwrap();
        let shown = facts(&letter);
        assert!(
            shown.contains(&format!("\nreason      {}\n", letter.reason.as_str())),
            "{shown}"
        );
        let request = shown
            .lines()
            .last()
            .unwrap()
            .strip_prefix("request     ")
            .unwrap();
        assert_eq!(serde_json::from_str(request).ok(), letter.request);
        let table = table(vec![letter.clone()]);
        assert!(
            table.lines().nth(1).unwrap().starts_with(letter.job_id.as_str()),
            "{table}"
        );
    }
}
