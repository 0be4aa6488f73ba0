//! How one run of a job ended, and what follows from it: an outcome, another attempt, or another delivery.
//!
//! Only guests spend attempts. What we did wrong is tried again, as often as the queue delivers.

use wess_schemas::job::{JobOutcome, RetryPolicy};
use wess_schemas::{ErrorBody, ErrorCode};

/// What one run came to.
pub type Ran = Result<JobOutcome, ErrorBody>;

/// Whose doing a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The guest's: an attempt is spent.
    Guest,
    /// The request's: it would fail again.
    Request,
    /// Ours: no attempt is spent.
    Ours,
}

/// Whose doing a failure with this code is.
pub fn blame(code: ErrorCode) -> Blame {
    match code {
        ErrorCode::GuestTrapped
        | ErrorCode::MemoryExceeded
        | ErrorCode::OutputTooLarge
        | ErrorCode::DeadlineExceeded
        | ErrorCode::OutOfFuel => Blame::Guest,
        ErrorCode::InvalidRequest
        | ErrorCode::InvalidArguments
        | ErrorCode::Unauthorized
        | ErrorCode::Forbidden
        | ErrorCode::ModuleNotFound
        | ErrorCode::FunctionNotFound
        | ErrorCode::JobNotFound
        | ErrorCode::BindingNotFound
        | ErrorCode::Conflict
        | ErrorCode::PayloadTooLarge
        | ErrorCode::InvalidModule
        | ErrorCode::UnsupportedModule
        | ErrorCode::Unsupported
        | ErrorCode::QuotaExceeded
        | ErrorCode::Cancelled => Blame::Request,
        ErrorCode::RateLimited
        | ErrorCode::Expired
        | ErrorCode::Overloaded
        | ErrorCode::QueueFull
        | ErrorCode::NoWorkers
        | ErrorCode::Unavailable
        | ErrorCode::Internal => Blame::Ours,
    }
}

/// What happens to a job after a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It has succeeded.
    Succeeded,
    /// It has failed, and that is its outcome.
    Failed,
    /// It is run again after a pause, in milliseconds.
    Retry(u64),
    /// It is given up: its guest failed as often as it may.
    Exhausted,
    /// It is delivered again.
    Redeliver,
}

/// Decides what happens after a run. `attempts` counts the endings of its guest, this one included.
pub fn next(ran: &Ran, attempts: u32, retry: Option<&RetryPolicy>) -> Next {
    let error = match ran {
        Ok(_) => return Next::Succeeded,
        Err(error) => error,
    };
    match (blame(error.code()), retry) {
        (Blame::Ours, _) => Next::Redeliver,
        (Blame::Guest, Some(retry)) if attempts < retry.max_attempts => {
            Next::Retry(retry.backoff_ms(attempts))
        }
        (Blame::Guest, Some(retry)) if retry.max_attempts > 1 => Next::Exhausted,
        (Blame::Guest | Blame::Request, _) => Next::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(code: ErrorCode) -> Ran {
        Err(ErrorBody::new(code, ""))
    }

    #[test]
    fn a_guest_that_fails_is_its_jobs_outcome_unless_the_job_says_otherwise() {
        let trapped = failed(ErrorCode::GuestTrapped);
        let policy = |max_attempts| RetryPolicy {
            max_attempts,
            backoff_ms: vec![10, 20],
        };
        assert_eq!(next(&trapped, 1, None), Next::Failed);
        assert_eq!(next(&trapped, 1, Some(&policy(1))), Next::Failed);
        assert_eq!(next(&trapped, 1, Some(&policy(3))), Next::Retry(10));
        assert_eq!(next(&trapped, 2, Some(&policy(3))), Next::Retry(20));
        assert_eq!(next(&trapped, 3, Some(&policy(3))), Next::Exhausted);
    }

    #[test]
    fn what_the_request_did_wrong_is_not_tried_again_and_what_we_did_always_is() {
        let policy = RetryPolicy {
            max_attempts: 3,
            backoff_ms: vec![],
        };
        assert_eq!(
            next(&failed(ErrorCode::ModuleNotFound), 0, Some(&policy)),
            Next::Failed
        );
        for code in [ErrorCode::Internal, ErrorCode::Unavailable, ErrorCode::Expired] {
            assert_eq!(next(&failed(code), 0, Some(&policy)), Next::Redeliver);
            assert_eq!(next(&failed(code), 9, None), Next::Redeliver);
        }
    }

    #[test]
    fn whoever_may_have_run_a_guest_is_blamed_for_it_or_it_was_us() {
        use wess_schemas::error_code::GuestRan;
        for code in ErrorCode::ALL {
            if code.guest_ran() == GuestRan::Yes {
                assert_eq!(blame(*code), Blame::Guest, "{code}");
            }
        }
    }
}
