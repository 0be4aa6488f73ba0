//! How a run ended, and what a caller is told of it. A trap is an outcome: nobody is paged.

use std::fmt::Display;

use serde_json::Value;
use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;
use wess_schemas::{ErrorBody, ErrorCode};

use super::host::{HostFault, StateError};
use super::kept::Kept;
use super::limits::Refused;
use super::wasi::Exited;

/// What a guest answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// Output bytes, of plugins and commands.
    pub output: Option<Vec<u8>>,
    /// Results, of typed functions.
    pub results: Option<Vec<Value>>,
    /// The guest's own verdict, of plugins and commands.
    pub exit_code: Option<i32>,
}

/// A run's answer or fault, and what it cost.
#[derive(Debug)]
pub struct Ending {
    /// What the guest answered, or why it did not.
    pub result: Result<Answer, GuestFault>,
    /// From the guest's start to its end, in microseconds.
    pub run_us: u64,
    /// Fuel used, when it was counted.
    pub fuel: Option<u64>,
    /// Most linear memory held at once, in bytes.
    pub memory_peak_bytes: u64,
    /// Its instance, if that may serve another call.
    pub kept: Option<Box<Kept>>,
}

/// Why a guest did not answer.
#[derive(Debug, thiserror::Error)]
pub enum GuestFault {
    /// It trapped.
    #[error("the guest trapped: {message}")]
    Trapped {
        /// A word for the kind.
        kind: &'static str,
        /// One sentence.
        message: String,
        /// Innermost first.
        backtrace: Vec<String>,
    },
    /// It was refused memory and could not go on.
    #[error("the guest needed more memory than its limit")]
    MemoryExceeded,
    /// It was refused memory that the worker did not have, and could not go on.
    #[error("the guest needed memory that this worker has not got now")]
    MemoryBudget,
    /// There was no memory for it to begin with.
    #[error("this worker has no memory for another guest now")]
    HostFull,
    /// It gave more output than allowed.
    #[error("the guest's output is larger than {0} bytes")]
    OutputTooLarge(usize),
    /// It outlived its timeout.
    #[error("the guest ran longer than {0} ms")]
    DeadlineExceeded(u64),
    /// It used up its fuel.
    #[error("the guest used up its fuel")]
    OutOfFuel,
    /// Its state could not be reached.
    #[error("{}", StateError::Unavailable)]
    StateUnavailable,
    /// The module is not what its record says.
    #[error("the module does not have what its record says")]
    Mismatch,
    /// A fault of ours.
    #[error("the guest could not be run")]
    Internal(#[source] wasmtime::Error),
}

impl GuestFault {
    /// What the caller is told.
    pub fn to_error(&self) -> ErrorBody {
        let error = ErrorBody::new(self.code(), self.to_string());
        match self {
            Self::Trapped { kind, backtrace, .. } => error.with("trap", *kind).with(
                "backtrace",
                backtrace.iter().map(String::as_str).collect::<Value>(),
            ),
            Self::MemoryBudget => error.with("reason", "worker_memory_budget"),
            Self::OutputTooLarge(limit) => error.with("limit_bytes", *limit),
            Self::DeadlineExceeded(timeout_ms) => error.with("timeout_ms", *timeout_ms),
            _ => error,
        }
    }

    fn code(&self) -> ErrorCode {
        match self {
            Self::Trapped { .. } => ErrorCode::GuestTrapped,
            Self::MemoryExceeded | Self::MemoryBudget => ErrorCode::MemoryExceeded,
            Self::HostFull => ErrorCode::Overloaded,
            Self::OutputTooLarge(_) => ErrorCode::OutputTooLarge,
            Self::DeadlineExceeded(_) => ErrorCode::DeadlineExceeded,
            Self::OutOfFuel => ErrorCode::OutOfFuel,
            Self::StateUnavailable | Self::Mismatch | Self::Internal(_) => ErrorCode::Internal,
        }
    }

    /// Settles what a failed call of a component's function means: what cannot be made of a guest's values is its fault. An
    /// import that is handed too much has trapped in the guest, and stays a trap.
    pub(super) fn of_component(self, output_limit: usize) -> Self {
        match self {
            Self::Internal(error) if error.root_cause().to_string() == TOO_MUCH => {
                Self::OutputTooLarge(output_limit)
            }
            Self::Internal(error) => trapped("invalid_value", &error.root_cause(), Vec::new()),
            fault => fault,
        }
    }

