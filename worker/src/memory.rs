//! How much memory this process may use: its cgroup's limit, else the machine's memory.

use std::path::Path;

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

#[cfg(test)]
mod tests {
    use super::*;

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
