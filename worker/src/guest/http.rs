//! wasi:http as components get it: requests from outside and their responses, and requests to hosts that are granted.
//!
//! Invariant: what a guest writes and nobody has read yet is bounded; a guest that writes faster waits.

use std::sync::Arc;

use http_body_util::BodyExt;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::WasiView;
use wasmtime_wasi_http::p2::bindings::http::outgoing_handler::Host as _;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, IoError, RequestOptions};
use wasmtime_wasi_http::p2::bindings::{LinkOptions, http};
use wasmtime_wasi_http::p2::types::{HostFutureIncomingResponse, HostOutgoingRequest};
use wasmtime_wasi_http::{
    Error, RequestOptions as Options, Result, WasiBody, WasiHttp, WasiHttpCtx, WasiHttpCtxView,
    WasiHttpHooks, WasiHttpView,
};
use wess_service::http::MAX_HEADER_BYTES;

use super::host::{GuestState, Host};
use crate::outbound::{Allowance, OutboundFault, Timeouts};

/// Most bytes that a guest may write at once.
const CHUNK_BYTES: usize = 32 << 10;
/// Writes that wait to be read: half a megabyte if all are as large as they may be.
const CHUNKS_AHEAD: usize = 15;

/// What one run has of wasi:http besides its table.
pub(super) struct HttpState {
    context: WasiHttpCtx,
    hooks: Outward,
}

impl HttpState {
    pub fn new(host: Arc<dyn Host>) -> Self {
        let mut context = WasiHttpCtx::new();
        context.set_field_size_limit(MAX_HEADER_BYTES);
        let hooks = Outward {
            host,
            allowance: None,
        };
        Self { context, hooks }
    }
}

impl WasiHttpView for GuestState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let wasi = self.wasi.as_mut();
        WasiHttpCtxView {
            table: wasi.expect("a component runs with a WASI context").ctx().table,
            hooks: &mut self.http.hooks,
            ctx: &mut self.http.context,
        }
    }
}

/// Sends what is granted. Most runs send nothing, and so never have an allowance made.
struct Outward {
    host: Arc<dyn Host>,
    allowance: Option<Allowance>,
}

impl Outward {
    /// Whether a request could be sent anywhere at all.
    fn is_open(&self) -> bool {
        !self.host.settings().grants.http.is_empty() && self.host.outbound().is_some()
    }
}

type Sent = (
    ::http::Response<WasiBody>,
    Box<dyn Future<Output = Result<()>> + Send>,
);

