//! Which function of a component a caller means: its full name, the same without a version, or its own name where only
//! one has it.

use wess_schemas::wit::{ComponentInterface, WitFunction};
use wess_schemas::{ErrorBody, ErrorCode};

/// The function that a name means.
pub(in crate::guest::abi) fn find<'a>(
    interface: &'a ComponentInterface,
    wanted: &str,
) -> Result<&'a WitFunction, ErrorBody> {
    let functions = &interface.functions;
    if let Some(exact) = functions.iter().find(|function| function.name == wanted) {
        return Ok(exact);
    }
    let fits = |function: &&WitFunction| match (WitFunction::split(wanted), function.parts()) {
        ((Some(wanted), name), (Some(interface), own)) => name == own && unversioned(interface) == wanted,
        ((None, name), (_, own)) => name == own,
        ((Some(_), _), (None, _)) => false,
    };
    let found: Vec<&WitFunction> = functions.iter().filter(fits).collect();
    match &found[..] {
        [only] => Ok(only),
        [] => {
            let text = format!(
                "the module has no function {wanted:?}; it has {}",
                listed(functions.iter())
            );
            Err(ErrorBody::new(ErrorCode::FunctionNotFound, text))
        }
        several => {
            let text = format!(
                "{wanted:?} may mean {}: name one of them",
                listed(several.iter().copied())
            );
            Err(ErrorBody::new(ErrorCode::InvalidRequest, text))
        }
    }
}

/// The function that a call without a function means.
pub(in crate::guest::abi) fn entry(interface: &ComponentInterface) -> Result<&WitFunction, ErrorBody> {
    let functions = interface.functions.iter();
    let meant: Vec<&WitFunction> = functions.filter(|function| !function.is_left_over()).collect();
    match &meant[..] {
        [only] => Ok(only),
        several => {
            let text = format!(
                "the module has several functions, name one of {}",
                listed(several.iter().copied())
            );
            Err(ErrorBody::new(ErrorCode::InvalidRequest, text))
        }
    }
}

fn unversioned(interface: &str) -> &str {
    interface.split_once('@').map_or(interface, |(name, _)| name)
}

/// The first few names, for a message.
fn listed<'a>(functions: impl ExactSizeIterator<Item = &'a WitFunction>) -> String {
    const SHOWN: usize = 10;
    let more = if functions.len() > SHOWN { ", …" } else { "" };
    let names: Vec<_> = functions
        .take(SHOWN)
        .map(|function| function.name.as_str())
        .collect();
    format!("{}{more}", names.join(", "))
}
