//! `--cast`: single tensors in other dtypes.
//!
//! | tensor | becomes |
//! |---|---|
//! | BF16, F16, F32, F64 of a name that a rule matches as a whole | the dtype of the first such rule |
//! | codes of a quantized weight | an error: only `--dtype` dequantizes |
//! | all else | as it is |
//!
//! Where `--dtype` is given too, it does this work along with its own: the rule's dtype takes the
//! place of its, so that nothing is rounded twice and quantized weights are dequantized.

use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::kernels::lanes::Precision;
use crate::named::Named;
use crate::ops::pattern::Pattern;
use crate::ops::{
    Converted, Group, Operations, Operator, Params, Setting, Takes, Value, convert, is_convertible,
};
use crate::quant;

/// Give the tensors of these names in other dtypes, each by the first rule that matches its whole
/// name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CastParams {
    pub rules: Vec<CastRule>,
}

/// A regular expression for whole names, and the dtype of the tensors that have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CastRule {
    pub names: String,
    pub to: Precision,
}

impl Params for CastParams {
    fn settings(&self) -> &'static [Setting] {
        &[Setting {
            key: "cast",
            flag: "cast",
            takes: Takes::Texts("REGEX=DTYPE"),
            group: Group::Tensors,
            help: "Convert tensors whose whole name matches REGEX to DTYPE: bf16, f16 or f32 (repeatable, the first match counts; overrides --dtype)",
            comment: "REGEX=DTYPE, the first that matches",
        }]
    }

    fn set(&mut self, _key: &str, value: Value) -> std::result::Result<(), String> {
        let text = value.into_text();
        let Some((names, dtype)) = text.rsplit_once('=') else {
            return Err(format!(
                "--cast {text}: expected REGEX=DTYPE, for example .*norm.*=f32"
            ));
        };
        let Some(to) = Precision::named(dtype) else {
            return Err(format!(
                "--cast {text}: {dtype} is none of bf16, f16 and f32"
            ));
        };
        let rule = CastRule {
            names: names.to_owned(),
            to,
        };
        rule.compile().map_err(|e| e.to_string())?;
        self.rules.push(rule);
        Ok(())
    }

    fn get(&self, _key: &str) -> Vec<Value> {
        let text = |rule: &CastRule| Value::text(format!("{}={}", rule.names, rule.to.name()));
        self.rules.iter().map(text).collect()
    }

    fn operators(&self, all: &Operations) -> Result<Vec<Box<dyn Operator>>> {
        Ok(vec![Box::new(Cast {
            rules: CastRules::new(self)?,
            is_left_to_dtype: all.dtype.to.is_some(),
        })])
    }
}

impl CastRule {
    fn compile(&self) -> Result<(Pattern, Precision)> {
        Ok((Pattern::new("pattern of --cast", &self.names)?, self.to))
    }
}

/// Rules, ready to be matched.
#[derive(Debug, Default)]
pub(super) struct CastRules(Vec<(Pattern, Precision)>);

impl CastRules {
    /// Compiles the rules of `params`.
    ///
    /// # Errors
    /// If one is not a regular expression, or too large.
    pub(super) fn new(params: &CastParams) -> Result<Self> {
        let rules = params.rules.iter().map(CastRule::compile);
        rules.collect::<Result<_>>().map(CastRules)
    }

    /// The dtype that the tensor called `name` is to have, if a rule says so.
    pub(super) fn target(&self, name: &str) -> Option<Precision> {
        let rule = self.0.iter().find(|(names, _)| names.matches(name))?;
        Some(rule.1)
    }
}

/// Gives tensors in the dtypes that rules say.
#[derive(Debug)]
struct Cast {
    rules: CastRules,
    is_left_to_dtype: bool,
}

impl Operator for Cast {
    fn apply(&self, catalog: &mut Catalog) -> Result<()> {
        self.warn_idle(catalog);
        if self.is_left_to_dtype {
            return Ok(());
        }
        let mut cast = 0;
        for (name, tensor) in &mut catalog.tensors {
            let Some(to) = self.rules.target(name) else {
                continue;
            };
            if is_convertible(tensor.dtype) && quant::weight_of(name).is_none() {
                let new = convert(name, tensor, to)?;
                cast += usize::from(tensor.dtype != new.dtype);
                *tensor = new;
            } else if quant::is_coded(tensor.dtype) {
                return Err(Error::tensor(
                    tensor.origin(),
                    name,
                    format!(
                        "--cast would give it as {}, but it is {}, which means something only with its scales; give --dtype besides, which dequantizes all such tensors, or leave this one out of --cast",
                        to.dtype(),
                        tensor.dtype
                    ),
                ));
            }
        }
        catalog.report.add(Converted {
            cast,
            dequantized: 0,
        });
        Ok(())
    }
}

impl Cast {
    fn warn_idle(&self, catalog: &mut Catalog) {
        let names: Vec<&str> = catalog.tensors.keys().map(|name| &**name).collect();
        let mut warnings = Vec::new();
        for (pattern, to) in &self.rules.0 {
            let mut tensors = catalog.tensors.iter();
            if !names.iter().any(|name| pattern.matches(name)) {
                warnings.push(pattern.unmatched("--cast", &names));
            } else if tensors.all(|(name, tensor)| {
                !pattern.matches(name)
                    || !is_convertible(tensor.dtype) && !quant::is_coded(tensor.dtype)
            }) {
                warnings.push(format!(
                    "--cast {}={} has no effect: what it matches is not floating point",
                    pattern.text(),
                    to.name()
                ));
            }
        }
        catalog.report.warnings.extend(warnings);
    }
}
