//! What config.json says that bears on the form of experts.

use std::path::PathBuf;

use serde_json::Value;

use crate::catalog::{CONFIG_FILE, Catalog};
use crate::error::setting::{EXPERTS, PATCH};
use crate::error::{Code, Error, Hint, Result};
use crate::ops::experts::weight::Weight;

/// Families that store fused experts transposed, by the beginning of their model_type (read from
/// transformers 5.23).
const TRANSPOSED: [&str; 5] = [
    "aria",
    "gpt_oss",
    "llama4",
    "openai_privacy_filter",
    "qwen3_vl_moe",
];

/// The facts of a base's config.json; without one, none are known.
#[derive(Debug, Default)]
pub(in crate::ops) struct Model {
    path: PathBuf,
    /// `model_type` of the model, and of the language model in it.
    types: Vec<String>,
    hidden_size: Option<u64>,
    experts: Option<u64>,
}

impl Model {
    pub(in crate::ops) fn from_catalog(catalog: &mut Catalog) -> Result<Self> {
        let Some(config) = catalog.config_mut()? else {
            return Ok(Model::default());
        };
        let number = |key: &str| config.text_model(key)?.as_u64();
        let counts = ["num_experts", "num_local_experts", "n_routed_experts"];
        let types = [
            config.get("model_type"),
            config.get_in("text_config", "model_type"),
        ];
        Ok(Model {
            path: config.path().to_owned(),
            types: types.into_iter().flatten().filter_map(text).collect(),
            hidden_size: number("hidden_size"),
            experts: counts.into_iter().find_map(number),
        })
    }

    /// The family, if it is one that stores fused experts transposed.
    pub(in crate::ops) fn transposed_family(&self) -> Option<&String> {
        let is_transposed = |model_type: &&String| {
            TRANSPOSED.iter().any(|family| {
                let rest = model_type.strip_prefix(family);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
            })
        };
        self.types.iter().find(is_transposed)
    }

    /// Refuses the families whose fused experts are no concatenation of per-expert weights.
    pub(super) fn refuse_transposed(&self, form: &'static str) -> Result<()> {
        let Some(found) = self.transposed_family() else {
            return Ok(());
        };
        Err(Error::of_file(Code::ExpertsLayout, &self.path,
            format!(
                "model_type is \"{found}\": this family stores fused experts transposed ([E, H, 2I] and [E, I, H]), so that the weights of one expert are not ranges of their bytes"
            ),
        ).with_hint(Hint::leave_out_value(EXPERTS, form)))
    }

    /// Checks the hidden size that the shape of `weight` gives.
    pub(super) fn check_hidden_size(&self, weight: &Weight, found: u64) -> Result<()> {
        match self.hidden_size {
            Some(expected) if expected != found => Err(weight.error(Code::ConfigMismatch, format!(
                "its shape is {:?}, so that the hidden size would be {found}, but hidden_size in {CONFIG_FILE} is {expected}; are these the experts of another model, or stored in another layout?",
                weight.tensor.shape
            ))),
            _ => Ok(()),
        }
    }

    /// Checks the number of experts of the layer that `weight` is in.
    pub(super) fn check_count(&self, weight: &Weight, found: u64) -> Result<()> {
        match self.experts {
            Some(expected) if expected != found => Err(weight
                .error(
                    Code::ConfigMismatch,
                    format!("its layer has {found} experts, but {CONFIG_FILE} says {expected}"),
                )
                .with_hint(
                    Hint::give(PATCH)
                        .to("add what is missing")
                        .or(format!("correct {CONFIG_FILE}")),
                )),
            _ => Ok(()),
        }
    }
}

fn text(value: Value) -> Option<String> {
    Some(value.as_str()?.to_owned())
}
