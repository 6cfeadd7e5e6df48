//! How much of a model stays unquantized where rules decide.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::catalog::{Catalog, OperatorReport, in_layer};
use crate::error::setting::{PATTERNS, RULES};
use crate::error::{Code, Hint, Warning};
use crate::named::Named;
use crate::ops::quantize::groups::Decision;
use crate::ops::quantize::official;
use crate::ops::quantize::selection::{RuleSet, Rules};
use crate::quant::{Role, Scheme, is_coded, weight_of};
use crate::tensor::Dtype;
use crate::text::{listing, percent};

/// The weights of two and three dimensions inside the layers of the language model, and those of
/// them that stay unquantized. Bytes are those that they have before this view quantizes.
#[derive(Debug, Clone, Serialize)]
pub struct UnquantizedReport {
    /// Bytes of all of them.
    pub layer_bytes: u64,
    /// Bytes of those that stay unquantized.
    pub bytes: u64,
    /// These by kind of module, the most bytes first.
    pub modules: Vec<UnquantizedModule>,
}

/// Unquantized weights of one kind of module.
#[derive(Debug, Clone, Serialize)]
pub struct UnquantizedModule {
    /// What follows the number of the layer, without `.weight`; `*` for other numbers.
    pub module: String,
    pub tensors: usize,
    pub bytes: u64,
}

impl OperatorReport for UnquantizedReport {}

/// Reports what of `catalog` stays unquantized by `decisions`, and warns if it is much.
pub(super) fn note(
    catalog: &mut Catalog,
    declared: &dyn Scheme,
    rules: &Rules,
    decisions: &[Decision],
) {
    let mut layer_bytes = 0;
    let mut modules: BTreeMap<String, UnquantizedModule> = BTreeMap::new();
    let mut unquantized = Vec::new();
    for ((name, tensor), decision) in catalog.tensors.iter().zip(decisions) {
        let is_number =
            matches!(tensor.dtype, Dtype::BF16 | Dtype::F16 | Dtype::F32) || is_coded(tensor.dtype);
        let is_companion = || {
            let role = declared.role(&catalog.tensors, name, tensor);
            weight_of(name).is_some() || matches!(role, Role::Companion(_))
        };
        if !is_number || !matches!(tensor.shape.len(), 2 | 3) || is_companion() {
            continue;
        }
        let Some(rest) = in_layer(name) else {
            continue;
        };
        layer_bytes += tensor.len();
        if matches!(decision, Decision::Quantize | Decision::Quantized) {
            continue;
        }
        unquantized.push(&**name);
        let module = kind(rest);
        let entry = modules
            .entry(module.clone())
            .or_insert_with(|| UnquantizedModule {
                module,
                tensors: 0,
                bytes: 0,
            });
        entry.tensors += 1;
        entry.bytes += tensor.len();
    }
    let mut modules: Vec<UnquantizedModule> = modules.into_values().collect();
    modules.sort_by_key(|module| Reverse(module.bytes));
    let report = UnquantizedReport {
        layer_bytes,
        bytes: modules.iter().map(|module| module.bytes).sum(),
        modules,
    };
    if report.is_much() {
        let hint = hint(catalog, rules, &unquantized);
        let warning = Warning::new(Code::Unquantized, report.text()).with_hint(hint);
        catalog.report.warnings.push(warning);
    }
    catalog.report.add(report);
}

impl UnquantizedReport {
    /// Whether more than a tenth stays unquantized.
    fn is_much(&self) -> bool {
        u128::from(self.bytes) * 10 > u128::from(self.layer_bytes)
    }

    fn text(&self) -> String {
        format!(
            "{} of the bytes of weights in layers stay unquantized: {}",
            percent(self.bytes, self.layer_bytes),
            listing(&self.shares())
        )
    }

    /// Each kind of module with its share: `mlp.gate 2 %`.
    pub fn shares(&self) -> Vec<String> {
        let share = |module: &UnquantizedModule| {
            let share = percent(module.bytes, self.layer_bytes);
            format!("{} {share}", module.module)
        };
        self.modules.iter().map(share).collect()
    }
}

/// What would have more of the tensors `unquantized` quantized.
fn hint(catalog: &Catalog, rules: &Rules, unquantized: &[&str]) -> Hint {
    let by_name = Hint::give(PATTERNS).to("select them by name");
    let official = match rules {
        Rules::Exact => official::known_names(catalog),
        Rules::Official(_) => None,
    };
    match official {
        Some((model_type, names)) if unquantized.iter().any(|name| names.is_match(name)) => {
            let purpose = format!("quantize what FP8 releases of {model_type} quantize");
            Hint::give_value(RULES, RuleSet::Official.name())
                .to(purpose)
                .or(by_name)
        }
        _ => by_name,
    }
}

/// `mlp.experts.7.up_proj.weight` → `mlp.experts.*.up_proj`.
fn kind(rest: &str) -> String {
    let rest = rest.strip_suffix(".weight").unwrap_or(rest);
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let parts = rest.split('.');
    let parts = parts.map(|part| if is_number(part) { "*" } else { part });
    parts.collect::<Vec<_>>().join(".")
}
