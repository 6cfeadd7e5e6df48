//! Where the tensors of a view come from: their sources, and the steps from those to them.
//!
//! [`Lineage::trace`] finds them for one tensor, [`Group`] of many that differ only by the numbers in their
//! names, and [`Files`] of the files of a view; [`Counts`] are the figures of all of it.

mod counts;
mod files;
mod groups;
mod lineage;
mod links;
mod pattern;

pub use counts::{ChangedBy, Count, Counts, Fate, FileCount};
pub use files::{Files, MAX_ATTRIBUTE_BYTES};
pub use groups::{Group, GroupSource, groups, groups_of_plan};
pub use lineage::{Lineage, Source, lineages};
pub use links::links_leading_out;
pub use pattern::Pattern;
