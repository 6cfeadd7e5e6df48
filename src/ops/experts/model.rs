//! What config.json says that bears on the form of experts.

use serde_json::Value;

use crate::catalog::{CONFIG_FILE, Catalog};
use crate::error::setting::PATCH;
use crate::error::{Code, Hint, Result};
use crate::ops::experts::families::{self, Layout, Transposed};
use crate::ops::experts::weight::Singles;
use crate::ops::weight::Weight;
use crate::tensor::shape_text;

/// The facts of a base's config.json; without one, none are known.
#[derive(Debug, Default)]
pub(in crate::ops) struct Model {
    /// `model_type` of the model, and of the language model in it.
    types: Vec<String>,
    /// The width of what experts are given.
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
            types: types.into_iter().flatten().filter_map(text).collect(),
            // Nemotron-H has experts that are given a projection of the hidden state.
            hidden_size: number("moe_latent_size").or_else(|| number("hidden_size")),
            experts: counts.into_iter().find_map(number),
        })
    }

    /// Whether the family is one that stores fused experts transposed.
    pub(in crate::ops) fn is_transposed(&self) -> bool {
        self.transposed().is_some()
    }

    /// Whether fused experts of this family lie in either way, which their shapes tell.
    pub(in crate::ops) fn is_either_way(&self) -> bool {
        self.transposed().is_some_and(|family| family.reads_rows)
    }

    /// Of a family that stores fused experts transposed, whether the columns of gate and up come by turns.
    pub(in crate::ops) fn columns_by_turns(&self) -> Option<bool> {
        let transposed = self.transposed()?;
        Some(transposed.layout == Layout::Interleaved)
    }

    fn transposed(&self) -> Option<&'static Transposed> {
        self.types
            .iter()
            .find_map(|name| families::transposed(name))
    }

    /// Whether biases of experts have a place in fused tensors that is known.
    pub(super) fn has_biases(&self) -> bool {
        self.transposed().is_some_and(|family| family.has_biases)
    }

    /// How fused tensors are to lie.
    pub(super) fn layout(&self) -> Layout {
        self.transposed()
            .map_or(Layout::Rows, |family| family.layout)
    }

    /// How the fused tensors lie that `gate_up` is one of, whose shapes are those of transposed ones or not.
    ///
    /// # Errors
    /// If that cannot be told.
    pub(super) fn layout_of(&self, gate_up: &Weight, is_transposed: bool) -> Result<Layout> {
        let shape = shape_text(&gate_up.tensor.shape);
        let problem = match (self.transposed(), is_transposed) {
            (None, false) => return Ok(Layout::Rows),
            (Some(family), true) => return Ok(family.layout),
            (Some(family), false) if family.reads_rows => return Ok(Layout::Rows),
            (Some(_), false) => format!(
                "its shape is {shape}, which is [E, 2I, H], but the family of model_type {} stores fused experts transposed, [E, H, 2I]; so it cannot be told how gate and up lie in it",
                self.type_text()
            ),
            (None, true) => format!(
                "its shape is {shape}: these fused experts are transposed, [E, H, 2I] and [E, I, H], and it cannot be told whether gate and up are halves of a row or take turns; by model_type, which is {}, that is known of {} only",
                self.type_text(),
                families::transposed_names().collect::<Vec<_>>().join(", ")
            ),
        };
        Err(gate_up
            .error(Code::ExpertsLayout, problem)
            .with_hint(format!("correct {CONFIG_FILE}")))
    }

    /// How the family calls the weights of single experts.
    pub(super) fn singles(&self) -> Singles {
        let types = self.types.iter();
        let mut numbered = types.filter_map(|name| families::numbered(name));
        numbered.next().unwrap_or(Singles::PROJECTIONS)
    }

    /// Checks that single experts whose weights are called as `singles`, such as `weight`, may be: of others
    /// than those of the usual names, the family must say which is which.
    pub(super) fn check_singles(&self, singles: Singles, weight: &Weight) -> Result<()> {
        if singles == Singles::PROJECTIONS || singles == self.singles() {
            return Ok(());
        }
        let problem = format!(
            "it is called as of Mixtral, but by model_type, which is {}, it cannot be told which of {} is gate and which is up; that is known of {} only",
            self.type_text(),
            singles.all().join(", "),
            families::numbered_names().collect::<Vec<_>>().join(", ")
        );
        let hint = format!(
            "correct {CONFIG_FILE}, or rename the weights to gate_proj, up_proj and down_proj"
        );
        Err(weight.error(Code::ExpertsLayout, problem).with_hint(hint))
    }

    fn type_text(&self) -> String {
        match &self.types[..] {
            [] => "missing".to_owned(),
            types => format!("{types:?}").trim_matches(['[', ']']).to_owned(),
        }
    }

    /// Checks the hidden size that the shape of `weight` gives.
    pub(in crate::ops) fn check_hidden_size(&self, weight: &Weight, found: u64) -> Result<()> {
        match self.hidden_size {
            Some(expected) if expected != found => Err(weight.error(Code::ConfigMismatch, format!(
                "its shape is {:?}, so that the hidden size would be {found}, but hidden_size in {CONFIG_FILE} is {expected}; are these the experts of another model, or stored in another layout?",
                weight.tensor.shape
            ))),
            _ => Ok(()),
        }
    }

    /// Checks the number of experts of the layer that `weight` is in.
    pub(in crate::ops) fn check_count(&self, weight: &Weight, found: u64) -> Result<()> {
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
