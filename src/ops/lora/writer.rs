//! How factors of fused experts are stored, which depends on who wrote the adapter.
//!
//! PEFT calls the dimensions of a fused weight `[E, in, out]`, whichever they are. Before 0.19.1 `A` is
//! therefore over the first of the two and `B` over the second; since then it is the other way round, except
//! where the model says that its weights are stored transposed (`is_transposed`), which 0.19.0 took for the
//! reverse. Of `B`'s columns, PEFT gives every `E`-th to one expert; Unsloth trained with runs of `r`
//! until September 2026 (unsloth-zoo 1269), and has named the order in adapter_config.json since (1232).

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Code, Error, Result};
use crate::named::named;

/// The order of the columns of `lora_B` of fused experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpertOrder {
    /// For each rank the columns of all experts, as PEFT has them.
    RankMajor,
    /// For each expert the columns of all ranks.
    ExpertMajor,
}

named!(ExpertOrder {
    RankMajor: "rank-major",
    ExpertMajor: "expert-major",
});

const VERSION: &str = "peft_version";
const ORDER: &str = "lora_B_layout";

/// What adapter_config.json says of who wrote the adapter.
#[derive(Debug)]
pub(super) struct Writer {
    pub peft: Peft,
    /// The order that it names.
    pub order: Option<ExpertOrder>,
    /// Whether it has traces of Unsloth.
    pub is_unsloth: bool,
}

/// The version of PEFT that wrote it, as far as it bears on experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peft {
    /// None is given: before 0.18.0, or another program.
    Unsaid,
    Before0_19,
    V0_19_0,
    Since0_19_1,
    /// Made from a repository between the releases where it changed, or not a version.
    Unclear,
}

impl Writer {
    pub(super) fn read(json: &Map<String, Value>, config: &Path) -> Result<Self> {
        let text = |key: &str| json.get(key).and_then(Value::as_str);
        let order = match json.get(ORDER) {
            None | Some(Value::Null) => None,
            Some(value) => match value.as_str() {
                Some("rank_major") => Some(ExpertOrder::RankMajor),
                Some("grouped_by_expert") => Some(ExpertOrder::ExpertMajor),
                _ => {
                    return Err(Error::of_file(
                        Code::UnsupportedAdapter,
                        config,
                        format!(
                            "{ORDER} is {value}; only rank_major and grouped_by_expert are known"
                        ),
                    ));
                }
            },
        };
        let is_fixed = |mapping: &Value| mapping.get("unsloth_fixed").is_some();
        let base = text("base_model_name_or_path").unwrap_or_default();
        Ok(Writer {
            peft: text(VERSION).map_or(Peft::Unsaid, Peft::from_version),
            order,
            is_unsloth: json.get("auto_mapping").is_some_and(is_fixed)
                || base.split('/').any(|part| part == "unsloth"),
        })
    }
}

impl Peft {
    fn from_version(version: &str) -> Self {
        // `0.19.1.dev0@UNKNOWN`: the commit is behind the @.
        let version = version.split('@').next().unwrap_or_default();
        let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
        let release: [Option<u32>; 3] = std::array::from_fn(|_| parts.next().flatten());
        let [Some(major), Some(minor), patch] = release else {
            return Peft::Unclear;
        };
        match (major, minor) {
            (0, ..18) => return Peft::Before0_19,
            (0, 18 | 19) => {}
            _ => return Peft::Since0_19_1,
        }
        match patch {
            // More than three numbers: a development version.
            Some(patch) if parts.next().is_none() => match (minor, patch) {
                (18, _) => Peft::Before0_19,
                (_, 0) => Peft::V0_19_0,
                _ => Peft::Since0_19_1,
            },
            _ => Peft::Unclear,
        }
    }

    /// Whether `A` is over the first dimension of a fused weight, and `B` over the second, where the model
    /// says whether weights are transposed; `None` if it cannot be told.
    pub(super) fn a_is_first(self, is_transposed: bool) -> Option<bool> {
        match self {
            Peft::Before0_19 => Some(true),
            Peft::V0_19_0 => Some(!is_transposed),
            Peft::Since0_19_1 => Some(is_transposed),
            // What 0.19.0 writes has its version.
            Peft::Unsaid if is_transposed => Some(true),
            Peft::Unsaid | Peft::Unclear => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_releases_or_unclear() {
        for (version, expected) in [
            ("0.17.1", Peft::Before0_19),
            ("0.18.0", Peft::Before0_19),
            ("0.18.1", Peft::Before0_19),
            ("0.18.2.dev0@abc", Peft::Unclear),
            ("0.19.0", Peft::V0_19_0),
            ("0.19.1.dev0@UNKNOWN", Peft::Unclear),
            ("0.19.0rc1", Peft::Unclear),
            ("0.19.1", Peft::Since0_19_1),
            ("0.19.2", Peft::Since0_19_1),
            ("0.20.0", Peft::Since0_19_1),
            ("0.21.3.dev0@1a2b", Peft::Since0_19_1),
            ("1.0.0", Peft::Since0_19_1),
            ("", Peft::Unclear),
            ("new", Peft::Unclear),
        ] {
            assert_eq!(Peft::from_version(version), expected, "{version}");
        }
    }
}
