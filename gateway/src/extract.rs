//! What handlers take from a request. A part that does not parse is a problem document, not axum's own text.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use wess_service::trace_context::TraceParent;

use crate::admission::Room;
use crate::app::App;
use crate::problem::Problem;

/// The parameters of the path, percent-decoded and parsed.
pub struct InPath<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for InPath<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(value) = Path::from_request_parts(parts, state).await?;
        Ok(Self(value))
    }
}

/// The parameters of the query.
pub struct InQuery<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for InQuery<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(value) = Query::from_request_parts(parts, state).await?;
        Ok(Self(value))
    }
}

/// Where in its trace this request is; every request has a place.
#[derive(Debug, Clone, Copy)]
pub struct Trace(pub TraceParent);

impl<S: Send + Sync> FromRequestParts<S> for Trace {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let given = parts.extensions.get().copied();
        Ok(given.unwrap_or_else(|| Self(TraceParent::generate())))
    }
}

/// Room among the requests in flight, for as long as the handler runs.
impl FromRequestParts<Arc<App>> for Room {
    type Rejection = Problem;
    async fn from_request_parts(_: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        app.admission.request()
    }
}
