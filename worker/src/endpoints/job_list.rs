//! `wess.jobs.list` and `wess.dead.list`: pages in the order of ids, put together from what the streams hold.
//!
//! One page looks at [`MAX_SCAN`] ids at most, so that a filter that fits nothing ends.

use std::collections::BTreeSet;

use async_nats::jetstream::stream::Stream;
use futures_util::{StreamExt, TryStreamExt, stream};
use wess_schemas::job::{
    DeadLetter, DeadList, DeadListRequest, JobList, JobListRequest, JobRecord, MAX_JOBS_PAGE,
};
use wess_schemas::subject::{JOBS_STREAM, Queue, Subjects, TIMERS_STREAM, result_key};
use wess_schemas::{ErrorBody, ErrorCode, JobId, Tenant};

use super::jobs::{JobsEndpoint, parse_or_default};
use crate::queue::bad_request;
use crate::queue::dead::Letters;
use crate::registry::Storage;

/// Ids looked at for one page.
const MAX_SCAN: usize = 1000;
/// Records read at once.
const READS: usize = 16;

/// The lowest ids after one, as many as are looked at.
struct Ids {
    after: Option<JobId>,
    lowest: BTreeSet<JobId>,
}

impl Ids {
    fn new(after: Option<JobId>) -> Self {
        Self {
            after,
            lowest: BTreeSet::new(),
        }
    }

    fn add(&mut self, id: JobId) {
        if self.after.as_ref().is_some_and(|after| id <= *after) {
            return;
        }
        self.lowest.insert(id);
        if self.lowest.len() > MAX_SCAN {
            self.lowest.pop_last();
        }
    }

    /// Every id that a stream has a subject for.
    async fn gather(&mut self, stream: &Stream<()>, prefix: &str) -> Result<(), ErrorBody> {
        let mut subjects = stream
            .info_with_subjects(format!("{prefix}*"))
            .await
            .map_err(|error| away(&error))?;
        while let Some((subject, _)) = subjects.try_next().await.map_err(|error| away(&error))? {
            if let Some(id) = subject.strip_prefix(prefix).and_then(|id| id.parse().ok()) {
                self.add(id);
            }
        }
        Ok(())
    }
}

/// What a subject of a queue begins with, up to the id.
fn prefix(subjects: &Subjects, queue: Queue) -> String {
    subjects
        .queue_of(queue, &Tenant::default())
        .trim_end_matches('*')
        .into()
}

/// A page of jobs.
pub async fn jobs(endpoint: &JobsEndpoint, payload: &[u8]) -> Result<JobList, ErrorBody> {
    let request: JobListRequest = parse_or_default("a list request", payload)?;
    let limit = page(request.limit)?;
    let mut ids = Ids::new(request.after.clone());
    let (storage, subjects) = (&endpoint.known.storage, &endpoint.known.subjects);
    let assets = storage.assets().await?;
    let results = &assets.results;
    let empty: JobId = "0".parse()?;
    let keys = format!("{}{}", results.prefix, result_key(&Tenant::default(), &empty));
    ids.gather(
        &open(storage, &results.stream_name).await?,
        keys.trim_end_matches('0'),
    )
    .await?;
    ids.gather(
        &open(storage, &subjects.stream(JOBS_STREAM)).await?,
        &prefix(subjects, Queue::Jobs),
    )
    .await?;
    if assets.queue.timers.is_some() {
        ids.gather(
            &open(storage, &subjects.stream(TIMERS_STREAM)).await?,
            &prefix(subjects, Queue::At),
        )
        .await?;
    }
    let fits = |record: &JobRecord| {
        request.state.is_none_or(|state| record.state == state)
            && request.kind.is_none_or(|kind| record.kind == kind)
            && request
                .module
                .as_ref()
                .is_none_or(|name| record.module.as_ref().and_then(|module| module.name()) == Some(name))
    };
    let scanned = ids.lowest.len();
    let last = ids.lowest.last().cloned();
    let mut records = stream::iter(ids.lowest)
        .map(|id| async move { endpoint.known.find(&id).await })
        .buffered(READS);
    let (mut jobs, mut seen) = (Vec::new(), 0);
    while let Some(found) = records.try_next().await? {
        seen += 1;
        jobs.extend(found.filter(|record| fits(record)));
        if jobs.len() == limit {
            break;
        }
    }
    let is_whole = seen == scanned && scanned < MAX_SCAN;
    let next = match (is_whole, jobs.len() == limit) {
        (true, _) => None,
        (false, true) => jobs.last().map(|record: &JobRecord| record.job_id.clone()),
        (false, false) => last,
    };
    Ok(JobList { jobs, next })
}

/// A page of dead letters.
pub async fn letters(letters: &Letters, subjects: &Subjects, payload: &[u8]) -> Result<DeadList, ErrorBody> {
    let request: DeadListRequest = parse_or_default("a list request", payload)?;
    let limit = page(request.limit)?;
    let mut ids = Ids::new(request.after);
    ids.gather(&letters.stream().await?, &prefix(subjects, Queue::Dead))
        .await?;
    let more = ids.lowest.len() > limit;
    let page: Vec<JobId> = ids.lowest.into_iter().take(limit).collect();
    let next = more.then(|| page.last().cloned()).flatten();
    let read = stream::iter(page)
        .map(|id| async move { letters.get(&id).await })
        .buffered(READS);
    let found: Vec<Option<DeadLetter>> = read
        .map(|found| match found {
            Ok(found) => Ok(Some(found.letter)),
            // Purged while the page was put together.
            Err(error) if error.code() == ErrorCode::JobNotFound => Ok(None),
            Err(error) => Err(error),
        })
        .try_collect()
        .await?;
    Ok(DeadList {
        letters: found.into_iter().flatten().collect(),
        next,
    })
}

fn page(limit: Option<u32>) -> Result<usize, ErrorBody> {
    match limit.unwrap_or(MAX_JOBS_PAGE) {
        limit @ 1..=MAX_JOBS_PAGE => Ok(limit as usize),
        limit => Err(bad_request(format!(
            "limit is {limit}, but must be from 1 to {MAX_JOBS_PAGE}"
        ))),
    }
}

async fn open(storage: &Storage, stream: &str) -> Result<Stream<()>, ErrorBody> {
    storage
        .jetstream()
        .get_stream_no_info(stream)
        .await
        .map_err(|error| away(&error))
}

fn away(error: &dyn std::fmt::Display) -> ErrorBody {
    tracing::warn!(%error, "the streams of the queue could not be listed");
    ErrorBody::new(
        ErrorCode::Unavailable,
        "the streams of the queue could not be listed",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_looks_at_the_lowest_ids_after_the_last_one_and_at_a_bounded_number() {
        let id = |number: usize| format!("{number:06}").parse::<JobId>().unwrap();
        let mut ids = Ids::new(Some(id(10)));
        for number in (0..3000).rev() {
            ids.add(id(number));
        }
        assert_eq!(
            (ids.lowest.len(), ids.lowest.first().cloned()),
            (MAX_SCAN, Some(id(11)))
        );
        assert_eq!(ids.lowest.last().cloned(), Some(id(10 + MAX_SCAN)));
    }
}
