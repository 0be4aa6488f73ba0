//! Logs: human lines or JSON on stderr, filtered. stdout belongs to the `ready` line and to results.
//!
//! Refuses a filter that does not parse instead of ignoring it.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::ConfigError;

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// The log options of every command line.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Logs")]
pub struct TelemetryOptions {
    /// How to write logs.
    #[arg(long, env = "WESS_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// Which logs to write, e.g. `debug` or `info,wess_worker=trace`.
    #[arg(
        long,
        env = "WESS_LOG",
        default_value = "info,async_nats=warn",
        value_name = "FILTER"
    )]
    pub log: String,
}

impl TelemetryOptions {
    /// Starts logging to stderr, for the whole process. To be called once, first in `main`.
    pub fn init(&self) -> Result<(), ConfigError> {
        let builder = tracing_subscriber::fmt()
            .with_env_filter(self.filter()?)
            .with_writer(std::io::stderr);
        let result = match self.log_format {
            LogFormat::Human => builder
                .with_ansi(std::io::stderr().is_terminal())
                .finish()
                .try_init(),
            LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
        };
        result.map_err(|error| ConfigError::new("--log", error.to_string()))
    }

    fn filter(&self) -> Result<EnvFilter, ConfigError> {
        let filter = EnvFilter::builder().parse(&self.log);
        filter.map_err(|error| ConfigError::new("--log", format!("{:?}: {error}", self.log)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_does_not_parse_is_refused_by_name() {
        let options = |log: &str| TelemetryOptions {
            log_format: LogFormat::Human,
            log: log.into(),
        };
        let error = options("info,wess=loud").filter().unwrap_err();
        assert_eq!(
            error.problems().next().map(|problem| problem.option),
            Some("--log")
        );
        assert!(options("info,wess_worker=trace").filter().is_ok());
    }
}
