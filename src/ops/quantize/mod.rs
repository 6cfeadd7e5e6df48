//! Quantizes selected weights, by any [`Encoding`].

mod checks;
mod expert_forms;
mod groups;
mod official;
mod rules;
mod selection;
mod unquantized;

use indexmap::{IndexMap, IndexSet};

use crate::catalog::{Catalog, OperatorReport, Tensor};
use crate::error::setting::{PARTIAL_BLOCKS, PATTERNS, REFERENCES, RULES, SCALE_FORMAT};
use crate::error::{Code, Error, Hint, Result};
use crate::named::{Named, named};
use crate::ops::params::chosen;
use crate::ops::{Conversions, Group, Operator, Params, Section, Setting, Takes, Value};
use crate::quant::fp8_block::{Fp8BlockEncoding, ScaleFormat};
use crate::quant::{self, Encoding};
use crate::source::Location;
use crate::tensor::Name;
pub use checks::ReferenceReport;
use groups::Decision;
pub use official::{FAMILIES, Family};
use selection::Selected;
pub use selection::{RuleSet, Selection};
pub use unquantized::{UnquantizedModule, UnquantizedReport};

/// What to do with tensors whose last blocks are cut off at an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PartialBlocks {
    /// Quantize them too, with partial blocks at the edges.
    #[default]
    Quantize,
    /// Leave them in their dtype.
    Keep,
}

named!(PartialBlocks {
    Quantize: "quantize",
    Keep: "keep",
});

/// Which tensors to quantize to block FP8, and how. A tensor is quantized if any selection has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuantizeParams {
    /// Select by this rule set.
    pub rules: Option<RuleSet>,
    /// Select the names that are quantized in one of these checkpoints.
    pub references: Vec<Location>,
    /// Select the names that one of these regular expressions matches as a whole.
    pub patterns: Vec<String>,
    /// `None` is the default.
    pub scale_format: Option<ScaleFormat>,
    /// `None` is the default.
    pub partial_blocks: Option<PartialBlocks>,
}

impl QuantizeParams {
    /// By the built-in rules.
    pub fn by_rules() -> Self {
        QuantizeParams {
            rules: Some(RuleSet::Exact),
            ..QuantizeParams::default()
        }
    }

    fn selects(&self) -> bool {
        self.rules.is_some() || !self.references.is_empty() || !self.patterns.is_empty()
    }
}

impl Params for QuantizeParams {
    fn settings(&self) -> &'static [Setting] {
        &[
            Setting {
                key: RULES,
                flag: "fp8",
                takes: Takes::SwitchOrChoice {
                    flag: "fp8-rules",
                    names: RuleSet::NAMES,
                    help: "Quantize by the built-in rules (exact), or as official FP8 releases of this model_type do (official)",
                },
                group: Group::Quantization,
                help: "Quantize to 128x128-block FP8 by the built-in rules",
                comment: "",
            },
            Setting {
                key: REFERENCES,
                flag: "reference",
                takes: Takes::Sources,
                group: Group::Quantization,
                help: "Quantize the tensors that are quantized in this checkpoint (its index is enough; repeatable)",
                comment: "quantize what is quantized there",
            },
            Setting {
                key: PATTERNS,
                flag: "fp8-pattern",
                takes: Takes::Texts("REGEX"),
                group: Group::Quantization,
                help: "Quantize tensors whose whole name matches REGEX (repeatable)",
                comment: "quantize the tensors of these names",
            },
            Setting {
                key: SCALE_FORMAT,
                flag: "scale-fmt",
                takes: Takes::Choice(ScaleFormat::NAMES),
                group: Group::Quantization,
                help: "Power-of-two scales (ue8m0) or exact amax/448 (float32) [default: ue8m0]",
                comment: "",
            },
            Setting {
                key: PARTIAL_BLOCKS,
                flag: "partial-blocks",
                takes: Takes::Choice(PartialBlocks::NAMES),
                group: Group::Quantization,
                help: "Tensors whose last two dimensions are not multiples of 128 [default: quantize]",
                comment: "",
            },
        ]
    }

    fn section(&self) -> Option<&'static Section> {
        Some(&Section {
            key: "fp8",
            selecting: &[RULES, REFERENCES, PATTERNS],
            in_order: None,
            comment: "what any of these selects is quantized",
        })
    }

    fn set(&mut self, key: &str, value: Value) -> Result<()> {
        match key {
            RULES => {
                self.rules = match value {
                    Value::Switch(on) => on.then_some(RuleSet::Exact),
                    name => Some(chosen(name)?),
                }
            }
            REFERENCES => self.references.push(value.into_source().0),
            PATTERNS => {
                let pattern = value.into_text();
                Selection::check_pattern(&pattern)?;
                self.patterns.push(pattern);
            }
            SCALE_FORMAT => self.scale_format = Some(chosen(value)?),
            _ => self.partial_blocks = Some(chosen(value)?),
        }
        Ok(())
    }

    fn get(&self, key: &str) -> Vec<Value> {
        if !self.is_asked() {
            return Vec::new();
        }
        match key {
            RULES => vec![match self.rules {
                None => Value::Switch(false),
                Some(RuleSet::Exact) => Value::Switch(true),
                Some(official) => Value::text(official.name()),
            }],
            REFERENCES => self.references.iter().map(Value::source).collect(),
            PATTERNS => self.patterns.iter().map(Value::text).collect(),
            SCALE_FORMAT => vec![Value::text(self.scale_format.unwrap_or_default().name())],
            _ => vec![Value::text(self.partial_blocks.unwrap_or_default().name())],
        }
    }

    fn is_asked(&self) -> bool {
        *self != QuantizeParams::default()
    }

    fn operators(&self, _: &Conversions) -> Result<Vec<Box<dyn Operator>>> {
        if !self.selects() {
            let problem = "the request says how to quantize, but not which tensors";
            let select = Hint::give(RULES)
                .or(Hint::give(REFERENCES))
                .or(Hint::give(PATTERNS));
            return Err(Error::new(Code::Conflict, problem).with_hint(select));
        }
        Ok(vec![Box::new(Quantize {
            selection: Selection::new(self.rules, &self.references, &self.patterns)?,
            encoding: Box::new(Fp8BlockEncoding {
                scale_format: self.scale_format.unwrap_or_default(),
            }),
            partial_blocks: self.partial_blocks.unwrap_or_default(),
        })])
    }
}

