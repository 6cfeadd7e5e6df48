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
use crate::error::setting::{
    DIALECT, PARTIAL_BLOCKS, PATTERNS, REFERENCES, RULES, SCALE_FORMAT, SCHEME,
};
use crate::error::{Code, Error, Hint, Result};
use crate::named::{Named, named};
use crate::ops::experts::{self, Experts, form_of};
use crate::ops::params::chosen;
use crate::ops::{Conversions, Group, Operator, Params, Section, Setting, Takes, Value};
use crate::quant::{self, Dialect, Encoding, EncodingSettings, Fit, ScaleFormat, SchemeRequest};
use crate::source::Location;
use crate::tensor::Name;
pub use checks::ReferenceReport;
use groups::Decision;
pub use official::{FAMILIES, Family};
use selection::Selected;
pub use selection::{RuleSet, Selection};
pub use unquantized::{UnquantizedModule, UnquantizedReport};

const HELP: &str = "Quantize in this scheme, by default what the built-in rules name: fp8-block";

/// What to do with tensors that have blocks which are cut off at an edge.
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

/// Which tensors to quantize, and how. A tensor is quantized if any selection has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuantizeParams {
    /// In which scheme; `None` is block FP8. If nothing is selected, a scheme selects by the exact
    /// rules.
    pub scheme: Option<SchemeRequest>,
    /// `None` is the usual one of the scheme.
    pub dialect: Option<Dialect>,
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

    /// The rules that select, if any do.
    fn selecting_rules(&self) -> Option<RuleSet> {
        let selects_otherwise = !self.references.is_empty() || !self.patterns.is_empty();
        let by_default = self.scheme.is_some() && !selects_otherwise;
        self.rules.or(by_default.then_some(RuleSet::Exact))
    }

    fn selects(&self) -> bool {
        let by_rules = self.selecting_rules().is_some();
        by_rules || !self.references.is_empty() || !self.patterns.is_empty()
    }

    fn selection(&self) -> Result<Selection> {
        let rules = self.selecting_rules();
        let selection = Selection::new(rules, &self.references, &self.patterns)?;
        Ok(selection.of_scheme(&self.scheme.clone().unwrap_or_default()))
    }

    fn encoding(&self) -> Result<Box<dyn Encoding>> {
        let scheme = self.scheme.clone().unwrap_or_default();
        scheme.encoding(&EncodingSettings {
            dialect: self.dialect,
            scale_format: self.scale_format,
            says_partial_blocks: self.partial_blocks.is_some(),
        })
    }
}

