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
use crate::error::setting::{CAST, DTYPE};
use crate::error::{Code, Error, Hint, Result, Warning};
use crate::kernels::lanes::Precision;
use crate::named::Named;
use crate::ops::pattern::Pattern;
use crate::ops::{
    CastRule, Conversions, Converted, Group, Operator, Params, Setting, Takes, Value, convert,
    is_convertible,
};
use crate::quant::{self, Role};

/// Give the tensors of these names in other dtypes, each by the first rule that matches its whole
/// name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CastParams {
    pub rules: Vec<CastRule>,
}

impl Params for CastParams {
    fn settings(&self) -> &'static [Setting] {
        &[Setting {
            key: CAST,
            flag: "cast",
            takes: Takes::Texts("REGEX=DTYPE"),
            group: Group::Tensors,
            help: "Convert tensors whose whole name matches REGEX to DTYPE: bf16, f16 or f32 (repeatable, the first match counts; overrides --dtype)",
            comment: "REGEX=DTYPE, the first that matches",
        }]
    }

    fn set(&mut self, _key: &str, value: Value) -> Result<()> {
        let text = value.into_text();
        let refuse = |problem| Error::new(Code::BadValue, problem).about_value(CAST, &*text);
        let Some((names, dtype)) = text.rsplit_once('=') else {
            let problem = "expected REGEX=DTYPE, for example .*norm.*=f32";
            return Err(refuse(problem.to_owned()));
        };
        let Some(to) = Precision::named(dtype) else {
            return Err(refuse(format!("{dtype} is none of bf16, f16 and f32")));
        };
        let rule = CastRule {
            names: names.to_owned(),
            to,
        };
        rule.compile()?;
        self.rules.push(rule);
        Ok(())
    }

    fn get(&self, _key: &str) -> Vec<Value> {
        let text = |rule: &CastRule| Value::text(format!("{}={}", rule.names, rule.to.name()));
        self.rules.iter().map(text).collect()
    }

    fn operators(&self, conversions: &Conversions) -> Result<Vec<Box<dyn Operator>>> {
        Ok(vec![Box::new(Cast {
            rules: CastRules::new(&self.rules)?,
            is_left_to_dtype: conversions.dtype.is_some(),
        })])
    }
}

impl CastRule {
    fn compile(&self) -> Result<(Pattern, Precision)> {
        Ok((Pattern::new(CAST, &self.names)?, self.to))
    }
}

/// Rules, ready to be matched.
#[derive(Debug, Default)]
pub(super) struct CastRules(Vec<(Pattern, Precision)>);

impl CastRules {
    /// Compiles `rules`.
    ///
    /// # Errors
    /// If one is not a regular expression, or too large.
    pub(super) fn new(rules: &[CastRule]) -> Result<Self> {
        let rules = rules.iter().map(CastRule::compile);
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
        let scheme = quant::declared_or_usual(catalog);
        let tensors = &catalog.tensors;
        let mut new = Vec::new();
        for (name, tensor) in tensors {
            let role = scheme.role(tensors, name, tensor);
            let of_weight = match &role {
                Role::Codes(weight) => self.rules.target(weight),
                Role::Companion(_) | Role::Plain => None,
            };
            let Some(to) = self.rules.target(name).or(of_weight) else {
                continue;
            };
            let is_scale = quant::weight_of(name).is_some()
                || matches!(role, Role::Companion(_))
                || quant::is_activation_scale(name);
            let is_coded = quant::is_coded(tensor.dtype) || matches!(role, Role::Codes(_));
            if is_convertible(tensor.dtype) && !is_scale {
                if tensor.dtype != to.dtype() {
                    new.push((name.clone(), convert(name, tensor, to)?));
                }
            } else if is_coded {
                return Err(Error::of_tensor(Code::UnsupportedTensor, tensor.origin(),
                    name,
                    format!(
                        "it would become {}, but it is {}, which has a meaning only with its scales",
                        to.dtype(),
                        tensor.dtype
                    ),
                ).about(CAST).with_hint(Hint::give(DTYPE).to("dequantize all such tensors").or("leave this one out of the pattern")));
            }
        }
        catalog.report.add(Converted {
            cast: new.len(),
            dequantized: 0,
        });
        catalog.tensors.extend(new);
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
                warnings.push(pattern.unmatched(CAST, &names));
            } else if tensors.all(|(name, tensor)| {
                !pattern.matches(name)
                    || !is_convertible(tensor.dtype) && !quant::is_coded(tensor.dtype)
            }) {
                let problem = "it has no effect: the tensors it matches are not floating point";
                let rule = format!("{}={}", pattern.text(), to.name());
                warnings.push(Warning::new(Code::NoEffect, problem).about_value(CAST, rule));
            }
        }
        catalog.report.warnings.extend(warnings);
    }
}
