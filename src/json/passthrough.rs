//! What the kernel would read straight from the sources, were the view mounted.

use serde::Serialize;

use crate::fuse::PassthroughOutlook;
use crate::recipe::Plan;

#[derive(Serialize)]
pub(super) struct PassthroughJson {
    /// Files that are whole source files, and their bytes.
    files: usize,
    bytes: u64,
    /// Why the kernel does not read them from the sources; null if it does.
    obstacle: Option<String>,
}

impl PassthroughJson {
    pub(super) fn new(plan: &Plan) -> Self {
        let outlook = PassthroughOutlook::new(&plan.view);
        PassthroughJson {
            files: outlook.files,
            bytes: outlook.bytes,
            obstacle: outlook.obstacle,
        }
    }
}
