//! Fusing experts: the tensors of a layer's experts, one after the other, are its fused tensors.

use std::collections::BTreeSet;

use indexmap::IndexMap;

use crate::catalog::{Catalog, Tensor};
use crate::error::setting::{EXPERTS, PATCH};
use crate::error::{Code, Error, Hint, Result};
use crate::ops::experts::model::Model;
use crate::ops::experts::weight::{Change, DOWN, GATE, GATE_UP, UP, Weight, in_experts};
use crate::quant;
use crate::tensor::{Name, shape_text};

/// The tensors of single experts in one layer.
#[derive(Default)]
struct Layer<'a> {
    /// The numbers of the experts with a weight that can be fused.
    experts: BTreeSet<u64>,
    /// A tensor of an expert that is no such weight, nor its scales.
    other: Option<&'a str>,
}

/// One change for every layer with experts that can be fused, and whose module is `in_scope`.
pub(super) fn changes(
    catalog: &Catalog,
    model: &Model,
    in_scope: &dyn Fn(&str) -> bool,
) -> Result<Vec<Change>> {
    let mut layers: IndexMap<&str, Layer> = IndexMap::new();
    for name in catalog.tensors.keys() {
        let Some((experts, rest)) = in_experts(name).filter(|(experts, _)| in_scope(experts))
        else {
            continue;
        };
        let Some((digits, rest)) = rest.split_once('.') else {
            continue;
        };
        let Ok(number) = digits.parse::<u64>() else {
            continue;
        };
        let layer = layers.entry(experts).or_default();
        let weight = quant::weight_of(rest).unwrap_or(rest);
        let projection = weight.strip_suffix(".weight");
        if number.to_string() == digits && matches!(projection, Some(GATE | UP | DOWN)) {
            layer.experts.insert(number);
        } else {
            layer.other.get_or_insert(name);
        }
    }
    layers
        .into_iter()
        .filter(|(_, layer)| !layer.experts.is_empty())
        .map(|(experts, layer)| change(catalog, model, experts, &layer))
        .collect()
}

fn change(catalog: &Catalog, model: &Model, experts: &str, layer: &Layer) -> Result<Change> {
    if let Some(other) = layer.other {
        return Err(Error::of_tensor(Code::ExpertsLayout, catalog.tensors[other].origin(),
            other,
            format!(
                "it belongs to an expert, but only {{gate,up,down}}_proj.weight and their scales ({}) can be fused",
                quant::companions("*").collect::<Vec<_>>().join(", ")
            ),
        ).with_hint(leave_out()));
    }
    let (mut gate_up, mut down) = (Vec::new(), Vec::new());
    for expert in 0..=layer.experts.last().copied().unwrap_or_default() {
        let find = |projection| weight(catalog, experts, expert, projection);
        gate_up.extend([find(GATE)?, find(UP)?]);
        down.push(find(DOWN)?);
    }
    check_alike(&gate_up)?;
    check_alike(&down)?;
    let [intermediate, hidden] = dimensions(&gate_up[0], &down[0])?;
    model.check_hidden_size(&gate_up[0], hidden)?;
    model.check_count(&gate_up[0], down.len() as u64)?;
    gate_up[0].check_blocks_part(intermediate)?;

    let mut new = joined(format!("{experts}.{GATE_UP}"), &gate_up, 2);
    new.extend(joined(format!("{experts}.{DOWN}"), &down, 1));
    Ok(Change {
        experts: experts.to_owned(),
        old: gate_up
            .iter()
            .chain(&down)
            .flat_map(Weight::names)
            .collect(),
        new,
    })
}

fn weight<'a>(
    catalog: &'a Catalog,
    experts: &str,
    expert: u64,
    projection: &str,
) -> Result<Weight<'a>> {
    let name = format!("{experts}.{expert}.{projection}.weight");
    match Weight::find(catalog, name.clone())? {
        Some(weight) => Ok(weight),
        None => Err(Error::of_tensor(Code::ExpertsIncomplete, &catalog.report.sources[0].path,
            name,
            format!(
                "it is missing, but others of {experts} are there; experts can only be fused if all of them are there, numbered from 0 without gaps, each with gate, up and down"
            ),
        ).with_hint(Hint::give(PATCH).to("add it").or(leave_out()))),
    }
}

/// Checks that weights which are to lie in one tensor are alike, and their scales too.
fn check_alike(weights: &[Weight]) -> Result<()> {
    let text = |tensor: &Tensor| format!("{} {}", tensor.dtype, shape_text(&tensor.shape));
    let description = |weight: &Weight| {
        let scales: Vec<String> = weight.tensors().skip(1).map(text).collect();
        let scales = if scales.is_empty() {
            "without scales".to_owned()
        } else {
            format!("with scales of {}", scales.join(", "))
        };
        format!("{} {scales}", text(weight.tensor))
    };
    let expected = description(&weights[0]);
    let differing = weights
        .iter()
        .find(|weight| description(weight) != expected);
    match differing {
        Some(weight) => Err(weight.error(Code::ExpertsLayout, format!(
            "it is {}, but {} is {expected}; the experts of a layer can be fused only if they are alike",
            description(weight),
            weights[0].name
        ))),
        None => Ok(()),
    }
}

/// The intermediate size and the hidden size.
fn dimensions(gate: &Weight, down: &Weight) -> Result<[u64; 2]> {
    if let [intermediate, hidden] = gate.tensor.shape[..]
        && down.tensor.shape[..] == [hidden, intermediate]
        && gate.tensor.len() > 0
    {
        return Ok([intermediate, hidden]);
    }
    Err(gate
        .error(
            Code::ExpertsLayout,
            format!(
                "its shape is {}, and that of {} is {}; expected [I, H] and [H, I], not empty",
                shape_text(&gate.tensor.shape),
                down.name,
                shape_text(&down.tensor.shape)
            ),
        )
        .with_hint(leave_out()))
}

/// The tensor `name` of all `weights`, `each` of them for every expert, and its companions.
fn joined(name: String, weights: &[Weight], each: u64) -> Vec<(Name, Tensor)> {
    let join = |tensors: Vec<&Tensor>| {
        let count = tensors.len() as u64 / each;
        let [rows, columns] = [0, 1].map(|dimension| tensors[0].shape[dimension]);
        Tensor::joined(&tensors, vec![count, each * rows, columns])
    };
    let home = weights[0].tensor.home;
    // Alike: if one has companions, all have.
    let names = weights[0].names_as(&name).enumerate();
    let joined = names.map(|(i, name)| {
        let parts = weights.iter().filter_map(|weight| weight.tensors().nth(i));
        let tensor = join(parts.collect());
        (name, Tensor { home, ..tensor })
    });
    joined.collect()
}

fn leave_out() -> Hint {
    Hint::leave_out_value(EXPERTS, "fuse")
}
