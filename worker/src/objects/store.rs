//! The messages that objects are made of, read and written.
//!
//! Metadata is asked of the stream's leader, so that whoever wrote an object finds it; chunks, which never change, of any replica.

use std::error::Error;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_ROLLUP};
use async_nats::jetstream;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{
    DeleteMessageErrorKind, DirectGetErrorKind, LastRawMessageErrorKind, Stream,
};
use bytes::Bytes;
use wess_schemas::subject::object_name;

use super::Inner;
use super::discard::Doomed;
use super::record::Record;
use crate::guest::{Found, Made, ObjectFault, Upload, Written};

/// Bounds each piece of work: what then has not come of it comes no more.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How often a change is tried anew that somebody else forestalled.
const MAX_RACES: usize = 64;

type Done<T> = Result<T, ObjectFault>;

impl Inner {
    pub(super) async fn made(&self, subject: &str) -> Done<Option<Made>> {
        let last = self.last(&self.stream().await?, subject).await?;
        Ok(last.map(|last| Made {
            place: last.sequence,
            created_s: created_s(&last),
        }))
    }

    pub(super) async fn create_container(&self, container: &str) -> Done<u64> {
        let subject = self.subjects.container(container);
        let stream = self.stream().await?;
        let record = Record::container(self.subjects.bucket(), &self.module, container);
        for _ in 0..MAX_RACES {
            if let Some(last) = self.last(&stream, &subject).await? {
                return Ok(last.sequence);
            }
            match self.replace(subject.clone(), 0, &record).await {
                Ok(place) => return Ok(place),
                // Somebody else has made it meanwhile.
                Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => {}
                Err(error) => return Err(self.refused(&error)),
            }
        }
        Err(self.lost(&"a container keeps changing"))
    }

    pub(super) async fn find(&self, subject: &str) -> Done<Option<Found>> {
        let Some(last) = self.last(&self.stream().await?, subject).await? else {
            return Ok(None);
        };
        let written = self.written(&last).ok_or(ObjectFault::Damaged)?;
        Ok(Some(Found {
            place: last.sequence,
            written,
            created_s: created_s(&last),
        }))
    }

    pub(super) async fn next(&self, objects: &str, after: u64) -> Done<Option<(u64, String)>> {
        let stream = self.stream().await?;
        let mut after = after;
        loop {
            let next = stream.get_first_raw_message_by_subject(objects, after + 1);
            let next = match next.await {
                Ok(next) => next,
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(None),
                Err(error) => return Err(self.lost(&error)),
            };
            after = next.sequence;
            // What has no name that we gave it is nobody's object.
            if let Some(name) = object_name(&next.subject) {
                return Ok(Some((after, name)));
            }
        }
    }

    /// Takes metadata away: the very message that was read, so that nothing newer goes with it.
    pub(super) async fn remove(&self, subject: &str, only: Option<&Upload>) -> Done<()> {
        let stream = self.stream().await?;
        for _ in 0..MAX_RACES {
            let Some(last) = self.last(&stream, subject).await? else {
                return Ok(());
            };
            let upload = self.written(&last).map(|written| written.upload);
            if only.is_some() && only != upload.as_ref() {
                return Ok(());
            }
            match stream.delete_message(last.sequence).await {
                Ok(_) => {
                    if let Some(upload) = upload {
                        self.discard(&upload).await;
                    }
                    return Ok(());
                }
                Err(error) if matches!(error.kind(), DeleteMessageErrorKind::JetStream(_)) => {}
                Err(error) => return Err(self.lost(&error)),
            }
        }
        Err(self.lost(&"an object keeps changing"))
    }

    pub(super) async fn write_chunk(&self, subject: String, bytes: Bytes) -> Done<()> {
        self.stream().await?;
        let sent = self.store.storage.jetstream().publish(subject, bytes).await;
        let stored = match sent {
            Ok(acknowledged) => acknowledged.await,
            Err(error) => Err(error),
        };
        match stored {
            Ok(_) => Ok(()),
            Err(error) => Err(self.refused(&error)),
        }
    }

