//! What was measured, for people, for programs and for docs/performance.md.

use serde::Serialize;

use super::cases::{Case, Sample};
use super::goals::{self, Goal};
use super::modules::Cached;
use super::usage::Memory;
use crate::output;

/// Everything that one run measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Processor cores of this machine.
    pub cores: usize,
    /// Each case.
    pub cases: Vec<Case>,
    /// The worker's memory when it had just started.
    pub idle: Option<Memory>,
    /// Many modules, and a restart. Only with a server of our own.
    pub modules: Option<Cached>,
    /// What this should have come to.
    pub goals: Vec<Goal>,
}

impl Report {
    /// Tables with a line above them each.
    pub fn text(&self) -> String {
        let calls = output::table(COLUMNS, self.rows());
        let facts = output::table(["MEASURED", ""], self.facts());
        goals::text_below(format!("{calls}\n\n{facts}"), &self.goals)
    }

    /// The same as Markdown.
    pub fn markdown(&self) -> String {
        let calls = output::markdown(COLUMNS, self.rows());
        let facts = output::markdown(["measured", ""], self.facts());
        goals::markdown_below(format!("{calls}\n\n{facts}"), &self.goals)
    }

    fn rows(&self) -> Vec<[String; 11]> {
        self.cases.iter().flat_map(case_rows).collect()
    }

    fn facts(&self) -> Vec<[String; 2]> {
        let mut facts = vec![["cores".into(), self.cores.to_string()]];
        if let Some(idle) = self.idle {
            facts.push(["idle worker, resident".into(), output::size(idle.resident_bytes)]);
            facts.push(["idle worker, its own".into(), output::size(idle.anonymous_bytes)]);
        }
        if let Some(cached) = &self.modules {
            facts.extend(cached.facts());
        }
        facts
    }
}

/// A report that is one table, with its goals below, for people and as Markdown alike.
pub trait Table<const N: usize> {
    /// What stands above its columns.
    const COLUMNS: [&str; N];

    /// Its lines.
    fn rows(&self) -> Vec<[String; N]>;

    /// What it is held against.
    fn goals(&self) -> &[Goal] {
        &[]
    }

    /// For people.
    fn text(&self) -> String {
        goals::text_below(output::table(Self::COLUMNS, self.rows()), self.goals())
    }

    /// The same as Markdown.
    fn markdown(&self) -> String {
        goals::markdown_below(output::markdown(Self::COLUMNS, self.rows()), self.goals())
    }
}

const COLUMNS: [&str; 11] = [
    "in flight",
    "bytes",
    "who",
    "calls/s",
    "of echo",
    "efficiency",
    "p50 µs",
    "p99 µs",
    "CPU µs: nats",
    "responder",
    "generator",
];

/// A line for each who took a turn.
fn case_rows(case: &Case) -> Vec<[String; 11]> {
    let ratio = |ratio: f64| format!("{ratio:.2}");
    let efficiency = case.efficiency.map_or_else(|| "?".into(), ratio);
    let mut rows = vec![
        row(case, "echo", &case.echo, Default::default()),
        row(case, "worker", &case.worker, [ratio(case.ratio), efficiency]),
    ];
    for peer in &case.peers {
        let ratios = [ratio(peer.ratio), String::new()];
        rows.push(row(case, &peer.name, &peer.sample, ratios));
    }
    rows.push(bare_row(case));
    rows
}

fn row(case: &Case, who: &str, sample: &Sample, [ratio, efficiency]: [String; 2]) -> [String; 11] {
    let [rate, p50, p99, nats, responder, generator] = sample_row(sample);
    let (in_flight, bytes) = (case.in_flight.to_string(), case.bytes.to_string());
    [
        in_flight,
        bytes,
        who.into(),
        rate,
        ratio,
        efficiency,
        p50,
        p99,
        nats,
        responder,
        generator,
    ]
}

/// The same guest without messages: all there is of it is what it costs.
fn bare_row(case: &Case) -> [String; 11] {
    let mut row: [String; 11] = Default::default();
    row[0] = case.in_flight.to_string();
    row[1] = case.bytes.to_string();
    row[2] = "bare call".into();
    row[9] = format!("{:.1}", case.bare_us);
    row
}

/// Rate, both latencies, and the processor time of NATS, responder and generator.
pub fn sample_row(sample: &Sample) -> [String; 6] {
    let cpu = |us: Option<f64>| us.map_or_else(|| "?".into(), |us| format!("{us:.1}"));
    [
        format!("{:.0}", sample.calls_per_s),
        format!("{:.0}", sample.p50_us),
        format!("{:.0}", sample.p99_us),
        cpu(sample.cpu_us.nats),
        cpu(sample.cpu_us.responder),
        cpu(sample.cpu_us.generator),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::cases::{Cpu, PeerCase};

    #[test]
    fn a_case_is_a_line_for_each_and_what_is_unknown_says_so() {
        let cpu_us = Cpu {
            nats: None,
            responder: Some(1.25),
            generator: Some(2.0),
        };
        let sample = Sample {
            calls_per_s: 103_300.4,
            p50_us: 400.2,
            p99_us: 900.0,
            cpu_us,
        };
        let case = Case {
            in_flight: 50,
            bytes: 64,
            echo: sample,
            worker: sample,
            ratio: 0.612,
            bare_us: 2.61,
            efficiency: Some(0.471),
            peers: vec![PeerCase {
                name: "other".into(),
                sample,
                ratio: 0.5,
            }],
        };
        let report = Report {
            cores: 2,
            cases: vec![case],
            idle: None,
            modules: None,
            goals: Vec::new(),
        };
        let [echo, worker, other, bare] = report.rows().try_into().unwrap();
        assert_eq!(
            echo,
            [
                "50", "64", "echo", "103300", "", "", "400", "900", "?", "1.2", "2.0"
            ]
        );
        assert_eq!([&worker[2], &worker[4], &worker[5]], ["worker", "0.61", "0.47"]);
        assert_eq!([&other[2], &other[4], &other[5]], ["other", "0.50", ""]);
        assert_eq!([&bare[2], &bare[9]], ["bare call", "2.6"]);
        assert!(
            report.markdown().starts_with("| in flight |"),
            "{}",
            report.markdown()
        );
    }
}
