//! Fused groups: layers that engines load as one, and that must therefore be quantized as one.

use indexmap::IndexMap;

use crate::catalog::{Catalog, Report};
use crate::error::setting::PATTERNS;
use crate::error::{Code, Error, Hint, Result, Warning};
use crate::ops::quantize::selection::Selected;
use crate::quant::{Group, group_of};
use crate::text::{are, listing};

/// What becomes of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// It keeps its dtype.
    Keep,
    /// It is selected, but it has partial blocks, and such tensors are kept.
    KeepPartial,
    /// The rules select it, but its shape does not fit.
    KeepUnfit,
    /// It is quantized by this view.
    Quantize,
    /// It is quantized in the source.
    Quantized,
}

/// Makes the members of every group decide together. A group that the selection would split stays
/// unquantized, unless a reference has all of it quantized.
///
/// # Errors
/// If part of a group is quantized in the source already, or by a reference, and the rest is not:
/// then there is no way to load it.
pub(super) fn close(
    catalog: &Catalog,
    selection: &Selected,
    decisions: &mut [Decision],
    report: &mut Report,
) -> Result<()> {
    let mut groups: IndexMap<Group, Vec<usize>> = IndexMap::new();
    for (i, (name, tensor)) in catalog.tensors.iter().enumerate() {
        if let Some(group) = group_of(name, &tensor.shape) {
            groups.entry(group).or_default().push(i);
        }
    }
    let (mut demoted, mut promoted) = (Vec::new(), Vec::new());
    for members in groups.values() {
        let with = |wanted: &[Decision]| -> Vec<&str> {
            let matching = members.iter().filter(|&&i| wanted.contains(&decisions[i]));
            matching.map(|&i| name(catalog, i)).collect()
        };
        let kept = with(&[Decision::Keep, Decision::KeepPartial, Decision::KeepUnfit]);
        let quantized = with(&[Decision::Quantize, Decision::Quantized]);
        if kept.is_empty() || quantized.is_empty() {
            continue;
        }
        let in_reference = |name: &&str| selection.in_reference(name);
        let in_source = with(&[Decision::Quantized]).len();
        if kept.iter().all(in_reference) {
            promoted.extend(kept.iter().map(|name| (*name).to_owned()));
            change(
                decisions,
                members,
                Decision::KeepPartial,
                Decision::Quantize,
            );
        } else if in_source == 0 && !quantized.iter().any(in_reference) {
            demoted.extend(quantized.iter().map(|name| (*name).to_owned()));
            change(decisions, members, Decision::Quantize, Decision::Keep);
        } else {
            return Err(Error::of_tensor(Code::MixedLayer, catalog.tensors[kept[0]].origin(),
                kept[0],
                format!(
                    "it would stay unquantized, but engines load it as one layer with {}, which is quantized in the source or the reference",
                    quantized[0]
                ),
            ).with_hint(Hint::give(PATTERNS).to("select it too").or("start from an unquantized base")));
        }
    }
    if !demoted.is_empty() {
        report.warnings.push(Warning::new(Code::MixedLayer, format!(
            "{} left unquantized, because engines load them as one layer with tensors that are not quantized: {}",
            are(demoted.len(), "selected tensor"),
            listing(&demoted)
        )));
    }
    if !promoted.is_empty() {
        report.warnings.push(Warning::new(Code::MixedLayer, format!(
            "{} quantized in spite of partial blocks, because the reference has them quantized and engines load them as one layer with others: {}",
            are(promoted.len(), "tensor"),
            listing(&promoted)
        )));
    }
    Ok(())
}

fn change(decisions: &mut [Decision], members: &[usize], from: Decision, to: Decision) {
    for &i in members {
        if decisions[i] == from {
            decisions[i] = to;
        }
    }
}

fn name(catalog: &Catalog, position: usize) -> &str {
    let (name, _) = catalog
        .tensors
        .get_index(position)
        .expect("positions are those of this catalog");
    name
}
