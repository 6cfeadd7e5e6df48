//! Unfusing experts: every tensor of an expert is a byte range of a fused one or, of a transposed one, made
//! of its columns.

use std::ops::Range;

use indexmap::IndexSet;

use crate::catalog::{Catalog, Tensor};
use crate::error::setting::{EXPERTS, PATCH};
use crate::error::{Code, Error, Hint, Result};
use crate::ops::experts::families::Layout;
use crate::ops::experts::model::Model;
use crate::ops::experts::turned::{Dimensions, Turned};
use crate::ops::experts::weight::{BIAS, DOWN, FUSED_BIAS, GATE, GATE_UP, UP, WEIGHT, in_experts};
use crate::ops::gather;
use crate::ops::regroup::Change;
use crate::ops::weight::Weight;
use crate::quant;
use crate::tensor::{Name, byte_len, shape_text};

/// The most experts of all layers together. A few bytes can claim any number, and every one takes
/// names and tensors of its own.
pub(in crate::ops) const MOST_EXPERTS: u64 = 1 << 18;

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
        let Some(suffix) = rest.strip_prefix(GATE_UP).or(rest.strip_prefix(DOWN)) else {
            continue;
        };
        if suffix == FUSED_BIAS && model.has_biases() {
            layers.insert(experts);
        } else if suffix.starts_with('_') {
            return Err(Error::of_tensor(Code::ExpertsLayout, tensor.origin(),
                name,
                format!(
                    "it belongs to fused experts, but is neither a weight ({GATE_UP}, {DOWN}) nor its scales ({}), and ckptfs does not know how to divide it in this family",
                    quant::companions("*").collect::<Vec<_>>().join(", ")
                ),
            ).with_hint(leave_out()));
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
    let first = first_name(catalog, experts)?;
    let up = fused(catalog, experts, first)?;
    let down = fused(catalog, experts, DOWN)?;
    let dimensions = match first {
        GATE_UP => dimensions(&up, &down)?,
        _ => dimensions_without_gate(&up, &down)?,
    };
    let Dimensions {
        count,
        intermediate,
        hidden,
        is_transposed,
    } = dimensions;
    model.check_hidden_size(&up, hidden)?;
    let layout = model.layout_of(&up, is_transposed)?;
    match (layout, first) {
        (Layout::Rows, GATE_UP) => up.check_blocks_part(intermediate)?,
        (Layout::Rows, _) => {}
        _ => [&up, &down]
            .into_iter()
            .try_for_each(Weight::check_not_turned)?,
    }
    *total = total.saturating_add(count);
    if *total > MOST_EXPERTS {
        return Err(up.error(Code::OverLimit, format!(
            "its shape is {}: with those before, the view would have {total} experts apart; at most {MOST_EXPERTS} are allowed",
            shape_text(&up.tensor.shape)
        )));
    }
    let biases = Biases::find(catalog, experts, model, dimensions, layout)?;

    let singles = model.singles();
    let up_start = if first == GATE_UP { intermediate } else { 0 };
    let (up_rows, down_rows) = (up_start..up_start + intermediate, 0..hidden);
    let mut parts = vec![(singles.up, &up, up_rows), (singles.down, &down, down_rows)];
    if first == GATE_UP {
        parts.insert(0, (singles.gate, &up, 0..intermediate));
    }
    let mut new = Vec::new();
    for expert in 0..count {
        for (projection, fused, rows) in &parts {
            let module = format!("{experts}.{expert}.{projection}");
            let name = format!("{module}{WEIGHT}");
            if layout == Layout::Rows {
                new.extend(rows_of_expert(fused, &name, expert, rows)?);
            } else {
                let turned = Turned {
                    layout,
                    dimensions,
                    is_down: *projection == singles.down,
                    is_up: *projection == singles.up,
                };
                let tensor = turned.single(&name, fused.tensor, expert)?;
                new.push((name.into(), tensor));
            }
            if let Some(biases) = &biases {
                let bias = match *projection {
                    projection if projection == singles.gate => &biases.gate,
                    projection if projection == singles.up => &biases.up,
                    _ => &biases.down,
                };
                new.push((
                    format!("{module}{BIAS}").into(),
                    bias[expert as usize].clone(),
                ));
            }
        }
    }
    let mut old: Vec<Name> = up.names().chain(down.names()).collect();
    old.extend(biases.into_iter().flat_map(|biases| biases.names));
    Ok(Change {
        module: experts.to_owned(),
        old,
        new,
    })
}

/// Which tensor holds up: with gate, or alone.
fn first_name(catalog: &Catalog, experts: &str) -> Result<&'static str> {
    let find = |projection| {
        let name = format!("{experts}.{projection}");
        catalog.tensors.get(&*name).map(|tensor| (name, tensor))
    };
    let Some((name, tensor)) = find(UP) else {
        return Ok(GATE_UP);
    };
    match [GATE_UP, GATE].into_iter().find_map(find) {
        None => Ok(UP),
        Some((other, _)) => Err(Error::of_tensor(Code::ExpertsLayout, tensor.origin(),
            name,
            format!("it is there beside {other}; fused experts have gate and up in {GATE_UP}, or {UP} and no gate"),
        ).with_hint(leave_out())),
    }
}

