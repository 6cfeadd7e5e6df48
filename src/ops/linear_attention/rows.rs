//! The rows of projections, with the rows of their scales, where they are to be.

use std::ops::Range;

use crate::catalog::{CONFIG_FILE, Catalog, Tensor};
use crate::error::setting::{LINEAR_ATTENTION, PATCH};
use crate::error::{Code, Error, Hint, Result};
use crate::named::Named;
use crate::ops::gather;
use crate::ops::linear_attention::form::LinearAttention;
use crate::ops::linear_attention::heads::{Heads, Made};
use crate::ops::regroup::Change;
use crate::ops::weight::Weight;
use crate::tensor::{Name, shape_text};

/// What becomes of the projections of `module`.
pub(super) fn change(
    catalog: &Catalog,
    form: LinearAttention,
    heads: &Heads,
    module: String,
    made: &[Made],
) -> Result<Change> {
    let leave_out = || Hint::leave_out_value(LINEAR_ATTENTION, form.name());
    let find = |projection: &'static str| {
        let name = format!("{module}.{projection}.weight");
        let Some(weight) = Weight::find(catalog, name.clone())? else {
            let problem = format!(
                "it is missing, but others of {} are there",
                form.from().join(", ")
            );
            let path = &catalog.report.sources[0].path;
            let error = Error::of_tensor(Code::ProjectionMissing, path, name, problem);
            return Err(error.with_hint(Hint::give(PATCH).to("add it").or(leave_out())));
        };
        let rows = heads.rows(projection);
        match weight.tensor.shape[..] {
            [found, _] if found == rows && weight.tensor.len() > 0 => Ok((projection, weight)),
            _ => Err(weight.error(Code::ConfigMismatch, format!(
                "its shape is {}, but by the heads that {CONFIG_FILE} says it would be [{rows}, H], not empty",
                shape_text(&weight.tensor.shape)
            )).with_hint(leave_out())),
        }
    };
    let old: Vec<(&str, Weight)> = form
        .from()
        .iter()
        .map(|projection| find(projection))
        .collect::<Result<_>>()?;
    let mut new = Vec::new();
    for (projection, pieces) in made {
        let pieces = pieces.iter().map(|(from, rows)| {
            let found = old.iter().find(|(projection, _)| projection == from);
            let (_, weight) = found.expect("all that it is made of were found");
            (weight, rows.clone())
        });
        let name = format!("{module}.{projection}.weight");
        new.extend(assembled(&name, &pieces.collect::<Vec<_>>())?);
    }
    let old = old.iter().flat_map(|(_, weight)| weight.names());
    Ok(Change {
        old: old.collect(),
        new,
        module,
    })
}

/// The weight `name` made of rows of others, with companions if they have some.
fn assembled(name: &str, pieces: &[(&Weight, Range<u64>)]) -> Result<Vec<(Name, Tensor)>> {
    let (first, _) = &pieces[0];
    check_alike(pieces)?;
    let home = first.tensor.home;
    let tensors = first.names_as(name).enumerate().map(|(i, name)| {
        let parts = pieces.iter().map(|(weight, rows)| {
            let tensor = weight.tensors().nth(i).expect("all are alike");
            let rows = match &weight.quantized {
                Some(quantized) if i > 0 => quantized.scheme.companion_rows(rows.clone()),
                _ => rows.clone(),
            };
            gather::narrow(&name, tensor, 0, rows)
        });
        let parts: Vec<Tensor> = parts.collect::<Result<_>>()?;
        let tensor = gather::concatenate(&name, &parts, 0)?;
        Ok((name, Tensor { home, ..tensor }))
    });
    tensors.collect()
}

/// Checks that the weights can be one, and that no block would be cut.
fn check_alike(pieces: &[(&Weight, Range<u64>)]) -> Result<()> {
    let kind = |weight: &Weight| {
        let tensors = weight.tensors();
        let kinds = tensors.map(|tensor| (tensor.dtype, tensor.shape[1]));
        kinds.collect::<Vec<_>>()
    };
    let (first, _) = &pieces[0];
    for (weight, rows) in pieces {
        if kind(weight) != kind(first) {
            let description = |weight: &Weight| {
                let tensors = weight.tensors();
                let tensors =
                    tensors.map(|tensor| format!("{} {}", tensor.dtype, shape_text(&tensor.shape)));
                tensors.collect::<Vec<_>>().join(" with scales ")
            };
            return Err(weight.error(
                Code::ProjectionLayout,
                format!(
                    "it is {}, but {}, which it would be joined with, is {}",
                    description(weight),
                    first.name,
                    description(first)
                ),
            ));
        }
        let Some(quantized) = &weight.quantized else {
            continue;
        };
        let block = quantized.scheme.block_rows();
        if !rows.start.is_multiple_of(block) || !rows.end.is_multiple_of(block) {
            return Err(weight.error(Code::BadScales, format!(
                "it is {}, and rows {} to {} of it would be moved, which are no whole blocks of {block} rows",
                quantized.scheme.name(),
                rows.start,
                rows.end
            )).with_hint("start from unquantized projections"));
        }
    }
    Ok(())
}
