//! How much memory this process may use: its cgroup's limit, else the machine's memory; and what of its own code it holds.

use std::ops::Range;
use std::path::Path;

use rustix::mm::Advice;

/// What guests may hold together unless told: half of what the process may use, in bytes.
pub fn default_budget_bytes() -> u64 {
    cgroup_limit_bytes(Path::new("/sys/fs/cgroup"), &cgroup_of_this_process()).unwrap_or_else(machine_bytes)
        / 2
}

fn cgroup_of_this_process() -> String {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    groups
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .unwrap_or_default()
        .to_owned()
}

/// The smallest limit on the way from the cgroup to its root (cgroup v2); `None` when there is none.
fn cgroup_limit_bytes(root: &Path, group: &str) -> Option<u64> {
    let limit = |folder: &Path| {
        std::fs::read_to_string(folder.join("memory.max"))
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    };
    root.join(group)
        .ancestors()
        .take_while(|folder| folder.starts_with(root))
        .filter_map(limit)
        .min()
}

fn machine_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

/// Gives back the memory of code that only the start needed; what goes on running is mapped again as it runs, from the page
/// cache. How many bytes of code are concerned: none where the process may not see itself.
pub fn forget_start_up_code() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let program = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    let mut bytes = 0;
    for code in maps.lines().filter_map(|line| code_of(line, &program)) {
        #[expect(
            unsafe_code,
            reason = "nothing safe gives back memory that the loader has mapped"
        )]
        // SAFETY: the range is a mapping of this program's file that can be read and run but not written, and position-independent
        // code is without relocations: what is run next is read from the file anew, and is the same. Lost is what a debugger or
        // a probe of the kernel's has put there, which leaves the program's own code.
        let given_back =
            unsafe { rustix::mm::madvise(code.start as *mut _, code.len(), Advice::LinuxDontNeed) };
        match given_back {
            Ok(()) => bytes += code.len(),
            Err(error) => tracing::debug!(%error, "the start's code stays in memory"),
        }
    }
    bytes
}

/// Where a line of `/proc/self/maps` has code of this program.
fn code_of(line: &str, program: &Path) -> Option<Range<usize>> {
    let mut words = line.split_ascii_whitespace();
    let (range, rights) = (words.next()?, words.next()?);
    if rights != "r-xp" || Path::new(words.nth(3)?) != program {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let address = |hex| usize::from_str_radix(hex, 16).ok();
    Some(address(start)?..address(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_the_program_that_nobody_can_have_written_is_given_back() {
        let code = |line: &str| code_of(line, Path::new("/bin/wess"));
        let line = "55d0c0a00000-55d0c0a01000 r-xp 00400000 08:02 1234   /bin/wess";
        assert_eq!(code(line), Some(0x55d0_c0a0_0000..0x55d0_c0a0_1000));
        for other in [
            line.replace("r-xp", "r--p"),
            line.replace("r-xp", "rwxp"),
            line.replace("/bin/wess", "/lib/libc.so.6"),
            line.replace("/bin/wess", ""),
        ] {
            assert_eq!(code(&other), None, "{other}");
        }
    }

    #[test]
    fn what_was_given_back_still_runs() {
        assert!(forget_start_up_code() > 0);
        assert_eq!(cgroup_limit_bytes(Path::new("/nowhere"), ""), None);
    }

    #[test]
    fn the_smallest_limit_on_the_way_to_the_root_holds() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("pod/container");
        std::fs::create_dir_all(&inner).unwrap();
        assert_eq!(cgroup_limit_bytes(root.path(), "pod/container"), None);
        std::fs::write(root.path().join("memory.max"), "max\n").unwrap();
        std::fs::write(root.path().join("pod/memory.max"), "1000\n").unwrap();
        std::fs::write(inner.join("memory.max"), "2000\n").unwrap();
        assert_eq!(cgroup_limit_bytes(root.path(), "pod/container"), Some(1000));
        assert_eq!(cgroup_limit_bytes(root.path(), "elsewhere"), None);
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(default_budget_bytes() > 1 << 20);
    }
}
