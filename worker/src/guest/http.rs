//! wasi:http as components get it: requests from outside and their responses, bounded; nothing to the outside.
//!
//! Invariant: what a guest writes and nobody has read yet is bounded; a guest that writes faster waits.

use wasmtime::component::{Linker, Resource, ResourceTable};
use wasmtime_wasi::WasiView;
use wasmtime_wasi_http::p2::bindings::http::types::{self, ErrorCode, RequestOptions};
use wasmtime_wasi_http::p2::bindings::{LinkOptions, http};
use wasmtime_wasi_http::p2::types::{HostFutureIncomingResponse, HostOutgoingRequest};
use wasmtime_wasi_http::{
    Error, RequestOptions as Options, Result, WasiBody, WasiHttp, WasiHttpCtx, WasiHttpCtxView,
    WasiHttpHooks, WasiHttpView,
};
use wess_service::http::MAX_HEADER_BYTES;

use super::host::GuestState;

/// Most bytes that a guest may write at once.
const CHUNK_BYTES: usize = 32 << 10;
/// Writes that wait to be read: half a megabyte if all are as large as they may be.
const CHUNKS_AHEAD: usize = 15;

/// What one run has of wasi:http besides its table.
pub(super) struct HttpState {
    context: WasiHttpCtx,
    hooks: Inward,
}

impl Default for HttpState {
    fn default() -> Self {
        let mut context = WasiHttpCtx::new();
        context.set_field_size_limit(MAX_HEADER_BYTES);
        Self {
            context,
            hooks: Inward,
        }
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

/// No request leaves.
struct Inward;

type Sent = (
    ::http::Response<WasiBody>,
    Box<dyn Future<Output = Result<()>> + Send>,
);

impl WasiHttpHooks for Inward {
    fn send_request(
        &mut self,
        _: ::http::Request<WasiBody>,
        _: Option<Options>,
        _: Box<dyn Future<Output = Result<()>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent>> + Send> {
        Box::new(std::future::ready(Err(Error::HttpRequestDenied)))
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        CHUNKS_AHEAD
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES
    }
}

/// Defines `wasi:http/types`, and an `outgoing-handler` that denies whatever it is asked.
pub(super) fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    let options = LinkOptions::default();
    http::types::add_to_linker::<_, WasiHttp>(linker, &(&options).into(), GuestState::http)?;
    let mut outgoing = linker.instance("wasi:http/outgoing-handler@0.2.12")?;
    outgoing.func_wrap("handle", |mut store, (request, options): Asked| {
        let state: &mut GuestState = store.data_mut();
        Ok((deny(state.http().table, request, options)?,))
    })
}

type Asked = (Resource<HostOutgoingRequest>, Option<Resource<RequestOptions>>);
type Denied = std::result::Result<Resource<HostFutureIncomingResponse>, types::ErrorCode>;

fn deny(
    table: &mut ResourceTable,
    request: Resource<HostOutgoingRequest>,
    options: Option<Resource<RequestOptions>>,
) -> wasmtime::Result<Denied> {
    table.delete(request)?;
    if let Some(options) = options {
        table.delete(options)?;
    }
    Ok(Err(ErrorCode::HttpRequestDenied))
}