/// How many tensors were quantized.
#[derive(Debug)]
struct Quantized(usize);

impl OperatorReport for Quantized {
    fn counts(&self) -> Vec<(&'static str, usize)> {
        vec![("quantized", self.0)]
    }
}

/// Quantizes the selected tensors of a catalog.
#[derive(Debug)]
pub struct Quantize {
    pub selection: Selection,
    pub encoding: Box<dyn Encoding>,
    pub partial_blocks: PartialBlocks,
}

impl Operator for Quantize {
    fn apply(&self, catalog: &mut Catalog) -> Result<()> {
        self.encoding.check_base(catalog)?;
        let selection = self.selection.resolve(catalog)?;
        checks::note_references(catalog, &selection);

        let have_companions = have_companions(&catalog.tensors);
        let mut decisions = catalog
            .tensors
            .iter()
            .zip(&have_companions)
            .map(|((name, tensor), &has_companions)| {
                self.decide(&selection, name, tensor, has_companions)
            })
            .collect::<Result<Vec<_>>>()?;
        checks::warn_idle(catalog, &selection, &decisions);
        let mut report = std::mem::take(&mut catalog.report);
        groups::close(catalog, &selection, &mut decisions, &mut report)?;
        catalog.report = report;
        if let Some(rules) = &selection.rules {
            unquantized::note(catalog, rules, &decisions);
        }

        let unquantized = std::mem::take(&mut catalog.tensors);
        let added = decisions.iter().filter(|d| **d == Decision::Quantize);
        let mut tensors = IndexMap::with_capacity(unquantized.len() + added.count());
        let mut quantized = IndexSet::new();
        let mut partial = Vec::new();
        let mut count = 0;
        for (((name, tensor), has_companions), decision) in
            unquantized.into_iter().zip(have_companions).zip(decisions)
        {
            if matches!(decision, Decision::Quantize | Decision::Quantized) {
                quantized.insert(name.clone());
            }
            if decision != Decision::Quantize {
                tensors.insert(name, tensor);
                continue;
            }
            if !self
                .encoding
                .has_whole_blocks(&name, &tensor, has_companions)?
            {
                partial.push(name.clone());
            }
            tensors.extend(self.encoding.encode(&name, tensor));
            count += 1;
        }
        catalog.report.add(Quantized(count));
        catalog.tensors = tensors;
        self.encoding.declare(catalog, &quantized, &partial)
    }
}

impl Quantize {
    fn decide(
        &self,
        selection: &Selected,
        name: &str,
        tensor: &Tensor,
        has_companions: bool,
    ) -> Result<Decision> {
        if has_companions && quant::is_coded(tensor.dtype) {
            return Ok(Decision::Quantized);
        }
        if !selection.selects(name) {
            return Ok(Decision::Keep);
        }
        let whole = (self.encoding).has_whole_blocks(name, tensor, has_companions)?;
        match self.partial_blocks {
            PartialBlocks::Keep if !whole => Ok(Decision::KeepPartial),
            _ => Ok(Decision::Quantize),
        }
    }
}

/// Whether each of `tensors` has companions.
fn have_companions(tensors: &IndexMap<Name, Tensor>) -> Vec<bool> {
    let mut have = vec![false; tensors.len()];
    let weights = tensors.keys().filter_map(|name| quant::weight_of(name));
    for weight in weights.filter_map(|weight| tensors.get_index_of(weight)) {
        have[weight] = true;
    }
    have
}
