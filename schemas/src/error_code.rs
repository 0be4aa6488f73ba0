//! The error codes and what each promises: HTTP status, whether to retry, whether a guest may have run.
//!
//! Append-only: a code once published keeps its name and its promises.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether sending the same request again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same request will fail the same way.
    No,
    /// After reading the current state again.
    AfterReadingAgain,
    /// After the `retry_after_ms` in the detail.
    AfterDelay,
    /// Yes, at once or with backoff.
    Yes,
}

/// Whether a guest may have run before the request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestRan {
    /// Never: sending again repeats no effect.
    No,
    /// It did, at least in part.
    Yes,
    /// It cannot be known.
    Maybe,
}

/// Lists every code once, with its wire name, HTTP status and promises.
macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:literal, $retry:ident, $ran:ident;)*) => {
        /// Why a request was refused or failed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl ErrorCode {
            /// Every code, in the order of publication.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// The HTTP status that carries it.
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$variant => $status),* }
            }

            /// Whether sending the same request again can help.
            pub const fn retry(self) -> Retry {
                match self { $(Self::$variant => Retry::$retry),* }
            }

            /// Whether a guest may have run.
            pub const fn guest_ran(self) -> GuestRan {
                match self { $(Self::$variant => GuestRan::$ran),* }
            }
        }
    };
}

error_codes! {
    /// The request is not well formed; the message names the field.
    InvalidRequest = "invalid_request", 400, No, No;
    /// The arguments do not fit the function's signature.
    InvalidArguments = "invalid_arguments", 422, No, No;
    /// No valid credentials.
    Unauthorized = "unauthorized", 401, No, No;
    /// Valid credentials without the needed scope.
    Forbidden = "forbidden", 403, No, No;
    /// No such module, version or tag.
    ModuleNotFound = "module_not_found", 404, No, No;
    /// The module has no such function.
    FunctionNotFound = "function_not_found", 404, No, No;
    /// No such job.
    JobNotFound = "job_not_found", 404, No, No;
    /// Somebody else changed it first, or it is still in use.
    Conflict = "conflict", 409, AfterReadingAgain, No;
    /// A body or a field is larger than allowed.
    PayloadTooLarge = "payload_too_large", 413, No, No;
    /// The bytes are not a valid WebAssembly module.
    InvalidModule = "invalid_module", 422, No, No;
    /// Valid, but needs an import, a proposal or a size that is refused; it is named.
    UnsupportedModule = "unsupported_module", 422, No, No;
    /// This server, module or function cannot do that; it is named.
    Unsupported = "unsupported", 501, No, No;
    /// Too many requests; `retry_after_ms` says when.
    RateLimited = "rate_limited", 429, AfterDelay, No;
    /// There are as many of these as may be; something has to be deleted first.
    QuotaExceeded = "quota_exceeded", 429, No, No;
    /// The guest trapped; kind and backtrace are in the detail.
    GuestTrapped = "guest_trapped", 502, No, Yes;
    /// The guest trapped after it was refused memory.
    MemoryExceeded = "memory_exceeded", 502, No, Yes;
    /// The guest gave more output than allowed.
    OutputTooLarge = "output_too_large", 502, No, Yes;
    /// The run outlived its `timeout_ms`.
    DeadlineExceeded = "deadline_exceeded", 504, No, Yes;
    /// The guest used up its fuel.
    OutOfFuel = "out_of_fuel", 504, No, Yes;
    /// The wait ended before a slot came free.
    Expired = "expired", 504, Yes, No;
    /// The caller cancelled it.
    Cancelled = "cancelled", 499, No, Maybe;
    /// No slot and no room to wait.
    Overloaded = "overloaded", 503, Yes, No;
    /// The queue is full.
    QueueFull = "queue_full", 503, Yes, No;
    /// No worker is alive.
    NoWorkers = "no_workers", 503, Yes, No;
    /// Something this needs is away: storage, NATS.
    Unavailable = "unavailable", 503, Yes, No;
    /// A fault of ours.
    Internal = "internal", 500, Yes, Maybe;
    /// No such binding.
    BindingNotFound = "binding_not_found", 404, No, No;
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_prints_as_it_serializes() {
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }

    #[test]
    fn a_code_that_may_be_retried_blindly_promises_that_no_guest_ran_unless_it_is_internal() {
        for code in ErrorCode::ALL.iter().filter(|code| code.retry() == Retry::Yes) {
            assert!(
                code.guest_ran() == GuestRan::No || *code == ErrorCode::Internal,
                "{code}"
            );
        }
    }
}
