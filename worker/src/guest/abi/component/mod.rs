//! JSON arguments to the values of WIT and back; for functions that take one text or one run of bytes, the bytes as they are.
//!
//! A `result` that is an error is the guest's answer, not ours. What a guest gives back is bounded before it is made.

mod bytes;
mod lift;
mod lower;
mod names;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use wasmtime::Store;
use wasmtime::component::Val;
use wess_schemas::wit::{ComponentInterface, TypeIndex, WitFunction, WitKind};
use wess_schemas::{ErrorBody, ErrorCode};

use self::bytes::Shape;
use self::lift::Lifting;
use self::lower::Lowering;
use super::CallInput;
use super::typed::arguments;
use crate::guest::component::{LiveComponent, LoadedComponent, MAX_VALUE_BYTES};
use crate::guest::ending::{Answer, GuestFault};
use crate::guest::host::GuestState;
use crate::guest::wasi;

pub(super) use self::names::{entry, find};

/// A call of a component's function whose arguments fit.
#[derive(Debug)]
pub struct ComponentPlan {
    pub(super) function: String,
    interface: Arc<ComponentInterface>,
    given: Given,
    result: Option<TypeIndex>,
    argv0: String,
    env: BTreeMap<String, String>,
}

/// What goes in, and so how the answer comes out.
#[derive(Debug)]
enum Given {
    /// JSON in, JSON out.
    Args(Vec<Val>),
    /// The one parameter as it is, and the answer too if it is of that kind.
    Text(String),
    Bytes(Vec<u8>),
}

impl ComponentPlan {
    /// Checks a call against a function of a component.
    pub(super) fn new(
        interface: &Arc<ComponentInterface>,
        function: &WitFunction,
        argv0: &str,
        call: CallInput,
    ) -> Result<Self, ErrorBody> {
        if let Some(foreign) = interface.foreign(function) {
            let text = format!(
                "the function {:?} has {foreign} in its signature, which cannot travel",
                function.name
            );
            return Err(ErrorBody::new(ErrorCode::Unsupported, text));
        }
        let env = call.env.clone();
        Ok(Self {
            given: given(interface, function, call)?,
            function: function.name.clone(),
            interface: Arc::clone(interface),
            result: function.result,
            argv0: argv0.to_owned(),
            env,
        })
    }

    pub(in crate::guest) async fn run(
        self,
        store: &mut Store<GuestState>,
        component: &LoadedComponent,
        live: &mut Option<LiveComponent>,
    ) -> Result<Answer, GuestFault> {
        let limit = store.data().output_limit;
        if component.uses_wasi() {
            let mut builder = wasi::builder(store.data());
            builder.arg(&self.argv0);
            for (name, value) in &self.env {
                builder.env(name, value);
            }
            store.data_mut().wasi = Some(wasi::context(builder));
        }
        let live = component.instance(store, live).await?;
        let function = live.function(component, store, self.function)?;
        let shape = Shape::of(&self.interface, self.result);
        let lifting = Lifting::new(&self.interface, limit);
        let called = match self.given {
            Given::Text(text) if shape != Shape::Json => bytes::call(store, function, text, shape).await,
            Given::Bytes(bytes) if shape != Shape::Json => bytes::call(store, function, bytes, shape).await,
            given => call(store, function, given.into_values(), self.result, lifting).await,
        };
        let answer = called.map_err(|fault| fault.of_component(limit))?;
        match &answer.output {
            Some(output) if output.len() > limit => Err(GuestFault::OutputTooLarge(limit)),
            _ => Ok(answer),
        }
    }
}

impl Given {
    fn into_values(self) -> Vec<Val> {
        match self {
            Self::Args(values) => values,
            Self::Text(text) => vec![Val::String(text)],
            Self::Bytes(bytes) => vec![Val::List(bytes.into_iter().map(Val::U8).collect())],
        }
    }
}

async fn call(
    store: &mut Store<GuestState>,
    function: wasmtime::component::Func,
    params: Vec<Val>,
    result: Option<TypeIndex>,
    mut lifting: Lifting<'_>,
) -> Result<Answer, GuestFault> {
    let mut results = vec![Val::Bool(false); usize::from(result.is_some())];
    function.call_async(&mut *store, &params, &mut results).await?;
    drop(params);
    let results = result
        .into_iter()
        .zip(results)
        .map(|(ty, val)| lifting.value(ty, val));
    Ok(Answer {
        results: Some(results.collect::<Result<_, _>>()?),
        ..Answer::default()
    })
}

fn given(
    interface: &ComponentInterface,
    function: &WitFunction,
    call: CallInput,
) -> Result<Given, ErrorBody> {
    if call.args.is_none() {
        let input = || call.input.clone().unwrap_or_default();
        match only_param(interface, function) {
            Some(Raw::Text) => {
                let text = String::from_utf8(input().into()).map_err(|_| {
                    let message = "the input is not UTF-8, but the function takes a string";
                    ErrorBody::new(ErrorCode::InvalidArguments, message).with("path", "args[0]")
                })?;
                return Ok(Given::Text(text));
            }
            Some(Raw::Bytes) if fits_as_bytes(interface, function, input().len()) => {
                return Ok(Given::Bytes(input().into()));
            }
            Some(Raw::Bytes) => {
                let text = format!("the input would take more than {MAX_VALUE_BYTES} bytes as values of WIT");
                return Err(ErrorBody::new(ErrorCode::PayloadTooLarge, text));
            }
            None => {}
        }
    }
    let args = arguments(call)?;
    if args.len() != function.params.len() {
        let message = format!(
            "the function {:?} is {}, but {} arguments were given",
            function.name,
            interface.signature(function),
            args.len()
        );
        return Err(ErrorBody::new(ErrorCode::InvalidArguments, message).with("path", "args"));
    }
    values(interface, function, &args).map(Given::Args)
}

fn values(
    interface: &ComponentInterface,
    function: &WitFunction,
    args: &[Value],
) -> Result<Vec<Val>, ErrorBody> {
    let mut lowering = Lowering::new(interface);
    let args = function.params.iter().zip(args).enumerate();
    let values = args.map(|(at, (param, arg))| lowering.arg(at, param, arg));
    values
        .collect::<Result<_, _>>()
        .map_err(|misfit| misfit.to_error())
}

/// A parameter that raw input becomes as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Raw {
    Text,
    Bytes,
}

fn only_param(interface: &ComponentInterface, function: &WitFunction) -> Option<Raw> {
    match &function.params[..] {
        [only] => raw(interface, only.ty),
        _ => None,
    }
}

/// Bytes that do not go straight into the guest become a value each.
fn fits_as_bytes(interface: &ComponentInterface, function: &WitFunction, len: usize) -> bool {
    Shape::of(interface, function.result) != Shape::Json || len <= MAX_VALUE_BYTES / size_of::<Val>()
}

/// Whether a type is text or bytes.
fn raw(interface: &ComponentInterface, ty: TypeIndex) -> Option<Raw> {
    let kind = |ty: TypeIndex| interface.types.get(ty as usize).map(|ty| &ty.kind);
    match kind(ty)? {
        WitKind::String => Some(Raw::Text),
        WitKind::List(part) if kind(*part) == Some(&WitKind::U8) => Some(Raw::Bytes),
        _ => None,
    }
}
