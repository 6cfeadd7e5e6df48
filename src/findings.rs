//! What was found wrong, one line for each kind of fault: a checkpoint has thousands of tensors,
//! and a fault often has them all.

use indexmap::IndexMap;

use crate::error::{Code, Warning};

/// What is wrong, and what may be.
#[derive(Debug, Default)]
pub struct Faults {
    pub(crate) problems: Findings,
    pub(crate) warnings: Findings,
}

/// Faults by their description, each with what has it.
#[derive(Debug, Default)]
pub(crate) struct Findings(IndexMap<String, (Warning, Vec<String>)>);

impl Findings {
    /// A fault of the whole directory or of what `description` names.
    pub(crate) fn add(&mut self, code: Code, description: impl Into<String>) {
        self.add_warning(Warning::new(code, description));
    }

    pub(crate) fn add_warning(&mut self, warning: Warning) {
        self.entry(warning);
    }

    /// A fault that `item` has.
    pub(crate) fn add_item(
        &mut self,
        code: Code,
        description: impl Into<String>,
        item: impl Into<String>,
    ) {
        let items = self.entry(Warning::new(code, description));
        items.push(item.into());
    }

    fn entry(&mut self, warning: Warning) -> &mut Vec<String> {
        let entry = self.0.entry(warning.to_string());
        &mut entry.or_insert((warning, Vec::new())).1
    }

    /// A warning for each kind, with the first few that have it and the number of the others.
    pub(crate) fn into_warnings(self) -> Vec<Warning> {
        const SHOWN: usize = 5;
        let with_items = |(warning, items): (Warning, Vec<String>)| {
            if items.is_empty() {
                return warning;
            }
            let shown = items.len().min(SHOWN);
            let mut list = items[..shown].join(", ");
            if items.len() > shown {
                list += &format!(" and {} more", items.len() - shown);
            }
            warning.followed_by(&format!(": {list}"))
        };
        self.0.into_values().map(with_items).collect()
    }
}