    /// From any replica, else from the leader, whom a replica may lag behind.
    pub(super) async fn read_chunk(&self, subject: &str) -> Done<Bytes> {
        let stream = self.stream().await?;
        match stream.direct_get_last_for_subject(subject).await {
            Ok(chunk) => Ok(chunk.payload),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => {
                let chunk = self.last(&stream, subject).await?;
                chunk.map(|chunk| chunk.payload).ok_or(ObjectFault::Changed)
            }
            Err(error) => Err(self.lost(&error)),
        }
    }

    pub(super) async fn commit(&self, container: &str, name: &str, written: &Written) -> Done<()> {
        let mut doomed = Doomed::new(self, &written.upload);
        let stream = self.stream().await?;
        let home = self.subjects.container(container);
        if self.last(&stream, &home).await?.is_none() {
            return Err(ObjectFault::NoContainer);
        }
        let subject = self.subjects.object(container, name);
        let record = Record::object(self.subjects.bucket(), &self.module, container, name, written);
        for _ in 0..MAX_RACES {
            let before = self.last(&stream, &subject).await?;
            let place = before.as_ref().map_or(0, |before| before.sequence);
            // From here on nobody but the server knows whether this is an object.
            doomed.keep(true);
            let Err(error) = self.replace(subject.clone(), place, &record).await else {
                if let Some(before) = before.and_then(|before| self.written(&before)) {
                    self.discard(&before.upload).await;
                }
                // Whoever deletes a container takes away what is in it by then; what comes later goes by itself.
                return match self.last(&stream, &home).await {
                    Ok(None) => {
                        self.remove(&subject, Some(&written.upload)).await?;
                        Err(ObjectFault::NoContainer)
                    }
                    // An object it is in any case.
                    Ok(Some(_)) | Err(_) => Ok(()),
                };
            };
            doomed.keep(!is_refusal(&error));
            if error.kind() != PublishErrorKind::WrongLastSequence {
                return Err(self.refused(&error));
            }
        }
        Err(self.lost(&"an object keeps changing"))
    }

    async fn stream(&self) -> Done<Stream<()>> {
        let stream = self.store.storage.objects().await;
        stream.map_err(|away| unavailable(&away))
    }

    async fn last(&self, stream: &Stream<()>, subject: &str) -> Done<Option<StreamMessage>> {
        match stream.get_last_raw_message_by_subject(subject).await {
            Ok(last) => Ok(Some(last)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(self.lost(&error)),
        }
    }

    /// Puts a record where the message with this sequence was, or where 0 says that none was; gives its own.
    async fn replace(&self, subject: String, place: u64, record: &Record) -> Result<u64, PublishError> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_ROLLUP, "sub");
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, place.to_string());
        let record = serde_json::to_vec(record)
            .map_err(|error| PublishError::with_source(PublishErrorKind::Other, error))?;
        let jetstream = self.store.storage.jetstream();
        let sent = jetstream.publish_with_headers(subject, headers, record.into());
        Ok(sent.await?.await?.sequence)
    }

    fn written(&self, message: &StreamMessage) -> Option<Written> {
        let record: Record = serde_json::from_slice(&message.payload).ok()?;
        record.written(&self.module)
    }

    /// Tells a store that says no from one that says nothing.
    fn refused(&self, error: &PublishError) -> ObjectFault {
        let fault = self.lost(error);
        match is_refusal(error) {
            true => ObjectFault::Full,
            false => fault,
        }
    }

    /// A store that fails may have gone: the next to ask looks for it anew.
    pub(super) fn lost(&self, error: &dyn std::fmt::Display) -> ObjectFault {
        self.store.storage.forget_objects();
        unavailable(error)
    }
}

fn unavailable(error: &dyn std::fmt::Display) -> ObjectFault {
    tracing::warn!(%error, "the object store of guests is unavailable");
    ObjectFault::Unavailable
}

/// Whether the server has answered, and has stored nothing.
fn is_refusal(error: &PublishError) -> bool {
    let cause = error.source();
    cause.is_some_and(|cause| cause.is::<jetstream::Error>())
}

fn created_s(message: &StreamMessage) -> u64 {
    message.time.unix_timestamp().try_into().unwrap_or(0)
}
