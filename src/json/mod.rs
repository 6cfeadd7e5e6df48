//! Plans and reports as JSON, for programs: what `ckptfs plan --json`, `inspect --json` and `diff --json`
//! print, and what Python has as dictionaries.

mod comparison;
mod figures;
mod inspection;
#[cfg(feature = "fuse")]
mod passthrough;
mod plan;
mod warnings;
mod writing;

pub use comparison::{comparison, difference, structure};
pub use inspection::{inspection, schemes};
pub use plan::{Details, plan};
pub use warnings::SpelledWarning;
pub use writing::Writing;
