//! The files of a view other than its shards.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use ckptfs::catalog::Extents;
use ckptfs::recipe::Plan;

/// The files that are not shards, in path order.
pub(crate) fn aux_files(plan: &Plan) -> impl Iterator<Item = (PathBuf, &Extents)> {
    let shards: HashSet<&Path> = plan.shards.iter().map(|s| Path::new(&s.name)).collect();
    let mut files: Vec<_> = plan
        .view
        .files()
        .map(|(_, path, content)| (path, content))
        .filter(|(path, _)| !shards.contains(path.as_path()))
        .collect();
    files.sort_by(|a, b| a.0.cmp(&b.0));
    files.into_iter()
}
