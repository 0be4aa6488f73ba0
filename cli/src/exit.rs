//! What a script can tell from an exit code. Those above 2 are the ones of `sysexits.h`.
//!
//! Each error code has exactly one exit code, by exhaustive match: a new one does not compile until it has a place here.

use wess_schemas::ErrorCode;

/// The exit codes of every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It worked.
    Done = 0,
    /// The guest ended with an exit code other than 0, trapped, or was stopped at a limit; a job was cancelled.
    GuestFailed = 1,
    /// The command line does not parse. Clap's own code.
    Usage = 2,
    /// The configuration is wrong.
    Config = 64,
    /// What was sent is wrong: a request, arguments, a module.
    BadInput = 65,
    /// A file, module, function, job or binding is not there.
    NotFound = 66,
    /// Nobody answers.
    Unavailable = 69,
    /// A fault of ours.
    Internal = 70,
    /// What is there does not allow it: somebody else changed it first, it is in use, or it may not grow.
    Conflict = 73,
    /// No room now, or a job that was waited for has not ended.
    Busy = 75,
    /// Credentials are missing or do not allow it.
    Denied = 77,
}

/// The table that `wess --help` ends with.
pub const TABLE: &str = "\
Exit codes:
   0  done
   1  the guest ended with an exit code other than 0, trapped, or was stopped at a limit; a job was cancelled
   2  the command line does not parse
  64  the configuration is wrong
  65  what was sent is wrong: a request, arguments, a module, too many bytes
  66  a file, module, function, job or binding is not there
  69  nobody answers: no NATS server, no gateway, no worker
  70  a fault of Wess
  73  somebody else changed it first, it is still in use, or there are too many versions or tags of it
  75  no room now, try again; of `wess jobs wait`: not ended yet; of `wess up`: stopped, but work had to be abandoned
  77  credentials are missing or do not allow it";

impl From<ErrorCode> for Exit {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::GuestTrapped
            | ErrorCode::MemoryExceeded
            | ErrorCode::OutputTooLarge
            | ErrorCode::DeadlineExceeded
            | ErrorCode::OutOfFuel
            | ErrorCode::Cancelled => Self::GuestFailed,
            ErrorCode::InvalidRequest
            | ErrorCode::InvalidArguments
            | ErrorCode::PayloadTooLarge
            | ErrorCode::InvalidModule
            | ErrorCode::UnsupportedModule
            | ErrorCode::Unsupported => Self::BadInput,
            ErrorCode::ModuleNotFound
            | ErrorCode::FunctionNotFound
            | ErrorCode::JobNotFound
            | ErrorCode::BindingNotFound => Self::NotFound,
            ErrorCode::NoWorkers | ErrorCode::Unavailable => Self::Unavailable,
            ErrorCode::Internal => Self::Internal,
            ErrorCode::Conflict | ErrorCode::QuotaExceeded => Self::Conflict,
            ErrorCode::Overloaded | ErrorCode::QueueFull | ErrorCode::Expired | ErrorCode::RateLimited => {
                Self::Busy
            }
            ErrorCode::Unauthorized | ErrorCode::Forbidden => Self::Denied,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wess_schemas::error_code::Retry;

    #[test]
    fn every_code_that_an_error_can_end_with_is_in_the_table() {
        for code in ErrorCode::ALL {
            let line = format!("\n{:>4}  ", Exit::from(*code) as u8);
            assert!(TABLE.contains(&line), "{code} ends with {line:?}");
        }
        for exit in [Exit::Done, Exit::Usage, Exit::Config] {
            assert!(TABLE.contains(&format!("\n{:>4}  ", exit as u8)), "{exit:?}");
        }
    }

    #[test]
    fn only_what_may_be_retried_ends_as_busy() {
        for code in ErrorCode::ALL
            .iter()
            .filter(|code| Exit::from(**code) == Exit::Busy)
        {
            assert_ne!(code.retry(), Retry::No, "{code}");
        }
    }

    #[test]
    fn no_error_ends_as_success_or_as_a_usage_error() {
        for code in ErrorCode::ALL {
            assert!(!matches!(Exit::from(*code), Exit::Done | Exit::Usage), "{code}");
        }
    }
}
