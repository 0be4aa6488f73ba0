//! What a process has used, read from `/proc`: processor time and memory. Nothing where there is no `/proc`.

use std::fs;

use serde::Serialize;

/// The kernel counts processor time for user space in hundredths of a second, on every architecture.
const TICK_US: u64 = 10_000;

/// Processor time of all threads so far, ended ones included, in microseconds.
pub fn cpu_us(pid: u32) -> Option<u64> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// All that is resident, mapped files included.
    pub resident_bytes: u64,
    /// What is the process's own.
    pub anonymous_bytes: u64,
    /// The most that was resident since its start.
    pub peak_bytes: u64,
}

/// Memory now.
pub fn memory(pid: u32) -> Option<Memory> {
    parse_status(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

/// `7 (name) S …`: fields 14 and 15; the name may hold anything.
fn parse_stat(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) * TICK_US)
}

fn parse_status(status: &str) -> Option<Memory> {
    let kib = |name: &str| -> Option<u64> {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    };
    Some(Memory {
        resident_bytes: kib("VmRSS")? * 1024,
        anonymous_bytes: kib("RssAnon")? * 1024,
        peak_bytes: kib("VmHWM")? * 1024,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 12 34 0 0 20 0 1 0 100 0 0";
        assert_eq!(parse_stat(stat), Some(46 * TICK_US));
        assert_eq!(parse_stat("7 (a) S 1"), None);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\twess\nVmHWM:\t    3016 kB\nVmRSS:\t    2016 kB\nRssAnon:\t     156 kB\n";
        let memory = parse_status(status).unwrap();
        assert_eq!(
            (memory.resident_bytes, memory.anonymous_bytes, memory.peak_bytes),
            (2016 * 1024, 156 * 1024, 3016 * 1024)
        );
        assert_eq!(parse_status("VmRSS:\t1 kB\n"), None);
    }
}
