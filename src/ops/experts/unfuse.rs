//! Unfusing experts: every tensor of an expert is a byte range of a fused one.

use std::ops::Range;

use indexmap::IndexSet;

use crate::catalog::{Catalog, Tensor};
use crate::error::setting::{EXPERTS, PATCH};
use crate::error::{Code, Error, Hint, Result};
use crate::ops::experts::model::Model;
use crate::ops::experts::weight::{Change, DOWN, GATE, GATE_UP, UP, Weight, in_experts};
use crate::quant;
use crate::tensor::{byte_len, shape_text};

/// The most experts of all layers together. A few bytes can claim any number, and every one takes
/// names and tensors of its own.
const MOST_EXPERTS: u64 = 1 << 18;

/// One change for every layer with fused experts whose module is `in_scope`.
pub(super) fn changes(
    catalog: &Catalog,
    model: &Model,
    in_scope: &dyn Fn(&str) -> bool,
) -> Result<Vec<Change>> {
    let mut layers: IndexSet<&str> = IndexSet::new();
    for (name, tensor) in &catalog.tensors {
        let Some((experts, rest)) = in_experts(name).filter(|(experts, _)| in_scope(experts))
        else {
            continue;
        };
        let weight = quant::weight_of(rest).unwrap_or(rest);
        if matches!(weight, GATE_UP | DOWN) {
            layers.insert(experts);
            continue;
        }
        let suffix = rest.strip_prefix(GATE_UP).or(rest.strip_prefix(DOWN));
        match suffix {
            Some(suffix) if suffix.starts_with('_') => {
                return Err(Error::of_tensor(Code::ExpertsLayout, tensor.origin(),
                    name,
                    format!(
                        "it belongs to fused experts, but is neither a weight ({GATE_UP}, {DOWN}) nor its scales ({}), and ckptfs does not know how to divide it",
                        quant::companions("*").collect::<Vec<_>>().join(", ")
                    ),
                ).with_hint(leave_out()));
            }
            _ => {}
        }
    }
    let mut experts = 0;
    layers
        .into_iter()
        .map(|layer| change(catalog, model, layer, &mut experts))
        .collect()
}

/// The change of one layer, whose experts are added to `total`.
fn change(catalog: &Catalog, model: &Model, experts: &str, total: &mut u64) -> Result<Change> {
    let gate_up = fused(catalog, experts, GATE_UP)?;
    let down = fused(catalog, experts, DOWN)?;
    let [count, intermediate, hidden] = dimensions(&gate_up, &down)?;
    model.check_hidden_size(&gate_up, hidden)?;
    gate_up.check_blocks_part(intermediate)?;
    *total = total.saturating_add(count);
    if *total > MOST_EXPERTS {
        return Err(gate_up.error(Code::OverLimit, format!(
            "its shape is {}: with those before, the view would have {total} experts apart; at most {MOST_EXPERTS} are allowed",
            shape_text(&gate_up.tensor.shape)
        )));
    }

    let parts = [
        (GATE, &gate_up, 0..intermediate),
        (UP, &gate_up, intermediate..2 * intermediate),
        (DOWN, &down, 0..hidden),
    ];
    let mut new = Vec::new();
    for expert in 0..count {
        for (projection, fused, rows) in &parts {
            let name = format!("{experts}.{expert}.{projection}.weight");
            for (i, (name, tensor)) in fused.names_as(&name).zip(fused.tensors()).enumerate() {
                let rows = match &fused.quantized {
                    Some(quantized) if i > 0 => quantized.scheme.companion_rows(rows.clone()),
                    _ => rows.clone(),
                };
                new.push((name, rows_of(fused, tensor, expert, &rows)?));
            }
        }
    }
    Ok(Change {
        experts: experts.to_owned(),
        old: gate_up.names().chain(down.names()).collect(),
        new,
    })
}

fn fused<'a>(catalog: &'a Catalog, experts: &str, projection: &str) -> Result<Weight<'a>> {
    let name = format!("{experts}.{projection}");
    match Weight::find(catalog, name.clone())? {
        Some(weight) => Ok(weight),
        None => Err(Error::of_tensor(
            Code::ExpertsIncomplete,
            &catalog.report.sources[0].path,
            name,
            format!("it is missing, but other fused tensors of {experts} are there"),
        )
        .with_hint(Hint::give(PATCH).to("add it").or(leave_out()))),
    }
}

/// The number of experts, the intermediate size and the hidden size.
fn dimensions(gate_up: &Weight, down: &Weight) -> Result<[u64; 3]> {
    if let ([count, both, hidden], [down_count, down_hidden, intermediate]) =
        (&gate_up.tensor.shape[..], &down.tensor.shape[..])
        && (count, hidden) == (down_count, down_hidden)
        && intermediate.checked_mul(2) == Some(*both)
        && gate_up.tensor.len() > 0
    {
        return Ok([*count, *intermediate, *hidden]);
    }
    Err(gate_up.error(Code::ExpertsLayout, format!(
        "its shape is {}, and that of {} is {}; expected [E, 2I, H] and [E, H, I], not empty (transposed experts, [E, H, 2I] and [E, I, H], cannot be divided into ranges of bytes)",
        shape_text(&gate_up.tensor.shape),
        down.name,
        shape_text(&down.tensor.shape)
    )).with_hint(leave_out()))
}

/// Rows of one expert of `tensor`, which is `fused` or a companion of it.
fn rows_of(fused: &Weight, tensor: &Tensor, expert: u64, rows: &Range<u64>) -> Result<Tensor> {
    let (rows_each, columns) = (tensor.shape[1], tensor.shape[2]);
    let before = [expert * rows_each + rows.start, columns];
    let shape = vec![rows.end - rows.start, columns];
    let start =
        byte_len(tensor.dtype, &before).filter(|_| byte_len(tensor.dtype, &shape).is_some());
    match start {
        Some(start) => Ok(tensor.slice(start, shape)),
        None => Err(fused
            .error(
                Code::ExpertsLayout,
                format!(
                    "the rows of one expert do not take whole bytes ({}, {})",
                    tensor.dtype,
                    shape_text(&tensor.shape)
                ),
            )
            .with_hint(leave_out())),
    }
}

fn leave_out() -> Hint {
    Hint::leave_out_value(EXPERTS, "unfuse")
}
