//! `wess jobs ls`: as many jobs as were asked for, over as many pages as that takes.

use wess_schemas::JobId;
use wess_schemas::job::{JobKind, JobList, JobListRequest, JobRecord, MAX_JOBS_PAGE};

use super::{Ask, state};
use crate::args::{JobListArgs, Output, PageArgs, Remote};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::{output, transport};

impl Ask for JobListArgs {
    fn remote(&self) -> &Remote {
        &self.remote
    }

    async fn ask(self) -> Result<Exit, Fault> {
        let transport = transport::open(&self.remote).await?;
        let (state, kind, module) = (self.state, self.kind, self.module);
        let found = pages(&self.page, async |after, limit| {
            let request = JobListRequest {
                state,
                kind,
                module: module.clone(),
                after,
                limit: Some(limit),
            };
            let page = transport.jobs(request).await?;
            Ok((page.jobs, page.next))
        })
        .await?;
        let (jobs, next) = found;
        match self.remote.output {
            Output::Json => output::json(&JobList { jobs, next })?,
            Output::Human if jobs.is_empty() => eprintln!("there are no such jobs"),
            Output::Human => {
                output::text(&table(jobs))?;
                more(next);
            }
        }
        Ok(Exit::Done)
    }
}

/// As many as were asked for, or all, and where to go on. Pages may be short, even empty, before the last one.
pub async fn pages<T>(
    wanted: &PageArgs,
    mut page: impl AsyncFnMut(Option<JobId>, u32) -> Result<(Vec<T>, Option<JobId>), Fault>,
) -> Result<(Vec<T>, Option<JobId>), Fault> {
    let most = if wanted.all {
        usize::MAX
    } else {
        wanted.limit as usize
    };
    let mut found = Vec::new();
    let mut after = wanted.after.clone();
    loop {
        let left = u32::try_from(most - found.len()).unwrap_or(u32::MAX);
        let (part, next) = page(after, left.min(MAX_JOBS_PAGE)).await?;
        found.extend(part);
        if next.is_none() || found.len() >= most {
            return Ok((found, next));
        }
        after = next;
    }
}

/// Tells people, beside the list, that it goes on.
pub fn more(next: Option<JobId>) {
    if let Some(next) = next {
        eprintln!("there are more: --after {next}, or --all");
    }
}

/// A kind in its own word.
pub fn kind(kind: JobKind) -> &'static str {
    match kind {
        JobKind::Invoke => "invoke",
        JobKind::Chain => "chain",
        JobKind::Store => "store",
    }
}

fn table(jobs: Vec<JobRecord>) -> String {
    let text = |thing: Option<String>| thing.unwrap_or_default();
    let rows = jobs.into_iter().map(|job| {
        [
            job.job_id.to_string(),
            state(job.state).into(),
            kind(job.kind).into(),
            text(job.module.as_ref().map(ToString::to_string)),
            job.attempts.to_string(),
            output::time(job.submitted),
            text(job.finished.map(output::time)),
            text(job.error.map(|error| error.code.to_string())),
        ]
    });
    output::table(
        [
            "JOB",
            "STATE",
            "KIND",
            "MODULE",
            "ATTEMPTS",
            "SUBMITTED",
            "FINISHED",
            "ERROR",
        ],
        rows,
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::*;
    use serde_json::json;

    fn wanted(limit: u32, all: bool) -> PageArgs {
        PageArgs {
            limit,
            after: Some("start".parse().unwrap()),
            all,
        }
    }

    /// Five jobs behind a filter: the second page is empty, and the list goes on.
    async fn ask(wanted: PageArgs) -> (Vec<u8>, Option<String>, Vec<(String, u32)>) {
        let mut asked = Vec::new();
        let page = async |after: Option<JobId>, limit| {
            let after = after.map(String::from).unwrap_or_default();
            asked.push((after.clone(), limit));
            let (part, next): (&[u8], _) = match after.as_str() {
                "start" => (&[1, 2], Some("a")),
                "a" => (&[], Some("b")),
                _ => (&[3, 4, 5], None),
            };
            let part: Vec<_> = part.iter().copied().take(limit as usize).collect();
            Ok((part, next.map(|next| next.parse().unwrap())))
        };
        let (found, next) = pages(&wanted, page).await.unwrap();
        (found, next.map(String::from), asked)
    }

    #[tokio::test]
    async fn pages_are_asked_for_until_there_are_enough() {
        let (found, next, asked) = ask(wanted(2, false)).await;
        assert_eq!(
            (found, next.as_deref(), asked),
            (vec![1, 2], Some("a"), vec![("start".into(), 2)])
        );
        let (found, next, asked) = ask(wanted(4, false)).await;
        let rounds = vec![("start".into(), 4), ("a".into(), 2), ("b".into(), 2)];
        assert_eq!((found, next, asked), (vec![1, 2, 3, 4], None, rounds));
    }

    #[tokio::test]
    async fn all_are_asked_for_in_full_pages() {
        let (found, next, asked) = ask(wanted(1, true)).await;
        assert_eq!((found, next), (vec![1, 2, 3, 4, 5], None));
        assert!(
            asked.iter().all(|(_, limit)| *limit == MAX_JOBS_PAGE),
            "{asked:?}"
        );
    }

    #[test]
    fn a_job_is_a_line() {
        let table = table(vec![record(json!({}))]);
        let line: Vec<_> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(line[1..5], ["succeeded", "invoke", "upper@2", "1"]);
    }
}
