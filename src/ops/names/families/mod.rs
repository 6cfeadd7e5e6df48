//! What each family calls its tensors in the two layouts, by `model_type`; docs/NAMES.md has the same table. The facts are
//! those of transformers 5.23 (`conversion_mapping.py`) and of the checkpoints that it reads by them.

mod language;
mod multimodal;
mod rule;
mod same;
mod shared;

pub use rule::{Conversion, Family, Rule, Step};

/// All families.
pub fn families() -> impl Iterator<Item = &'static Family> {
    let differing = [language::FAMILIES, multimodal::FAMILIES];
    let differing = differing.into_iter().flatten();
    differing.chain(std::iter::once(&same::FAMILY))
}
