//! What config.json says that bears on the form of experts.

use std::collections::HashSet;
use std::path::PathBuf;

use serde_json::Value;

use crate::catalog::{CONFIG_FILE, Catalog, Config};
use crate::error::setting::{EXPERTS, PATCH};
use crate::error::{Code, Error, Hint, Result, Warning};
use crate::ops::experts::weight::{Change, Weight};
use crate::text::listing;

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
    /// Modules that the source's quantization leaves alone.
    skipped: Vec<String>,
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
            skipped: skipped(config).unwrap_or_default(),
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

    /// Warns if the source's quantization leaves modules alone that are no more.
    pub(super) fn warn_of_stale_skips(&self, catalog: &mut Catalog, changes: &[Change]) {
        let old: HashSet<&str> = changes
            .iter()
            .flat_map(|change| &change.old)
            .filter_map(|name| name.strip_suffix(".weight"))
            .collect();
        let skipped = self.skipped.iter();
        let stale: Vec<&String> = skipped
            .filter(|module| old.contains(module.as_str()))
            .collect();
        if !stale.is_empty() {
            catalog.report.warnings.push(Warning::new(Code::SkipList, format!(
                "modules_to_not_convert in {CONFIG_FILE} names modules that become part of fused tensors; loaders may take those for quantized, unless this view quantizes, which makes a new list: {}",
                listing(&stale)
            )));
        }
    }
}

fn skipped(config: &Config) -> Option<Vec<String>> {
    let quantization = config.text_model("quantization_config")?;
    let list = quantization.get("modules_to_not_convert")?.as_array()?;
    Some(list.iter().cloned().filter_map(text).collect())
}

fn text(value: Value) -> Option<String> {
    Some(value.as_str()?.to_owned())
}
