//! An HTTP request to a component's handler, and the response's head as soon as the guest has set it.
//!
//! The body comes on its own while the guest runs; that it is complete is known only once the guest has ended well.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use http_body_util::BodyExt;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime::component::Resource;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode as HttpCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::p2::types::{HostIncomingRequest, HostResponseOutparam};
use wasmtime_wasi_http::{Error, WasiHttpView};
use wess_schemas::ErrorCode;
use wess_service::http::{Broken, Request, Response, fits};

use crate::guest::component::{LiveComponent, LoadedComponent};
use crate::guest::ending::{Answer, GuestFault, trapped};
use crate::guest::host::GuestState;
use crate::guest::wasi;

/// A request, and where the response goes.
#[derive(Debug)]
pub struct HttpExchange {
    /// Its URI has an authority.
    pub request: Request,
    /// Gets the response, whose body is not yet known to be complete when it ends.
    pub respond: oneshot::Sender<Response>,
}

/// A request to a component that serves them.
#[derive(Debug)]
pub struct HttpPlan {
    pub(super) function: String,
    pub(super) exchange: Box<HttpExchange>,
    pub(super) env: BTreeMap<String, String>,
}

/// What a guest said of its response: nothing if it never did.
type Said = Arc<Mutex<Option<Result<(), GuestFault>>>>;

impl HttpPlan {
    pub(in crate::guest) async fn run(
        self,
        store: &mut Store<GuestState>,
        component: &LoadedComponent,
        live: &mut Option<LiveComponent>,
    ) -> Result<Answer, GuestFault> {
        let mut builder = wasi::builder(store.data());
        for (name, value) in &self.env {
            builder.env(name, value);
        }
        store.data_mut().wasi = Some(wasi::context(builder));
        let said = Said::default();
        let (request, outparam) = hand_over(store.data_mut(), *self.exchange, &said)?;
        let live = component.instance(store, live).await?;
        let handle = live.function(component, store, self.function)?;
        let handle =
            handle.typed::<(Resource<HostIncomingRequest>, Resource<HostResponseOutparam>), ()>(&*store)?;
        handle.call_async(&mut *store, (request, outparam)).await?;
        let said = said.lock().unwrap_or_else(PoisonError::into_inner).take();
        match said {
            Some(said) => said.map(|()| Answer::default()),
            None => Err(no_response("the guest ended without a response")),
        }
    }
}

fn hand_over(
    state: &mut GuestState,
    exchange: HttpExchange,
    said: &Said,
) -> wasmtime::Result<(Resource<HostIncomingRequest>, Resource<HostResponseOutparam>)> {
    let HttpExchange { request, respond } = exchange;
    let said = Arc::clone(said);
    let scheme = match request.uri().scheme_str() {
        Some("https") => Scheme::Https,
        _ => Scheme::Http,
    };
    let request = request.map(|body| body.map_err(|broken| Error::InternalError(Some(broken.to_string()))));
    let mut http = state.http();
    let request = http.new_incoming_request(scheme, request)?;
    let outparam = http.new_response_outparam_from_callback(move |answered| {
        let checked = answered.map_err(|code| refused(&code)).and_then(check);
        let told = checked.map(|response| {
            // Whoever does not wait any more has the guest cancelled.
            drop(respond.send(response.map(|body| body.map_err(incomplete).boxed_unsync())));
        });
        *said.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
    })?;
    Ok((request, outparam))
}

/// A head that may go out.
fn check(
    response: ::http::Response<HyperOutgoingBody>,
) -> Result<::http::Response<HyperOutgoingBody>, GuestFault> {
    if response.status().is_informational() {
        let text = format!(
            "the guest's response has the status {}, which ends nothing",
            response.status()
        );
        return Err(no_response(&text));
    }
    if !fits(response.headers()) {
        return Err(no_response(
            "the guest's response has more header lines than it may have",
        ));
    }
    Ok(response)
}

fn refused(code: &HttpCode) -> GuestFault {
    no_response(&format!(
        "the guest answered with an error instead of a response: {code:?}"
    ))
}

fn no_response(why: &str) -> GuestFault {
    trapped("no_response", &why, Vec::new())
}

/// Shorter or longer than it announced, or dropped instead of finished.
fn incomplete(error: Error) -> Broken {
    Broken::new(
        ErrorCode::GuestTrapped,
        format!("the guest did not finish its response's body: {error}"),
    )
}