    /// Settles what a failure after a refused growth means: no guest code ran in one that is not a trap.
    pub(super) fn after_refusal(self, refused: Option<Refused>) -> Self {
        match (self, refused) {
            (Self::Trapped { .. } | Self::Internal(_), Some(Refused::Limit)) => Self::MemoryExceeded,
            (Self::Trapped { .. }, Some(Refused::Budget)) => Self::MemoryBudget,
            (Self::Internal(_), Some(Refused::Budget)) => Self::HostFull,
            (fault, _) => fault,
        }
    }
}

/// What Wasmtime calls a guest that hands over more than it may; it has no type that could be asked for.
const TOO_MUCH: &str = "too much data is being copied between the host and the guest: fuel allocated for hostcalls has been exhausted";

pub(super) fn trapped(kind: &'static str, why: &dyn Display, backtrace: Vec<String>) -> GuestFault {
    GuestFault::Trapped {
        kind,
        message: why.to_string(),
        backtrace,
    }
}

impl From<HostFault> for GuestFault {
    fn from(fault: HostFault) -> Self {
        host_fault(&fault, Vec::new())
    }
}

fn host_fault(fault: &HostFault, backtrace: Vec<String>) -> GuestFault {
    match fault {
        HostFault::OutputTooLarge(limit) => GuestFault::OutputTooLarge(*limit),
        HostFault::Deadline(timeout_ms) => GuestFault::DeadlineExceeded(*timeout_ms),
        HostFault::OutOfBounds(_) | HostFault::NoMemory => {
            trapped("host_call_out_of_bounds", fault, backtrace)
        }
        HostFault::StateTooLarge { .. } | HostFault::TooMany { .. } => {
            trapped("state_too_large", fault, backtrace)
        }
    }
}

impl From<wasmtime::Error> for GuestFault {
    fn from(error: wasmtime::Error) -> Self {
        let in_guest = error.downcast_ref::<WasmBacktrace>().map(frames);
        let backtrace = in_guest.clone().unwrap_or_default();
        if let Some(fault) = error.downcast_ref::<HostFault>() {
            return host_fault(fault, backtrace);
        }
        match error.downcast_ref::<StateError>() {
            Some(StateError::Unavailable) => return Self::StateUnavailable,
            Some(
                refused @ (StateError::Nameless
                | StateError::Deterministic
                | StateError::NoNumber
                | StateError::TooManyKeys),
            ) => {
                return trapped("no_state", refused, backtrace);
            }
            Some(refused @ StateError::MessageTooLarge) => {
                return trapped("state_too_large", refused, backtrace);
            }
            None => {}
        }
        if let Some(exited) = error.downcast_ref::<Exited>() {
            return trapped("exit", exited, backtrace);
        }
        if let Some(exited) = error.downcast_ref::<I32Exit>() {
            return trapped("exit", &Exited(exited.0), backtrace);
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::OutOfFuel) => Self::OutOfFuel,
            Some(trap) => trapped(trap_kind(*trap), trap, backtrace),
            // A host call that failed for a reason of its own: WASI turns a guest's bad pointers into such errors.
            None if in_guest.is_some() => trapped("host_call", &error.root_cause(), backtrace),
            None => Self::Internal(error),
        }
    }
}

/// The innermost frames, by function name where the module has names.
fn frames(backtrace: &WasmBacktrace) -> Vec<String> {
    const SHOWN: usize = 20;
    let line = |frame: &wasmtime::FrameInfo| match (frame.func_name(), frame.module_offset()) {
        (Some(name), _) => name.chars().take(200).collect(),
        (None, Some(offset)) => format!("function {} at {offset:#x}", frame.func_index()),
        (None, None) => format!("function {}", frame.func_index()),
    };
    backtrace.frames().iter().take(SHOWN).map(line).collect()
}

fn trap_kind(trap: Trap) -> &'static str {
    match trap {
        Trap::StackOverflow => "stack_overflow",
        Trap::MemoryOutOfBounds => "memory_out_of_bounds",
        Trap::TableOutOfBounds => "table_out_of_bounds",
        Trap::IndirectCallToNull => "indirect_call_to_null",
        Trap::BadSignature => "indirect_call_type_mismatch",
        Trap::IntegerOverflow => "integer_overflow",
        Trap::IntegerDivisionByZero => "integer_division_by_zero",
        Trap::BadConversionToInteger => "invalid_conversion_to_integer",
        Trap::UnreachableCodeReached => "unreachable",
        Trap::NullReference => "null_reference",
        _ => "other",
    }
}
