//! Whether a binding's module is there and takes messages: asked before a binding is accepted, and again before a stream
//! whose module was gone is asked for more.

use std::time::Instant;

use bytes::Bytes;
use wess_schemas::binding::Binding;
use wess_schemas::limits::LimitPolicy;
use wess_schemas::{ErrorBody, ErrorCode, Invocation};

use crate::endpoints::{invoke, stored_chain};
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
    let mut call = invoke::from_invocation(invocation(binding), Instant::now())?;
    let module = registry.resolve(&call.reference).await?;
    call.input.input = Some(Bytes::new());
    match stored_chain::check_call(&module, policy, call) {
        Err(error) if error.code() != ErrorCode::InvalidArguments => Err(error),
        _ => Ok(()),
    }
}
