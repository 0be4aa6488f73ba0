//! What a scenario is held against: figures that were wanted, beside those that this run measured.

use serde::Serialize;

use crate::output;

/// A figure that is wanted, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Goal {
    /// Which figure.
    pub what: String,
    /// What is wanted.
    pub goal: f64,
    /// Whether more is better.
    pub at_least: bool,
    /// What this run measured.
    pub measured: f64,
}

/// What stands above [`rows`].
const COLUMNS: [&str; 3] = ["what", "goal", "measured"];

impl Goal {
    /// A figure that should be so much, or more.
    pub fn at_least(what: impl Into<String>, goal: f64, measured: f64) -> Self {
        Self {
            what: what.into(),
            goal,
            at_least: true,
            measured,
        }
    }

    /// A figure that should be so much, or less.
    pub fn at_most(what: impl Into<String>, goal: f64, measured: f64) -> Self {
        Self {
            at_least: false,
            ..Self::at_least(what, goal, measured)
        }
    }
}

/// A line for each goal.
pub fn rows(goals: &[Goal]) -> Vec<[String; 3]> {
    let row = |goal: &Goal| {
        let sign = if goal.at_least { '≥' } else { '≤' };
        [
            goal.what.clone(),
            format!("{sign} {:.2}", goal.goal),
            format!("{:.2}", goal.measured),
        ]
    };
    goals.iter().map(row).collect()
}

/// The goals' table below those of a report, for people. Nothing when there are none.
pub fn text_below(report: String, goals: &[Goal]) -> String {
    if goals.is_empty() {
        return report;
    }
    format!("{report}\n\n{}", output::table(COLUMNS, rows(goals)))
}

/// The same as Markdown.
pub fn markdown_below(report: String, goals: &[Goal]) -> String {
    if goals.is_empty() {
        return report;
    }
    format!("{report}\n\n{}", output::markdown(COLUMNS, rows(goals)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_says_which_way_is_better() {
        let goals = [
            Goal::at_least("of echo", 0.8, 0.734),
            Goal::at_most("p99, times", 2.0, 1.5),
        ];
        let expected = [["of echo", "≥ 0.80", "0.73"], ["p99, times", "≤ 2.00", "1.50"]];
        assert_eq!(rows(&goals), expected);
        assert_eq!(text_below("table".into(), &[]), "table");
        let markdown = markdown_below("| a |".into(), &goals);
        assert!(markdown.starts_with("| a |\n\n| what"), "{markdown}");
    }
}