impl Params for QuantizeParams {
    fn settings(&self) -> &'static [Setting] {
        &[
            Setting {
                key: SCHEME,
                flag: "quantize",
                takes: Takes::Text("SCHEME"),
                group: Group::Quantization,
                help: HELP,
                comment: "",
            },
            Setting {
                key: DIALECT,
                flag: "dialect",
                takes: Takes::Choice(Dialect::NAMES),
                group: Group::Quantization,
                help: "How config.json declares the scheme, and what its tensors are called [default: the scheme's usual one]",
                comment: "",
            },
            Setting {
                key: RULES,
                flag: "fp8",
                takes: Takes::SwitchOrChoice {
                    flag: "quantize-rules",
                    names: RuleSet::NAMES,
                    help: "Quantize by the built-in rules (exact), or as official FP8 releases of this model_type do (official) [default: exact, if nothing else selects]",
                    also: &[(SCHEME, "fp8-block")],
                },
                group: Group::Quantization,
                help: "Quantize to block FP8 by the built-in rules: --quantize fp8-block --quantize-rules exact",
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
                flag: "quantize-pattern",
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
                help: "Of fp8-block: power-of-two scales (ue8m0) or exact amax/448 (float32) [default: ue8m0]",
                comment: "",
            },
            Setting {
                key: PARTIAL_BLOCKS,
                flag: "partial-blocks",
                takes: Takes::Choice(PartialBlocks::NAMES),
                group: Group::Quantization,
                help: "Of fp8-block: tensors whose last two dimensions are not whole blocks [default: quantize]",
                comment: "",
            },
        ]
    }

    fn former_flags(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("quantize-rules", "fp8-rules"),
            ("quantize-pattern", "fp8-pattern"),
        ]
    }

    fn section(&self) -> Option<&'static Section> {
        Some(&Section {
            key: "quantize",
            former_key: Some("fp8"),
            named: Some(SCHEME),
            selecting: &[RULES, REFERENCES, PATTERNS],
            in_order: None,
            comment: "what any of these selects is quantized",
        })
    }

    fn set(&mut self, key: &str, value: Value) -> Result<()> {
        match key {
            SCHEME => self.scheme = Some(value.into_text().parse()?),
            DIALECT => self.dialect = Some(chosen(value)?),
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
        let scheme = self.scheme.clone().unwrap_or_default();
        match key {
            SCHEME => {
                let scheme = self.scheme.iter();
                scheme
                    .map(|scheme| Value::text(scheme.to_string()))
                    .collect()
            }
            DIALECT => {
                let dialect = self.dialect.iter();
                dialect.map(|dialect| Value::text(dialect.name())).collect()
            }
            RULES => vec![match self.selecting_rules() {
                None => Value::Switch(false),
                Some(RuleSet::Exact) => Value::Switch(true),
                Some(official) => Value::text(official.name()),
            }],
            REFERENCES => self.references.iter().map(Value::source).collect(),
            PATTERNS => self.patterns.iter().map(Value::text).collect(),
            SCALE_FORMAT => {
                let usual = scheme.has_scale_format() && self.dialect.is_none();
                let format = self.scale_format.or(usual.then(ScaleFormat::default));
                let format = format.iter();
                format.map(|format| Value::text(format.name())).collect()
            }
            _ => {
                let usual = scheme.has_partial_blocks().then(PartialBlocks::default);
                let partial = self.partial_blocks.or(usual);
                let partial = partial.iter();
                partial.map(|partial| Value::text(partial.name())).collect()
            }
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
            encoding: self.encoding()?,
            selection: self.selection()?,
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
        self.split_fused_experts(catalog)?;
        let selection = self.selection.resolve(catalog)?;
        checks::note_references(catalog, &selection);

        let have_companions = have_companions(&catalog.tensors);
        let mut unfit = Vec::new();
        let mut decisions = catalog
            .tensors
            .iter()
            .zip(&have_companions)
            .map(|((name, tensor), &has_companions)| {
                self.decide(&selection, name, tensor, has_companions, &mut unfit)
            })
            .collect::<Result<Vec<_>>>()?;
        checks::warn_unfit(catalog, &unfit);
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
        let to_encode = unquantized.iter().zip(&decisions);
        let to_encode = to_encode.filter(|(_, decision)| **decision == Decision::Quantize);
        let to_encode: Vec<_> = to_encode.map(|(weight, _)| weight).collect();
        let shared = self.encoding.shared(&to_encode);
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
            if self.encoding.fit(&name, &tensor, has_companions)? == Fit::Partial {
                partial.push(name.clone());
            }
            let encoded = self.encoding.encode(&name, tensor, shared.get(&name))?;
            tensors.extend(encoded);
            count += 1;
        }
        catalog.report.add(Quantized(count));
        catalog.tensors = tensors;
        self.encoding.declare(catalog, &quantized, &partial)
    }
}

impl Quantize {
    /// Splits fused experts, if the encoding knows only weights of modules and some are selected.
    fn split_fused_experts(&self, catalog: &mut Catalog) -> Result<()> {
        if !self.encoding.needs_modules() {
            return Ok(());
        }
        let selection = self.selection.resolve(catalog)?;
        let is_fused = |name: &str| {
            form_of(name).is_some_and(|(_, change)| change == Experts::Unfuse)
                && selection.selects(name)
        };
        if catalog.tensors.keys().any(|name| is_fused(name)) {
            experts::unfuse(catalog)?;
            let note = "fused experts are split: the scheme knows only weights of modules";
            catalog.report.notes.push(note.to_owned());
        }
        Ok(())
    }

    fn decide(
        &self,
        selection: &Selected,
        name: &str,
        tensor: &Tensor,
        has_companions: bool,
        unfit: &mut Vec<String>,
    ) -> Result<Decision> {
        if has_companions && quant::is_coded(tensor.dtype) {
            return Ok(Decision::Quantized);
        }
        if !selection.selects(name) || !(self.encoding.is_for(name) || selection.names(name)) {
            return Ok(Decision::Keep);
        }
        match self.encoding.fit(name, tensor, has_companions)? {
            Fit::Partial if self.partial_blocks == PartialBlocks::Keep => Ok(Decision::KeepPartial),
            Fit::Not(problem) if selection.names(name) => {
                let problem = format!("it is selected by name, but {problem}");
                let error =
                    Error::of_tensor(Code::UnsupportedTensor, tensor.origin(), name, problem);
                Err(error.with_hint("leave it out of what is selected, or choose another scheme"))
            }
            Fit::Not(problem) => {
                unfit.push(format!("{name} ({problem})"));
                Ok(Decision::KeepUnfit)
            }
            Fit::Whole | Fit::Partial => Ok(Decision::Quantize),
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
