//! HTTP requests and responses on their way between a gateway and a worker: heads, and bodies that nobody holds whole.
//!
//! Invariant: a body that is not complete ends with [`Broken`], never as if it were.

pub(crate) mod caller;
mod gathered;
pub mod inboxes;
pub mod session;
pub mod wire;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use wess_schemas::{ErrorBody, ErrorCode};

pub use gathered::Gathered;

/// Most header lines of a head, and of trailers.
pub const MAX_HEADERS: usize = 256;
/// Most bytes of all header lines of a head, and of trailers.
pub const MAX_HEADER_BYTES: usize = 32 << 10;

/// A body that comes as it is asked for.
pub type Body = UnsyncBoxBody<Bytes, Broken>;

/// A request. Its URI has a scheme and an authority.
pub type Request = http::Request<Body>;

/// A response.
pub type Response = http::Response<Body>;

/// Why a body is not complete.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the body broke off: {}", .0.error.message)]
pub struct Broken(pub ErrorBody);

impl Broken {
    /// Broken for this reason.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self(ErrorBody::new(code, message))
    }
}

/// A body that is there already.
pub fn whole(bytes: Bytes) -> Body {
    if bytes.is_empty() {
        Empty::new().map_err(never).boxed_unsync()
    } else {
        Full::new(bytes).map_err(never).boxed_unsync()
    }
}

/// A body that is there already, and what follows it.
pub fn with_trailers(bytes: Bytes, trailers: Option<http::HeaderMap>) -> Body {
    match trailers {
        None => whole(bytes),
        Some(trailers) => Gathered::complete(bytes, trailers).into_body(),
    }
}

fn never(never: std::convert::Infallible) -> Broken {
    match never {}
}

/// Whether header lines are within the bounds of a head.
pub fn fits(headers: &http::HeaderMap) -> bool {
    let bytes = |(name, value): (&http::HeaderName, &http::HeaderValue)| name.as_str().len() + value.len();
    headers.len() <= MAX_HEADERS && headers.iter().map(bytes).sum::<usize>() <= MAX_HEADER_BYTES
}
