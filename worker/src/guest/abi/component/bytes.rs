//! Functions whose answer is text or bytes, called by raw input: no value is made of each byte.
//!
//! A `result` gives its payload and, as a program does, an exit code: 0 for `ok`, 1 for `err`.

use wasmtime::Store;
use wasmtime::component::{ComponentType, Func, Lift, Lower};
use wess_schemas::wit::{ComponentInterface, TypeIndex, WitKind};

use super::{Raw, raw};
use crate::guest::ending::{Answer, GuestFault};
use crate::guest::host::GuestState;

/// What kind of answer a function gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// None at all.
    Nothing,
    /// Text or bytes.
    Plain(Raw),
    /// Text, bytes or nothing, else text that says why not.
    Fallible(Option<Raw>),
    /// Anything else, which becomes JSON.
    Json,
}

impl Shape {
    pub fn of(interface: &ComponentInterface, result: Option<TypeIndex>) -> Self {
        let Some(ty) = result else { return Self::Nothing };
        if let Some(raw) = raw(interface, ty) {
            return Self::Plain(raw);
        }
        match interface.types.get(ty as usize).map(|ty| &ty.kind) {
            Some(WitKind::Result { ok, err: Some(err) }) if raw(interface, *err) == Some(Raw::Text) => {
                match ok {
                    None => Self::Fallible(None),
                    Some(ok) => raw(interface, *ok).map_or(Self::Json, |raw| Self::Fallible(Some(raw))),
                }
            }
            _ => Self::Json,
        }
    }
}

/// Calls a function with its only parameter.
pub(super) async fn call<P>(
    store: &mut Store<GuestState>,
    function: Func,
    param: P,
    shape: Shape,
) -> Result<Answer, GuestFault>
where
    P: ComponentType + Lower + Send + Sync + 'static,
{
    match shape {
        Shape::Nothing => {
            let typed = function.typed::<(P,), ()>(&*store)?;
            typed.call_async(store, (param,)).await?;
            Ok(answer(Vec::new(), None))
        }
        Shape::Plain(Raw::Text) => {
            let text: String = value(store, function, param).await?;
            Ok(answer(text.into(), None))
        }
        Shape::Plain(Raw::Bytes) => Ok(answer(value(store, function, param).await?, None)),
        Shape::Fallible(None) => {
            let result: Result<(), String> = value(store, function, param).await?;
            Ok(fallible(result.map(|()| Vec::new())))
        }
        Shape::Fallible(Some(Raw::Text)) => {
            let result: Result<String, String> = value(store, function, param).await?;
            Ok(fallible(result.map(String::into_bytes)))
        }
        Shape::Fallible(Some(Raw::Bytes)) => Ok(fallible(value(store, function, param).await?)),
        Shape::Json => Err(GuestFault::Mismatch),
    }
}

async fn value<P, R>(store: &mut Store<GuestState>, function: Func, param: P) -> Result<R, GuestFault>
where
    P: ComponentType + Lower + Send + Sync + 'static,
    R: ComponentType + Lift + Send + Sync + 'static,
{
    let typed = function.typed::<(P,), (R,)>(&*store)?;
    let (value,) = typed.call_async(store, (param,)).await?;
    Ok(value)
}

fn fallible(result: Result<Vec<u8>, String>) -> Answer {
    match result {
        Ok(output) => answer(output, Some(0)),
        Err(why) => answer(why.into_bytes(), Some(1)),
    }
}

fn answer(output: Vec<u8>, exit_code: Option<i32>) -> Answer {
    Answer {
        output: Some(output),
        exit_code,
        results: None,
    }
}
