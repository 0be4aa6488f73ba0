//! Why a request of a guest came to nothing, told from the guest's own doing to the server's.
//!
//! Invariant: nothing of what the worker knows of its network is in it, but what the guest would see anyway.

use std::error::Error;
use std::io::{self, ErrorKind};

use tokio_rustls::rustls;

/// Why a request, or the body of its response, came to nothing. Each is an error code of `wasi:http`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum OutboundFault {
    /// The module is not granted this host, this port or this scheme; or the run has sent what it may.
    #[error("the request is not granted")]
    Denied,
    /// The host's name leads to addresses that are not public, and none of them is granted by itself.
    #[error("the host's address is not public, and not granted by itself")]
    AddressProhibited,
    /// Not an address that a request can be sent to.
    #[error("the request's address is none")]
    UriInvalid,
    /// The path is too long.
    #[error("the request's path is too long")]
    UriTooLong,
    /// `CONNECT`.
    #[error("the request's method is for proxies")]
    MethodInvalid,
    /// Too many requests of this run or this worker are under way.
    #[error("too many requests are under way")]
    TooManyAtOnce,
    /// The name was not found in time.
    #[error("the host's name was not found in time")]
    LookupTimeout,
    /// The name has no address.
    #[error("the host's name has no address")]
    Lookup,
    /// There is no way to the address.
    #[error("there is no way to the host")]
    Unroutable,
    /// Nobody listens.
    #[error("the host refused the connection")]
    Refused,
    /// No connection in time.
    #[error("the host did not take the connection in time")]
    ConnectTimeout,
    /// The connection broke.
    #[error("the connection broke")]
    Terminated,
    /// Nothing came in time.
    #[error("the host did not answer in time")]
    ReadTimeout,
    /// The certificate is not to be trusted.
    #[error("the host's certificate is not trusted")]
    Certificate,
    /// The other side refused TLS.
    #[error("the host refused TLS by alert {0}")]
    TlsAlert(u8),
    /// TLS did not come about.
    #[error("there was no TLS with the host")]
    Tls,
    /// The request's body is larger than so many bytes, or than what is left of the run's.
    #[error("the request's body has more than {0} bytes")]
    RequestTooLarge(u64),
    /// The guest did not finish its body, or wrote another length than it announced.
    #[error("the request's body is not what was announced")]
    RequestBroken,
    /// The head of the response is larger than a head may be.
    #[error("the response's head is too large")]
    HeadTooLarge,
    /// Its trailers are.
    #[error("the response's trailers are too large")]
    TrailersTooLarge,
    /// The response's body is larger than so many bytes, or than what is left of the run's.
    #[error("the response's body has more than {0} bytes")]
    ResponseTooLarge(u64),
    /// The connection ended before the response did.
    #[error("the response is incomplete")]
    Incomplete,
    /// Not HTTP.
    #[error("the host does not speak HTTP/1.1")]
    Protocol,
    /// A fault of ours.
    #[error("the request could not be sent")]
    Internal,
}

impl OutboundFault {
    /// A word for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::AddressProhibited => "address_prohibited",
            Self::UriInvalid | Self::UriTooLong | Self::MethodInvalid => "request_invalid",
            Self::TooManyAtOnce => "too_many_at_once",
            Self::LookupTimeout | Self::Lookup => "lookup_failed",
            Self::Unroutable | Self::Refused => "unreachable",
            Self::ConnectTimeout | Self::ReadTimeout => "timeout",
            Self::Certificate | Self::TlsAlert(_) | Self::Tls => "tls_failed",
            Self::RequestTooLarge(_) | Self::RequestBroken => "request_body",
            Self::HeadTooLarge | Self::TrailersTooLarge | Self::ResponseTooLarge(_) => "response_too_large",
            Self::Terminated | Self::Incomplete | Self::Protocol => "response_broken",
            Self::Internal => "internal",
        }
    }

    /// What a failed connection means.
    pub(super) fn of_connection(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::TimedOut => Self::ConnectTimeout,
            ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable | ErrorKind::AddrNotAvailable => {
                Self::Unroutable
            }
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => Self::Terminated,
            _ => Self::Unroutable,
        }
    }

    /// What a failed handshake of TLS means.
    pub(super) fn of_handshake(error: &io::Error) -> Self {
        let cause = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match cause {
            Some(rustls::Error::InvalidCertificate(_)) => Self::Certificate,
            Some(rustls::Error::AlertReceived(alert)) => Self::TlsAlert(u8::from(*alert)),
            Some(_) => Self::Tls,
            None => Self::Terminated,
        }
    }

    /// What a failed exchange means.
    pub(super) fn of_exchange(error: &hyper::Error) -> Self {
        if error.is_parse_too_large() {
            return Self::HeadTooLarge;
        }
        if error.is_incomplete_message() {
            return Self::Incomplete;
        }
        match error.source().and_then(|cause| cause.downcast_ref::<io::Error>()) {
            // Only hyper's text tells it from chunks that are none.
            Some(cause) if cause.to_string().starts_with("chunk trailers ") => Self::TrailersTooLarge,
            // A body that ends before its length, or within a chunk.
            Some(cause) if cause.kind() == ErrorKind::UnexpectedEof => Self::Incomplete,
            Some(cause) if matches!(cause.kind(), ErrorKind::InvalidData | ErrorKind::InvalidInput) => {
                Self::Protocol
            }
            Some(_) => Self::Terminated,
            None if error.is_closed() || error.is_canceled() => Self::Terminated,
            None => Self::Protocol,
        }
    }
}
