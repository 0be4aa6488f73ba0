//! Why a command failed: what people read, what programs read, what a script's exit code says.
//!
//! A fault that came over the wire keeps its body as it was; one of this machine has no code of the contract.

use std::error::Error;
use std::fmt;

use serde_json::json;
use wess_schemas::{ErrorBody, ErrorCode};
use wess_service::bus::BusError;
use wess_service::config::ConfigError;
use wess_service::nats::ConnectFailed;
use wess_service::payloads::PayloadError;

use crate::args::Output;
use crate::exit::Exit;

/// Why a command failed.
#[derive(Debug)]
pub enum Fault {
    /// Refused or failed with a code of the contract.
    Coded(Box<ErrorBody>),
    /// Something on this machine.
    Local {
        /// What it ends with.
        exit: Exit,
        /// What happened.
        message: String,
    },
}

impl Fault {
    /// Something on this machine.
    pub fn local(exit: Exit, message: impl Into<String>) -> Self {
        Self::Local {
            exit,
            message: message.into(),
        }
    }

    /// An error with the code that it means, its causes in the message.
    pub fn coded(code: ErrorCode, error: &dyn Error) -> Self {
        ErrorBody::new(code, with_causes(error)).into()
    }

    /// What the process ends with.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Coded(body) => body.code().into(),
            Self::Local { exit, .. } => *exit,
        }
    }

    /// Writes it to stderr, in the form that was asked for.
    pub fn print(&self, output: Output) {
        match output {
            Output::Json => eprintln!("{}", self.json()),
            Output::Human => eprintln!(
                "error: {self}{}",
                self.hint()
                    .map_or(String::new(), |hint| format!("\nhint: {hint}"))
            ),
        }
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Coded(body) => hint(body.code()),
            Self::Local { .. } => None,
        }
    }

    fn json(&self) -> serde_json::Value {
        match self {
            Self::Coded(body) => json!(body),
            Self::Local { message, .. } => json!({ "error": { "code": null, "message": message } }),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { message, .. } => f.write_str(message),
            Self::Coded(body) => write!(f, "{} ({})", body.error.message, body.code()),
        }
    }
}

impl Error for Fault {}

/// What to try next, where that is not plain from the message.
fn hint(code: ErrorCode) -> Option<&'static str> {
    match code {
        ErrorCode::ModuleNotFound => Some("`wess ls` shows what is stored"),
        ErrorCode::FunctionNotFound | ErrorCode::InvalidArguments => {
            Some("`wess describe REF` shows the functions and their signatures")
        }
        ErrorCode::NoWorkers => Some("start one with `wess up`, or `wess-worker`"),
        ErrorCode::Unavailable => Some("is `wess up`, or your NATS server, running there?"),
        ErrorCode::Unauthorized | ErrorCode::Forbidden => {
            Some("give the gateway a token with the right scope by --token or WESS_TOKEN")
        }
        ErrorCode::DeadlineExceeded => {
            Some("--timeout gives it longer, up to what the module and its operator allow")
        }
        ErrorCode::OutOfFuel => Some("--fuel gives it more"),
        ErrorCode::MemoryExceeded => {
            Some("--memory-mb gives it more, up to what the module and its operator allow")
        }
        ErrorCode::Overloaded | ErrorCode::QueueFull | ErrorCode::Expired | ErrorCode::RateLimited => {
            Some("try again in a moment")
        }
        ErrorCode::QuotaExceeded => Some("`wess rm NAME@VERSION` makes room"),
        ErrorCode::JobNotFound => Some("`wess jobs ls` shows those that are kept"),
        ErrorCode::BindingNotFound => Some("`wess bindings` shows those that are there"),
        ErrorCode::InvalidRequest
        | ErrorCode::Conflict
        | ErrorCode::PayloadTooLarge
        | ErrorCode::InvalidModule
        | ErrorCode::UnsupportedModule
        | ErrorCode::Unsupported
        | ErrorCode::GuestTrapped
        | ErrorCode::OutputTooLarge
        | ErrorCode::Cancelled
        | ErrorCode::Internal => None,
    }
}

/// The error and its causes, but for those that the one above has told already.
fn with_causes(error: &dyn Error) -> String {
    std::iter::successors(error.source(), |cause| (**cause).source())
        .map(ToString::to_string)
        .fold(error.to_string(), |text, cause| {
            if text.ends_with(&cause) {
                text
            } else {
                format!("{text}: {cause}")
            }
        })
}

impl From<ErrorBody> for Fault {
    fn from(body: ErrorBody) -> Self {
        Self::Coded(Box::new(body))
    }
}

impl From<BusError> for Fault {
    fn from(error: BusError) -> Self {
        Self::coded(error.code(), &error)
    }
}

impl From<PayloadError> for Fault {
    fn from(error: PayloadError) -> Self {
        Self::coded(error.code(), &error)
    }
}

impl From<ConnectFailed> for Fault {
    fn from(error: ConnectFailed) -> Self {
        Self::coded(ErrorCode::Unavailable, &error)
    }
}

impl From<ConfigError> for Fault {
    fn from(error: ConfigError) -> Self {
        Self::local(Exit::Config, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_message_code_and_hint() {
        let fault = Fault::from(ErrorBody::new(ErrorCode::ModuleNotFound, "there is no module x"));
        assert_eq!(fault.to_string(), "there is no module x (module_not_found)");
        assert_eq!(fault.hint(), Some("`wess ls` shows what is stored"));
        assert_eq!(fault.exit(), Exit::NotFound);
    }

    #[test]
    fn programs_read_the_body_as_it_came() {
        let body = ErrorBody::new(ErrorCode::GuestTrapped, "it trapped").with("trap", "unreachable");
        assert_eq!(Fault::from(body.clone()).json(), json!(body));
        assert_eq!(
            Fault::local(Exit::NotFound, "no file").json()["error"]["message"],
            "no file"
        );
    }

    #[test]
    fn the_causes_of_an_error_are_told() {
        let cause = std::io::Error::other("refused");
        let error = ConfigError::new("--nats", "no server");
        assert_eq!(with_causes(&cause), "refused");
        assert!(Fault::from(error).to_string().contains("--nats: no server"));
    }
}
