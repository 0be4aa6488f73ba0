//! `wess.bindings.*`: which messages run which module. Everything that can be wrong with a binding now is refused now.
//!
//! A binding is answered as made once it is stored and this worker serves it.

use std::sync::Arc;
use std::time::Duration;

use wess_schemas::binding::{Binding, BindingList, BindingRequest, MAX_BINDINGS, Source, Unbound, ring};
use wess_schemas::limits::LimitPolicy;
use wess_schemas::subject::Subjects;
use wess_schemas::timestamp::Timestamp;
use wess_schemas::{BindingName, ErrorBody, ErrorCode};

use super::jobs::parse;
use crate::bindings::consumers::Consumers;
use crate::bindings::fit;
use crate::bindings::mirror::{Known, Mirror};
use crate::bindings::records::Records;
use crate::queue::bad_request;
use crate::registry::Registry;

/// How long this worker may be behind the bucket's leader before a question is refused.
const PATIENCE: Duration = Duration::from_secs(1);
/// What streams of ours begin with, and the streams of our buckets.
const OURS: [&str; 3] = ["WESS_", "KV_wess-", "OBJ_wess-"];

/// Bindings, as clients see them.
pub struct BindingsEndpoint {
    /// Which modules there are.
    pub registry: Registry,
    /// What callers may ask.
    pub policy: LimitPolicy,
    /// Whose subjects they are.
    pub subjects: Subjects,
    /// Where they are kept.
    pub records: Records,
    /// What this worker knows of them.
    pub mirror: Mirror,
    /// Consumers of bound streams.
    pub consumers: Consumers,
}

impl BindingsEndpoint {
    /// `wess.bindings.list`
    pub async fn list(&self) -> Result<BindingList, ErrorBody> {
        self.is_up_to_date().await?;
        Ok(BindingList {
            bindings: self.mirror.all(),
        })
    }

    /// `wess.bindings.get.<name>`
    pub async fn get(&self, name: &BindingName) -> Result<Binding, ErrorBody> {
        self.is_up_to_date().await?;
        let known = self.mirror.get(name).binding;
        known.map(Arc::unwrap_or_clone).ok_or_else(|| not_found(name))
    }

    /// `wess.bindings.put.<name>`
    pub async fn put(&self, name: &BindingName, payload: &[u8]) -> Result<Binding, ErrorBody> {
        let request: BindingRequest = parse("a binding", payload)?;
        request.check().map_err(bad_request)?;
        self.check_subjects(&request)?;
        self.is_up_to_date().await?;
        let known = self.mirror.get(name);
        let old = known.binding.clone();
        let others = self.mirror.all();
        if old.is_none() && others.len() >= MAX_BINDINGS {
            let text = format!("there are {MAX_BINDINGS} bindings, which is as many as may be");
            return Err(ErrorBody::new(ErrorCode::QuotaExceeded, text));
        }
        let fed_by = self.fed_by(&request).await?;
        let now = Timestamp::now();
        let created = old.as_ref().map_or(now, |old| old.created);
        let binding = Binding::new(name.clone(), request, fed_by, created, now);
        fit::check(&self.registry, &self.policy, &binding).await?;
        check_ring(&binding, &others)?;
        self.write(binding, &known).await
    }

    async fn write(&self, binding: Binding, known: &Known) -> Result<Binding, ErrorBody> {
        let (name, old) = (&binding.name, &known.binding);
        let old_stream = old.as_ref().and_then(|old| old.stream.as_ref());
        if let Some(stream) = &binding.stream {
            self.consumers.ensure(&binding, stream).await?;
        }
        let written = self.records.put(&binding, known.revision).await;
        let gone = match &written {
            // Whoever was first has made another binding, and the consumer is that one's.
            Err(error) if error.code() == ErrorCode::Conflict => None,
            // The stream of a binding that may not be there.
            Err(_) => binding.stream.as_ref().filter(|_| old.is_none()),
            Ok(_) => old_stream.filter(|old| Some(*old) != binding.stream.as_ref()),
        };
        if let Some(gone) = gone
            && let Err(error) = self.consumers.delete(name, gone).await
        {
            tracing::warn!(binding = %name, %error, stream = gone, "a consumer that nobody needs stays");
        }
        self.mirror.sees(written?, PATIENCE).await;
        Ok(binding)
    }

    /// `wess.bindings.delete.<name>`
    pub async fn delete(&self, name: &BindingName) -> Result<Unbound, ErrorBody> {
        self.is_up_to_date().await?;
        let known = self.mirror.get(name);
        let binding = known.binding.ok_or_else(|| not_found(name))?;
        let revision = self.records.delete(name, known.revision).await?;
        if let Some(stream) = &binding.stream {
            self.consumers.delete(name, stream).await?;
        }
        self.mirror.sees(revision, PATIENCE).await;
        Ok(Unbound { name: name.clone() })
    }

    fn check_subjects(&self, request: &BindingRequest) -> Result<(), ErrorBody> {
        let source = request.source().map_err(bad_request)?;
        match source {
            Source::Subject(subject) if !self.subjects.may_bind(subject) => {
                return Err(bad_request(format!(
                    "subject {subject:?} may not be bound: it is ours or NATS's own, or so wide that it could be"
                )));
            }
            Source::Stream { stream, .. } if OURS.iter().any(|ours| stream.starts_with(ours)) => {
                return Err(bad_request(format!(
                    "stream {stream} may not be bound: it is ours"
                )));
            }
            _ => {}
        }
        match &request.publish_to {
            Some(target) if !self.subjects.may_reply_to(target) => Err(bad_request(format!(
                "publish_to {target:?} is no subject that may be published to"
            ))),
            _ => Ok(()),
        }
    }

    /// Every subject that may feed it; refuses a stream that is not there.
    async fn fed_by(&self, request: &BindingRequest) -> Result<Vec<String>, ErrorBody> {
        match request.source().map_err(bad_request)? {
            Source::Subject(subject) => Ok(vec![subject.into()]),
            Source::Stream { stream, filter } => {
                let subjects = self.consumers.subjects_of(stream).await?;
                Ok(filter.map_or(subjects, |filter| vec![filter.into()]))
            }
        }
    }

    async fn is_up_to_date(&self) -> Result<(), ErrorBody> {
        let newest = self.records.last_revision().await?;
        match self.mirror.sees(newest, PATIENCE).await {
            true => Ok(()),
            false => Err(ErrorBody::new(
                ErrorCode::Unavailable,
                "this worker has not yet seen every binding",
            )),
        }
    }
}

fn check_ring(binding: &Binding, others: &[Binding]) -> Result<(), ErrorBody> {
    let Some(ring) = ring(binding, others) else {
        return Ok(());
    };
    let names: Vec<_> = ring.iter().map(ToString::to_string).collect();
    Err(match &names[..] {
        [_] => {
            bad_request("publish_to is a subject that the binding takes messages from: it would feed itself")
        }
        names => bad_request(format!(
            "these bindings would feed each other in a ring: {}",
            names.join(", ")
        )),
    })
}

fn not_found(name: &BindingName) -> ErrorBody {
    ErrorBody::new(ErrorCode::BindingNotFound, format!("there is no binding {name}"))
}
