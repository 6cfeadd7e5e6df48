//! Quantizes selected weights, by any [`Encoding`].

mod checks;
mod expert_forms;
mod fp4;
mod groups;
mod official;
mod operator;
mod rules;
mod selection;
mod unquantized;

use crate::error::setting::{
    ALLOW_ROUNDING, DIALECT, PARTIAL_BLOCKS, PATTERNS, REFERENCES, RULES, SCALE_FORMAT, SCHEME,
};
use crate::error::{Code, Error, Hint, Result};
use crate::named::Named;
use crate::ops::params::chosen;
use crate::ops::{Conversions, Group, Operator, Params, Section, Setting, Takes, Value};
use crate::quant::{Dialect, Encoding, EncodingSettings, ScaleFormat, SchemeRequest};
use crate::source::Location;
pub use checks::ReferenceReport;
pub use official::{FAMILIES, Family};
pub use operator::{PartialBlocks, Quantize};
pub use selection::{RuleSet, Selection};
pub use unquantized::{UnquantizedModule, UnquantizedReport};

const HELP: &str = "Quantize in this scheme, by default what the built-in rules name: fp8-block";

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
    /// Round numbers of FP4 weights that FP8 does not have.
    pub allow_rounding: bool,
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
            allows_rounding: self.allow_rounding,
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
            Setting {
                key: ALLOW_ROUNDING,
                flag: "allow-rounding",
                takes: Takes::Switch,
                group: Group::Quantization,
                help: "Of fp8-block: round numbers of FP4 weights that FP8 does not have, instead of failing where they are read",
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
            PARTIAL_BLOCKS => self.partial_blocks = Some(chosen(value)?),
            _ => self.allow_rounding = value.is_on(),
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
            ALLOW_ROUNDING => {
                let on = self.allow_rounding.then_some(Value::Switch(true));
                on.into_iter().collect()
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
            allows_rounding: self.allow_rounding,
        })])
    }
}
