//! What was found wrong, one line for each kind of fault: a checkpoint has thousands of tensors,
//! and a fault often has them all.

use indexmap::IndexMap;

/// What is wrong, and what may be.
#[derive(Debug, Default)]
pub struct Faults {
    pub(crate) problems: Findings,
    pub(crate) warnings: Findings,
}

/// Faults by their description, each with what has it.
#[derive(Debug, Default)]
pub(crate) struct Findings(IndexMap<String, Vec<String>>);

impl Findings {
    /// A fault of the whole directory or of what `description` names.
    pub(crate) fn add(&mut self, description: impl Into<String>) {
        self.0.entry(description.into()).or_default();
    }

    /// A fault that `item` has.
    pub(crate) fn add_item(&mut self, description: impl Into<String>, item: impl Into<String>) {
        let items = self.0.entry(description.into()).or_default();
        items.push(item.into());
    }

    /// A line for each kind, with the first few that have it and the number of the others.
    pub(crate) fn into_lines(self) -> Vec<String> {
        const SHOWN: usize = 5;
        let line = |(mut description, items): (String, Vec<String>)| {
            if !items.is_empty() {
                let shown = items.len().min(SHOWN);
                description += &format!(": {}", items[..shown].join(", "));
                if items.len() > shown {
                    description += &format!(" and {} more", items.len() - shown);
                }
            }
            description
        };
        self.0.into_iter().map(line).collect()
    }
}
