//! `wess jobs submit`: the job's id on stdout, or with `--wait` what it gave.

use wess_schemas::job::JobRequest;
use wess_schemas::{ErrorBody, ErrorCode};

use super::{Ask, wait};
use crate::args::{JobSubmitArgs, Output, Remote};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::{input, output, transport};

impl Ask for JobSubmitArgs {
    fn remote(&self) -> &Remote {
        &self.remote
    }

    async fn ask(self) -> Result<Exit, Fault> {
        let job = match (self.request(), &self.job) {
            (Some(job), _) => job,
            (None, file) => parse(&input::of_request(file.as_deref().unwrap_or_default())?)?,
        };
        job.check().map_err(|wrong| refused(wrong.to_string()))?;
        let input = input::of_call(
            self.text.as_deref().or(self.input.as_deref()),
            self.file.as_deref(),
        )?;
        let transport = transport::open(&self.remote).await?;
        let record = transport.submit(job, input).await?;
        if self.wait {
            let record = wait::until_ended(&*transport, record, None).await?;
            return wait::ending(&record, self.remote.output);
        }
        match self.remote.output {
            Output::Json => output::json(&record)?,
            Output::Human => output::text(record.job_id.as_str())?,
        }
        Ok(Exit::Done)
    }
}

fn parse(document: &[u8]) -> Result<JobRequest, Fault> {
    serde_json::from_slice(document).map_err(|error| refused(format!("the request is no job: {error}")))
}

fn refused(message: String) -> Fault {
    ErrorBody::new(ErrorCode::InvalidRequest, message).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_request_is_named() {
        let fault = parse(br#"{"invoke":{"module":"a"},"colour":1}"#).unwrap_err();
        assert_eq!(fault.exit(), Exit::BadInput);
        assert!(fault.to_string().contains("`colour`"), "{fault}");
    }
}
