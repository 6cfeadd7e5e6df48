//! How much of the page cache can be filled before the kernel takes pages away again.

use std::fs;
use std::path::Path;

/// The share of the memory that is left for others.
const LEFT: u64 = 10;

/// Bytes that can be brought into memory, with those that were brought there before: they can be taken
/// away again, and so count as available. `None` if the system does not tell.
pub(in crate::fuse) fn room() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.and_then(|text| of_machine(&text));
    let group = fs::read_to_string("/proc/self/cgroup").ok();
    let group = group.and_then(|text| of_groups(&text, Path::new("/sys/fs/cgroup")));
    let room = [machine, group].into_iter().flatten().map(Memory::room);
    room.min()
}

/// Memory of a machine or of a group of processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Memory {
    total: u64,
    /// That is free or can be made free, in bytes.
    available: u64,
}

impl Memory {
    fn room(self) -> u64 {
        self.available.saturating_sub(self.total / LEFT)
    }
}

/// What `/proc/meminfo` says.
fn of_machine(text: &str) -> Option<Memory> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib << 10)
    };
    Some(Memory {
        total: field("MemTotal:")?,
        available: field("MemAvailable:")?,
    })
}

/// What the control groups (version 2) of a process leave it, of which `text` is its
/// `/proc/self/cgroup` and which are mounted at `root`. `None` if nothing is limited there.
fn of_groups(text: &str, root: &Path) -> Option<Memory> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let group = root.join(path);
    let within = group.ancestors().take_while(|path| path.starts_with(root));
    within
        .filter_map(of_group)
        .min_by_key(|memory| memory.available)
}

fn of_group(directory: &Path) -> Option<Memory> {
    let read = |name: &str| fs::read_to_string(directory.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let (total, current) = (number("memory.max")?, number("memory.current")?);
    let stat = read("memory.stat")?;
    let cached = stat.lines().find_map(|line| line.strip_prefix("file "))?;
    let kept = current.saturating_sub(cached.trim().parse().ok()?);
    Some(Memory {
        total,
        available: total.saturating_sub(kept),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_the_memory_is_left_for_others() {
        let text =
            "MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:    600 kB\nBuffers: 1 kB\n";
        let memory = of_machine(text).unwrap();
        assert_eq!((memory.total, memory.available), (1000 << 10, 600 << 10));
        assert_eq!(memory.room(), 500 << 10);
        let scarce = Memory {
            available: 99,
            total: 1000,
        };
        assert_eq!(scarce.room(), 0);
        assert_eq!(of_machine("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn the_narrowest_group_counts() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("pods/one");
        fs::create_dir_all(&group).unwrap();
        let write = |directory: &Path, max: &str, current: u64, file: u64| {
            fs::write(directory.join("memory.max"), format!("{max}\n")).unwrap();
            fs::write(directory.join("memory.current"), format!("{current}\n")).unwrap();
            let stat = format!("anon 5\nfile {file}\nfile_mapped 9\n");
            fs::write(directory.join("memory.stat"), stat).unwrap();
        };
        let of = |text: &str| of_groups(text, root.path());
        assert_eq!(of("0::/pods/one\n"), None);
        write(&group, "max", 700, 100);
        assert_eq!(of("0::/pods/one\n"), None);
        write(group.parent().unwrap(), "1000", 800, 300);
        let memory = Memory {
            total: 1000,
            available: 500,
        };
        assert_eq!(of("3:cpu:/\n0::/pods/one\n"), Some(memory));
        write(&group, "900", 700, 100);
        let memory = Memory {
            total: 900,
            available: 300,
        };
        assert_eq!(of("0::/pods/one\n"), Some(memory));
    }
}
