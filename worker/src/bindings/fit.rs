//! Whether a binding's module is there and takes messages: asked before a binding is accepted, and again before a stream
//! whose module was gone is asked for more.

use std::time::Instant;

use bytes::Bytes;
use wess_schemas::binding::Binding;
use wess_schemas::limits::LimitPolicy;
use wess_schemas::{ErrorBody, ErrorCode, Invocation};

use crate::call::Call;
use crate::endpoints::invoke;
use crate::guest::abi::Plan;
use crate::queue::bad_request;
use crate::registry::Registry;

/// What a binding asks for, without a message.
pub fn invocation(binding: &Binding) -> Invocation {
    Invocation {
        function: binding.function.clone(),
        limits: binding.limits,
        ..Invocation::of(binding.module.clone())
    }
}

/// Checks module, function and limits. Whether a message's body fits a typed function shows when it comes.
pub async fn check(registry: &Registry, policy: &LimitPolicy, binding: &Binding) -> Result<(), ErrorBody> {
    let Call {
        reference,
        mut input,
        limits,
        ..
    } = invoke::from_invocation(invocation(binding), Instant::now())?;
    let module = registry.resolve(&reference).await?;
    policy.resolve(&module.limits, &limits).map_err(bad_request)?;
    input.input = Some(Bytes::new());
    let argv0 = module.name.as_ref().map_or("guest", |name| name.as_str());
    match Plan::new(module.callable(), argv0, input) {
        Err(error) if error.code() != ErrorCode::InvalidArguments => Err(error),
        _ => Ok(()),
    }
}
