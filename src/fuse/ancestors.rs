//! The processes that this one was started from.

use std::fs;

/// The parent of this process, that one's parent, and so on, as far as they can be seen.
pub(super) fn ancestors() -> Vec<u32> {
    let mut ancestors = Vec::new();
    let mut process = std::process::id();
    while let Some(parent) = parent(process)
        && parent > 0
        && !ancestors.contains(&parent)
    {
        ancestors.push(parent);
        process = parent;
    }
    ancestors
}

fn parent(process: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_the_parent_and_the_last_has_none() {
        let ancestors = ancestors();
        assert_eq!(
            ancestors.first(),
            Some(&std::os::unix::process::parent_id())
        );
        let last = ancestors.last().and_then(|last| parent(*last));
        assert!(last.is_none_or(|parent| parent == 0), "{ancestors:?}");
    }
}
