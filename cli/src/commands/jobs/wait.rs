//! `wess jobs wait`: until a job has ended. Its output on stdout and its verdict as the exit code, as if it had been a call.

use std::time::{Duration, Instant};

use wess_schemas::job::{JobOutcome, JobRecord, JobState};
use wess_schemas::{ErrorBody, ErrorCode, JobId, Reference};

use super::{Ask, exit_code, state};
use crate::args::{JobWaitArgs, Output, Remote};
use crate::commands::invoke::{shown, verdict};
use crate::commands::store::said;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output;
use crate::transport::{self, Transport};

/// How long one question waits for its answer.
const ROUND: Duration = Duration::from_secs(30);

impl Ask for JobWaitArgs {
    fn remote(&self) -> &Remote {
        &self.remote
    }

    async fn ask(self) -> Result<Exit, Fault> {
        let transport = transport::open(&self.remote).await?;
        let end = self.timeout.map(|timeout| Instant::now() + timeout);
        let record = transport
            .wait_job(self.job_id, self.timeout.unwrap_or(ROUND).min(ROUND))
            .await?;
        let record = until_ended(&*transport, record, end).await?;
        ending(&record, self.remote.output)
    }
}

/// Asks again and again; the record as it is when it has ended, or at `end`.
pub async fn until_ended(
    transport: &dyn Transport,
    mut record: JobRecord,
    end: Option<Instant>,
) -> Result<JobRecord, Fault> {
    while !record.state.is_final() {
        let left = end.map_or(ROUND, |end| end.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            break;
        }
        record = transport.wait_job(record.job_id, left.min(ROUND)).await?;
    }
    Ok(record)
}

/// Prints what the job gave, or for programs its record; ends as a call would have ended.
pub fn ending(record: &JobRecord, form: Output) -> Result<Exit, Fault> {
    if form == Output::Json {
        output::json(record)?;
    }
    match (verdict_of(record), form) {
        (Ok(outcome), Output::Human) => {
            print(outcome)?;
            let code = exit_code(record).unwrap_or(0);
            Ok(last_module(record).map_or(Exit::Done, |module| verdict(&module, code, form)))
        }
        (Ok(_), Output::Json) => Ok(match exit_code(record).unwrap_or(0) {
            0 => Exit::Done,
            _ => Exit::GuestFailed,
        }),
        (Err(fault), Output::Human) => Err(fault),
        // The record on stdout has told all.
        (Err(fault), Output::Json) => Ok(fault.exit()),
    }
}

/// What a job that succeeded gave; of any other why there is nothing.
fn verdict_of(record: &JobRecord) -> Result<&JobOutcome, Fault> {
    let id = &record.job_id;
    let lacks = |code, message| Err(lacking(id, code, message));
    match (record.state, &record.outcome, &record.error) {
        (JobState::Queued | JobState::Running, ..) => Err(Fault::local(
            Exit::Busy,
            format!("{id} is still {}", state(record.state)),
        )),
        (JobState::Succeeded, Some(outcome), _) => Ok(outcome),
        (JobState::Cancelled, ..) => lacks(ErrorCode::Cancelled, "was cancelled"),
        (_, _, Some(error)) => Err(ErrorBody {
            error: error.clone(),
            job_id: Some(id.clone()),
        }
        .into()),
        (JobState::Dead, ..) => lacks(
            ErrorCode::Internal,
            "was given up; `wess dead get` with its id says why",
        ),
        (JobState::Succeeded | JobState::Failed, ..) => {
            lacks(ErrorCode::Internal, "has ended, but its record does not say how")
        }
    }
}

fn lacking(id: &JobId, code: ErrorCode, message: &str) -> Fault {
    let mut body = ErrorBody::new(code, format!("{id} {message}"));
    body.job_id = Some(id.clone());
    body.into()
}

fn print(outcome: &JobOutcome) -> Result<(), Fault> {
    match (outcome, output(outcome)) {
        (JobOutcome::Store(module), _) => output::text(&said(module)),
        (_, Some(bytes)) => output::bytes(&bytes),
        (_, None) => Ok(()),
    }
}

/// The output's bytes, of a typed function its results; `None` where there is neither.
pub fn output(outcome: &JobOutcome) -> Option<Vec<u8>> {
    let (output, results) = match outcome {
        JobOutcome::Invoke(outcome) => (outcome.output_bytes(), outcome.results.as_deref()),
        JobOutcome::Chain(outcome) => (outcome.output_bytes(), outcome.results.as_deref()),
        JobOutcome::Store(_) => return None,
    };
    (output.is_some() || results.is_some()).then(|| shown(output, results))
}

fn last_module(record: &JobRecord) -> Option<Reference> {
    let run = match record.outcome.as_ref()? {
        JobOutcome::Invoke(outcome) => &outcome.module,
        JobOutcome::Chain(outcome) => &outcome.steps.last()?.module,
        JobOutcome::Store(_) => return None,
    };
    Some(match &run.name {
        Some(name) => Reference::Latest(name.clone()),
        None => Reference::Digest(run.digest),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::*;
    use serde_json::json;

    #[test]
    fn each_way_to_end_has_the_exit_code_that_a_call_would_have() {
        let failure =
            |code: &str| json!({"code": code, "message": "m", "retryable": false, "guest_ran": true});
        for (changed, exit) in [
            (json!({}), Exit::Done),
            (
                json!({"state": "failed", "outcome": null, "error": failure("guest_trapped")}),
                Exit::GuestFailed,
            ),
            (
                json!({"state": "failed", "outcome": null, "error": failure("module_not_found")}),
                Exit::NotFound,
            ),
            (
                json!({"state": "dead", "outcome": null, "error": failure("out_of_fuel")}),
                Exit::GuestFailed,
            ),
            (json!({"state": "dead", "outcome": null}), Exit::Internal),
            (json!({"state": "cancelled", "outcome": null}), Exit::GuestFailed),
            (json!({"state": "queued", "outcome": null}), Exit::Busy),
            (json!({"state": "running", "outcome": null}), Exit::Busy),
            (json!({"state": "succeeded", "outcome": null}), Exit::Internal),
        ] {
            let ended =
                verdict_of(&record(changed.clone())).map_or_else(|fault| fault.exit(), |_| Exit::Done);
            assert_eq!(ended, exit, "{changed}");
        }
    }

    #[test]
    fn a_guests_own_exit_code_makes_it_fail() {
        let mut record = record(json!({}));
        let Some(JobOutcome::Invoke(outcome)) = &mut record.outcome else {
            panic!()
        };
        outcome.exit_code = Some(7);
        outcome.output = None;
        assert_eq!(ending(&record, Output::Human).unwrap(), Exit::GuestFailed);
        assert_eq!(last_module(&record).unwrap().to_string(), "upper");
    }
}