impl WasiHttpHooks for Outward {
    fn send_request(
        &mut self,
        request: ::http::Request<WasiBody>,
        options: Option<Options>,
        _: Box<dyn Future<Output = Result<()>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent>> + Send> {
        let Some(outbound) = self.host.outbound() else {
            return Box::new(std::future::ready(Err(Error::HttpRequestDenied)));
        };
        let allowance = self
            .allowance
            .get_or_insert_with(|| Allowance::new(Arc::clone(outbound)));
        let options = options.unwrap_or_default();
        let timeouts = Timeouts::within(
            options.connect_timeout,
            options.first_byte_timeout,
            options.between_bytes_timeout,
        );
        let sent = allowance.send(&self.host.settings().grants.http, request, timeouts);
        Box::new(async move {
            let response = sent.await.map_err(error)?;
            // Its connection is the body's: there is nothing else to be driven.
            let io: Box<dyn Future<Output = Result<()>> + Send> = Box::new(std::future::ready(Ok(())));
            Ok((response.map(|body| body.map_err(error).boxed_unsync()), io))
        })
    }

    fn set_host_header(&mut self) -> bool {
        false
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        CHUNKS_AHEAD
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES
    }
}

/// A fault in the interface's own words.
fn error(fault: OutboundFault) -> Error {
    match fault {
        OutboundFault::Denied => Error::HttpRequestDenied,
        OutboundFault::AddressProhibited => Error::DestinationIpProhibited,
        OutboundFault::UriInvalid => Error::HttpRequestUriInvalid,
        OutboundFault::UriTooLong => Error::HttpRequestUriTooLong,
        OutboundFault::MethodInvalid => Error::HttpRequestMethodInvalid,
        OutboundFault::TooManyAtOnce => Error::ConnectionLimitReached,
        OutboundFault::LookupTimeout => Error::DnsTimeout,
        OutboundFault::Lookup => Error::DnsError {
            rcode: None,
            info_code: None,
        },
        OutboundFault::Unroutable => Error::DestinationIpUnroutable,
        OutboundFault::Refused => Error::ConnectionRefused,
        OutboundFault::ConnectTimeout => Error::ConnectionTimeout,
        OutboundFault::Terminated => Error::ConnectionTerminated,
        OutboundFault::ReadTimeout => Error::ConnectionReadTimeout,
        OutboundFault::Certificate => Error::TlsCertificateError,
        OutboundFault::TlsAlert(alert) => Error::TlsAlertReceived {
            alert_id: Some(alert),
            alert_message: None,
        },
        OutboundFault::Tls => Error::TlsProtocolError,
        OutboundFault::RequestTooLarge(most) => Error::HttpRequestBodySize(Some(most)),
        OutboundFault::RequestBroken => Error::HttpRequestBodySize(None),
        OutboundFault::HeadTooLarge => Error::HttpResponseHeaderSectionSize(None),
        OutboundFault::TrailersTooLarge => Error::HttpResponseTrailerSectionSize(None),
        OutboundFault::ResponseTooLarge(most) => Error::HttpResponseBodySize(Some(most)),
        OutboundFault::Incomplete => Error::HttpResponseIncomplete,
        OutboundFault::Protocol => Error::HttpProtocolError,
        OutboundFault::Internal => Error::InternalError(None),
    }
}

/// What a body broke off for, as `http-error-code` says it.
fn code_of_body(error: &Error) -> ErrorCode {
    match error {
        Error::ConnectionReadTimeout => ErrorCode::ConnectionReadTimeout,
        Error::ConnectionTerminated => ErrorCode::ConnectionTerminated,
        Error::HttpResponseIncomplete => ErrorCode::HttpResponseIncomplete,
        Error::HttpResponseBodySize(most) => ErrorCode::HttpResponseBodySize(*most),
        Error::HttpResponseTrailerSectionSize(bytes) => ErrorCode::HttpResponseTrailerSectionSize(*bytes),
        Error::HttpProtocolError => ErrorCode::HttpProtocolError,
        other => ErrorCode::InternalError(Some(other.to_string())),
    }
}

/// Defines `wasi:http/types` and `wasi:http/outgoing-handler`.
pub(super) fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    let options = LinkOptions::default();
    http::types::add_to_linker::<_, WasiHttp>(linker, &(&options).into(), GuestState::http)?;
    // Wasmtime's own looks for a type that no body of its own fails with.
    linker.allow_shadowing(true);
    linker.instance("wasi:http/types@0.2.12")?.func_wrap(
        "http-error-code",
        |mut store: StoreContextMut<'_, GuestState>, (error,): (Resource<IoError>,)| {
            let error = store.data_mut().http().table.get(&error)?;
            Ok((error.downcast_ref::<Error>().map(code_of_body),))
        },
    )?;
    linker.allow_shadowing(false);
    let mut outgoing = linker.instance("wasi:http/outgoing-handler@0.2.12")?;
    outgoing.func_wrap(
        "handle",
        |mut store: StoreContextMut<'_, GuestState>, (request, options): Asked| {
            Ok((handle(store.data_mut(), request, options)?,))
        },
    )
}

type Asked = (Resource<HostOutgoingRequest>, Option<Resource<RequestOptions>>);
type Answered = std::result::Result<Resource<HostFutureIncomingResponse>, ErrorCode>;

/// Sends a request. A module that is granted no host is denied right here.
fn handle(
    state: &mut GuestState,
    request: Resource<HostOutgoingRequest>,
    options: Option<Resource<RequestOptions>>,
) -> wasmtime::Result<Answered> {
    let is_open = state.http.hooks.is_open();
    let mut http = state.http();
    let owned = options
        .as_ref()
        .map(|options| Resource::<RequestOptions>::new_own(options.rep()));
    let answered = match is_open {
        true => match http.handle(request, options) {
            Ok(response) => Ok(response),
            Err(refused) => Err(refused.downcast()?),
        },
        false => {
            http.table.delete(request)?;
            Err(ErrorCode::HttpRequestDenied)
        }
    };
    // They were handed over, and `handle` above only reads them.
    if let Some(options) = owned {
        http.table.delete(options)?;
    }
    Ok(answered)
}
