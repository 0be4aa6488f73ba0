//! What a worker counts, read from its admin port.

use anyhow::Context;

use super::processes::Process;
use crate::transport::http_client;

/// All that was counted at one moment.
pub struct Metrics(String);

impl Metrics {
    /// Reads them of a process that said where its admin port is.
    pub async fn read(process: &Process) -> anyhow::Result<Self> {
        let url = format!("{}/metrics", process.value("admin")?);
        Ok(Self(http_client()?.get(url).send().await?.text().await?))
    }

    /// A number without labels, by the end of its name.
    pub fn number(&self, name: &str) -> anyhow::Result<u64> {
        let number = |line: &str| {
            let (found, number) = line.split_once(' ')?;
            found.ends_with(name).then(|| number.parse().ok())?
        };
        let found = self.0.lines().find_map(number);
        found.with_context(|| format!("the worker has no metric {name}"))
    }

    /// How many modules were compiled.
    pub fn compilations(&self) -> anyhow::Result<u64> {
        self.number("registry_compilations_total")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_by_the_end_of_its_name() {
        let text = "# HELP wess_worker_cold_calls Calls\nwess_worker_cold_calls_total 7\n";
        let metrics = Metrics(text.into());
        assert_eq!(metrics.number("cold_calls_total").unwrap(), 7);
        assert!(metrics.compilations().is_err());
    }
}
