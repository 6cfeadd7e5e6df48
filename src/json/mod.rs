//! Plans and reports as JSON, for programs: what `ckptfs plan --json`, `inspect --json` and `diff --json`
//! print, and what Python has as dictionaries.

mod comparison;
mod details;
mod figures;
mod inspection;
#[cfg(feature = "fuse")]
mod passthrough;
mod plan;
mod warnings;
mod writing;

pub use comparison::{comparison, difference, structure};
pub use details::Details;
pub use inspection::{inspection, schemes};
pub use plan::plan;
pub use warnings::SpelledWarning;
pub use writing::Writing;
