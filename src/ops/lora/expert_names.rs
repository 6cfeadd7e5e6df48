//! What is called how: fused parameters of experts, and the weights of single ones that they are made of.

use crate::catalog::Catalog;
use crate::error::{Code, Result};
use crate::ops::experts::{DOWN, GATE, GATE_UP, UP};
use crate::ops::lora::adapter::Adapter;
use crate::ops::lora::targets::Factors;

/// The parameter that the wrapper belongs to.
pub(super) fn parameter<'a>(
    adapter: &'a Adapter,
    module: &'a str,
    depth: usize,
    factors: &Factors,
) -> Result<&'a str> {
    let mut parameters: Vec<&str> = adapter.settings.parameters_of(module).collect();
    // As models define them.
    let order = |parameter: &str| [GATE_UP, DOWN].iter().position(|known| *known == parameter);
    parameters.sort_by_key(|parameter| order(parameter));
    parameters.dedup();
    let is_known = parameters.len() == 1 || parameters.iter().all(|p| order(p).is_some());
    match parameters.iter().rev().nth(depth) {
        Some(parameter) if is_known => Ok(parameter),
        _ => Err(adapter.error(Code::UnsupportedAdapter, factors.any(),
            format!(
                "by target_parameters in adapter_config.json, the adapted parameters of {module} are [{}], which does not tell which of them this is",
                parameters.join(", ")
            ),
        )),
    }
}

/// The projections of single experts that the fused parameter has, in their order.
pub(super) fn parts(parameter: &str) -> &'static [&'static str] {
    match parameter {
        GATE_UP => &[GATE, UP],
        DOWN => &[DOWN],
        _ => &[],
    }
}

/// Whether the base has the fused parameter `name` as weights of single experts.
pub(super) fn are_apart(catalog: &Catalog, name: &str) -> bool {
    let Some((module, parameter)) = name.rsplit_once('.') else {
        return false;
    };
    let mut parts = parts(parameter).iter();
    parts.any(|part| {
        let name = expert_name(catalog, module, 0, part);
        catalog.tensors.contains_key(name.as_str())
    })
}

/// The weight of one projection of one expert, as Mixtral calls it if the base does.
pub(super) fn expert_name(catalog: &Catalog, module: &str, expert: u64, part: &str) -> String {
    let usual = format!("{module}.{expert}.{part}.weight");
    if catalog.tensors.contains_key(usual.as_str()) {
        return usual;
    }
    let mixtral = module.strip_suffix("mlp.experts").map(|layer| {
        let part = match part {
            GATE => "w1",
            UP => "w3",
            _ => "w2",
        };
        format!("{layer}block_sparse_moe.experts.{expert}.{part}.weight")
    });
    let mixtral = mixtral.filter(|name| catalog.tensors.contains_key(name.as_str()));
    mixtral.unwrap_or(usual)
}

/// Where an expert's weight is in the fused weight of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FusedPart {
    /// What the base calls the fused weight.
    pub name: String,
    pub expert: u64,
    parts: &'static [&'static str],
    part: &'static str,
}

impl FusedPart {
    /// Where the base has the weight `name` of one expert, if it has only that of all of them.
    pub(super) fn find(catalog: &Catalog, name: &str) -> Option<Self> {
        if catalog.tensors.contains_key(name) {
            return None;
        }
        let (module, part) = name.strip_suffix(".weight")?.rsplit_once('.')?;
        let (module, number) = module.rsplit_once('.')?;
        let expert = number.parse::<u64>().ok()?;
        if expert.to_string() != number || !module.ends_with("experts") {
            return None;
        }
        let mixtral = module.strip_suffix("block_sparse_moe.experts");
        let (parameter, part) = match part {
            GATE => (GATE_UP, GATE),
            UP => (GATE_UP, UP),
            DOWN => (DOWN, DOWN),
            "w1" if mixtral.is_some() => (GATE_UP, GATE),
            "w3" if mixtral.is_some() => (GATE_UP, UP),
            "w2" if mixtral.is_some() => (DOWN, DOWN),
            _ => return None,
        };
        let renamed = mixtral.map(|layer| format!("{layer}mlp.experts.{parameter}"));
        let names = [Some(format!("{module}.{parameter}")), renamed];
        let mut names = names.into_iter().flatten();
        Some(FusedPart {
            name: names.find(|name| catalog.tensors.contains_key(name.as_str()))?,
            expert,
            parts: parts(parameter),
            part,
        })
    }

    /// Of how many parts of one size the fused weight of an expert is.
    pub(super) fn parts(&self) -> u64 {
        self.parts.len() as u64
    }

    /// Which of them this is.
    pub(super) fn position(&self) -> u64 {
        let position = self.parts.iter().position(|part| *part == self.part);
        position.expect("a part of this parameter") as u64
    }
}