/// The rows `rows` of one expert of a weight, and what of its companions belongs to them.
fn rows_of_expert(
    fused: &Weight,
    name: &str,
    expert: u64,
    rows: &Range<u64>,
) -> Result<Vec<(Name, Tensor)>> {
    let tensors = fused.names_as(name).zip(fused.tensors()).enumerate();
    let parts = tensors.map(|(i, (name, tensor))| {
        let rows = match &fused.quantized {
            Some(quantized) if i > 0 => quantized.scheme.companion_rows(rows.clone()),
            _ => rows.clone(),
        };
        Ok((name, rows_of(fused, tensor, expert, &rows)?))
    });
    parts.collect()
}

fn fused<'a>(catalog: &'a Catalog, experts: &str, projection: &str) -> Result<Weight<'a>> {
    let name = format!("{experts}.{projection}");
    match Weight::find(catalog, name.clone())? {
        Some(weight) => Ok(weight),
        None => Err(missing_of(catalog, name, experts)),
    }
}

fn missing_of(catalog: &Catalog, name: String, experts: &str) -> Error {
    Error::of_tensor(
        Code::ExpertsIncomplete,
        &catalog.report.sources[0].path,
        name,
        format!("it is missing, but other fused tensors of {experts} are there"),
    )
    .with_hint(Hint::give(PATCH).to("add it").or(leave_out()))
}

/// The sizes of experts with a gate.
fn dimensions(gate_up: &Weight, down: &Weight) -> Result<Dimensions> {
    if let (&[count, a, b], &[down_count, c, d]) =
        (&gate_up.tensor.shape[..], &down.tensor.shape[..])
        && count == down_count
        && gate_up.tensor.len() > 0
    {
        // Not both: c would be 2c.
        let by_rows = (b == c && Some(a) == d.checked_mul(2)).then_some((d, c, false));
        let by_columns = (a == d && Some(b) == c.checked_mul(2)).then_some((c, d, true));
        if let Some((intermediate, hidden, is_transposed)) = by_rows.or(by_columns) {
            return Ok(Dimensions {
                count,
                intermediate,
                hidden,
                is_transposed,
            });
        }
    }
    Err(unfit(
        gate_up,
        down,
        "expected [E, 2I, H] and [E, H, I] or, transposed, [E, H, 2I] and [E, I, H], not empty",
    ))
}

/// The sizes of experts without one, which no family stores transposed.
fn dimensions_without_gate(up: &Weight, down: &Weight) -> Result<Dimensions> {
    if let (&[count, intermediate, hidden], &[down_count, down_hidden, down_intermediate]) =
        (&up.tensor.shape[..], &down.tensor.shape[..])
        && (count, hidden, intermediate) == (down_count, down_hidden, down_intermediate)
        && up.tensor.len() > 0
    {
        return Ok(Dimensions {
            count,
            intermediate,
            hidden,
            is_transposed: false,
        });
    }
    let expected = "expected [E, I, H] and [E, H, I], not empty, as there is no gate";
    Err(unfit(up, down, expected))
}

fn unfit(first: &Weight, down: &Weight, expected: &str) -> Error {
    let problem = format!(
        "its shape is {}, and that of {} is {}; {expected}",
        shape_text(&first.tensor.shape),
        down.name,
        shape_text(&down.tensor.shape)
    );
    first
        .error(Code::ExpertsLayout, problem)
        .with_hint(leave_out())
}

/// The biases of single experts, by number.
struct Biases {
    /// Of the fused ones.
    names: [Name; 2],
    gate: Vec<Tensor>,
    up: Vec<Tensor>,
    down: Vec<Tensor>,
}

impl Biases {
    /// Those of a layer, if it has some.
    fn find(
        catalog: &Catalog,
        experts: &str,
        model: &Model,
        dimensions: Dimensions,
        layout: Layout,
    ) -> Result<Option<Self>> {
        if !model.has_biases() {
            return Ok(None);
        }
        let names = [GATE_UP, DOWN].map(|weight| format!("{experts}.{weight}{FUSED_BIAS}"));
        let tensors = names.each_ref().map(|name| catalog.tensors.get(&**name));
        let [gate_up, down] = match tensors {
            [None, None] => return Ok(None),
            [Some(gate_up), Some(down)] => [gate_up, down],
            [missing, _] => {
                let name = &names[usize::from(missing.is_some())];
                return Err(missing_of(catalog, name.clone(), experts));
            }
        };
        let Dimensions {
            count,
            intermediate,
            hidden,
            ..
        } = dimensions;
        for (name, bias, expected) in [
            (&names[0], gate_up, [count, 2 * intermediate]),
            (&names[1], down, [count, hidden]),
        ] {
            if *bias.shape != expected {
                let [found, expected] = [&*bias.shape, &expected].map(shape_text);
                let problem = format!("its shape is {found}; by its weight it must be {expected}");
                return Err(
                    Error::of_tensor(Code::ExpertsLayout, bias.origin(), name, problem)
                        .with_hint(leave_out()),
                );
            }
        }
        let (mut gate, mut up) = (Vec::new(), Vec::new());
        for both in gather::unstack(&names[0], gate_up, 0)? {
            let parts = match layout {
                Layout::Interleaved => gather::deinterleave(&names[0], &both, 0, 2)?,
                _ => gather::chunk(&names[0], &both, 0, 2)?,
            };
            gate.push(parts[0].clone());
            up.push(parts[1].clone());
        }
        Ok(Some(Biases {
            gate,
            up,
            down: gather::unstack(&names[1], down, 0)?,
            names: names.map(Name::from),
        }))
    }
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
