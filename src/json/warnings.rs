//! Warnings for programs.

use serde::Serialize;

use crate::error::{Code, Spelling, Warning};

/// A warning with settings as the program spells them that shows it.
#[derive(Debug, Serialize)]
pub struct SpelledWarning {
    code: Code,
    text: String,
}

impl SpelledWarning {
    /// Each of `warnings`.
    pub fn each(warnings: &[Warning], spelling: Spelling) -> Vec<Self> {
        let json = warnings.iter().map(|warning| SpelledWarning {
            code: warning.code(),
            text: warning.spelled(spelling),
        });
        json.collect()
    }
}
