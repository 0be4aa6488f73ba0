//! What a process has used, read from `/proc`: processor time and memory. Nothing where there is no `/proc`.

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use super::goals::Goal;

/// In bytes, for figures that people read.
pub const KIB: f64 = 1024.0;
/// In bytes, for figures that people read.
pub const MIB: f64 = 1024.0 * KIB;
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

/// What of a process's memory is code that was compiled for it, or the files that it comes from, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Code {
    /// All that is resident of it.
    pub resident_bytes: u64,
    /// What is the process's own of it: copied, or written to.
    pub private_bytes: u64,
}

impl Code {
    /// A process's, whose compiled files are in this folder.
    pub fn of(pid: u32, folder: &Path) -> anyhow::Result<Self> {
        let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).context("memory is read from /proc")?;
        Ok(parse_smaps(&smaps, &folder.to_string_lossy()))
    }

    /// What is wanted of it: code is mapped and shared, whoever runs it.
    pub fn goal(&self) -> Goal {
        Goal::at_most(
            "private memory of compiled code, KiB",
            0.0,
            self.private_bytes as f64 / KIB,
        )
    }
}

/// Mappings of files in this folder, and those that can be executed and are of no other file: a program's own code is not meant.
fn parse_smaps(smaps: &str, folder: &str) -> Code {
    let mut code = Code {
        resident_bytes: 0,
        private_bytes: 0,
    };
    let mut counts = false;
    for line in smaps.lines() {
        let kib = |name: &str| -> Option<u64> {
            let value = line.strip_prefix(name)?.trim().strip_suffix(" kB")?;
            value.parse().ok()
        };
        // `7f00-7f10 r-xp 00000000 fe:00 12 /a/path`, then a line for each figure, which is named with a colon.
        let mut words = line.split_whitespace();
        if let (Some(range), Some(permissions)) = (words.next(), words.next())
            && !range.ends_with(':')
        {
            let path = line.find('/').map_or("", |at| &line[at..]);
            let is_copy = permissions.contains('x') && (path.is_empty() || path.starts_with("/memfd:"));
            counts = is_copy || path.starts_with(folder);
        } else if counts {
            code.resident_bytes += kib("Rss:").unwrap_or(0) * 1024;
            code.private_bytes += kib("Anonymous:").unwrap_or(0) * 1024;
        }
    }
    code
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

    #[test]
    fn code_is_what_is_mapped_of_compiled_files_and_what_can_be_executed_without_a_file() {
        let mapping = |head: &str, rss, anonymous| {
            format!("{head}\nSize: 64 kB\nRss: {rss} kB\nAnonymous: {anonymous} kB\nVmFlags: rd ex mr\n")
        };
        let smaps = [
            mapping(
                "7f00-7f10 r-xp 00000000 fe:00 12    /run/worker/a file.cwasm",
                8,
                0,
            ),
            mapping(
                "7f10-7f20 r--p 00001000 fe:00 12    /run/worker/a file.cwasm",
                4,
                1,
            ),
            mapping("7f20-7f30 r-xp 00000000 00:00 0", 16, 2),
            mapping("7f30-7f40 rw-p 00000000 00:00 0    [heap]", 100, 100),
            mapping("7f40-7f50 r-xp 00000000 fe:00 13    /lib/run/worker", 200, 200),
            mapping("7f50-7f60 r-xp 00000000 00:01 14    /memfd:code (deleted)", 32, 4),
        ];
        let code = parse_smaps(&smaps.concat(), "/run/worker");
        assert_eq!((code.resident_bytes, code.private_bytes), (60 * 1024, 7 * 1024));
        assert_eq!(code.goal().measured, 7.0);
    }
}
