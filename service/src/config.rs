//! Mistakes in a process's configuration: collected, so that all are reported at once, each by the option's name.
//!
//! Refuses to hold an empty report: a [`ConfigError`] always names at least one option.

use std::fmt;

/// Everything that is wrong with a configuration. Exit code 64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    first: Problem,
    others: Vec<Problem>,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The option as its user writes it, e.g. `--nats`.
    pub option: &'static str,
    /// What is wrong with its value. Never holds a secret.
    pub message: String,
}

impl ConfigError {
    /// One mistake.
    pub fn new(option: &'static str, message: impl Into<String>) -> Self {
        Self {
            first: Problem {
                option,
                message: message.into(),
            },
            others: Vec::new(),
        }
    }

    /// Every mistake, in the order found.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is wrong")?;
        self.problems()
            .try_for_each(|problem| write!(f, "\n  {}: {}", problem.option, problem.message))
    }
}

impl std::error::Error for ConfigError {}

/// Collects mistakes while a configuration is read.
#[derive(Debug, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Notes one mistake.
    pub fn add(&mut self, option: &'static str, message: impl Into<String>) {
        self.0.push(Problem {
            option,
            message: message.into(),
        });
    }

    /// Takes the value out of a result, noting its mistakes.
    pub fn take<T>(&mut self, result: Result<T, ConfigError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.0.push(error.first);
                self.0.extend(error.others);
                None
            }
        }
    }

    /// As [`Problems::take`], for a parser that does not know its option's name.
    pub fn parse<T, E: fmt::Display>(&mut self, option: &'static str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(option, error.to_string())).ok()
    }

    /// The report, if anything was noted.
    pub fn finish(self) -> Result<(), ConfigError> {
        let mut problems = self.0.into_iter();
        match problems.next() {
            None => Ok(()),
            Some(first) => Err(ConfigError {
                first,
                others: problems.collect(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_reported_with_its_name() {
        let mut problems = Problems::default();
        assert_eq!(problems.parse("--slots", "four".parse::<u8>()), None);
        assert_eq!(
            problems.take::<()>(Err(ConfigError::new("--nats", "no server"))),
            None
        );
        let error = problems.finish().unwrap_err();
        let names: Vec<_> = error.problems().map(|problem| problem.option).collect();
        assert_eq!(names, ["--slots", "--nats"]);
        assert!(error.to_string().ends_with("\n  --nats: no server"), "{error}");
    }

    #[test]
    fn nothing_noted_is_no_error() {
        let mut problems = Problems::default();
        assert_eq!(problems.take(Ok(7)), Some(7));
        assert_eq!(problems.finish(), Ok(()));
    }
}
