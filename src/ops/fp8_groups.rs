//! Fused groups: layers that engines load as one, and that must therefore be quantized as one.
//!
//! | group | members |
//! |---|---|
//! | attention input | `q_proj`, `k_proj`, `v_proj` |
//! | gated MLP input | `gate_proj`, `up_proj` |
//! | linear attention input | `in_proj_qkv`, `in_proj_z` |
//! | linear attention gates | `in_proj_a`, `in_proj_b` |
//! | latent attention input | `q_a_proj`, `kv_a_proj_with_mqa` |
//! | experts | every weight of every expert of a layer |

use indexmap::IndexMap;

use crate::catalog::{Catalog, Report, Tensor};
use crate::error::{Error, Result};
use crate::ops::fp8_select::Selection;
use crate::ops::listing;

/// What becomes of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// It keeps its dtype.
    Keep,
    /// It is selected, but its dimensions are not multiples of 128 and such tensors are kept.
    KeepPartial,
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
    selection: &Selection,
    decisions: &mut [Decision],
    report: &mut Report,
) -> Result<()> {
    let mut groups: IndexMap<Group, Vec<usize>> = IndexMap::new();
    for (i, (name, tensor)) in catalog.tensors.iter().enumerate() {
        if let Some(group) = group_of(name, tensor) {
            groups.entry(group).or_default().push(i);
        }
    }
    let (mut demoted, mut promoted) = (Vec::new(), Vec::new());
    for members in groups.values() {
        let with = |wanted: &[Decision]| -> Vec<&str> {
            let matching = members.iter().filter(|&&i| wanted.contains(&decisions[i]));
            matching.map(|&i| name(catalog, i)).collect()
        };
        let kept = with(&[Decision::Keep, Decision::KeepPartial]);
        let in_fp8 = with(&[Decision::Quantize, Decision::Quantized]);
        if kept.is_empty() || in_fp8.is_empty() {
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
        } else if in_source == 0 && !in_fp8.iter().any(in_reference) {
            demoted.extend(in_fp8.iter().map(|name| (*name).to_owned()));
            change(decisions, members, Decision::Quantize, Decision::Keep);
        } else {
            return Err(Error::tensor(
                catalog.tensors[kept[0]].origin(),
                kept[0],
                format!(
                    "it would stay unquantized, but engines load it as one layer with {}, which is quantized in the source or the reference; select it too (--fp8-pattern), or start from an unquantized base",
                    in_fp8[0]
                ),
            ));
        }
    }
    if !demoted.is_empty() {
        report.warnings.push(format!(
            "{} selected tensors are left unquantized, because engines load them as one layer with tensors that are not: {}",
            demoted.len(),
            listing(&demoted)
        ));
    }
    if !promoted.is_empty() {
        report.warnings.push(format!(
            "{} tensors are quantized although their dimensions are not multiples of 128, because the reference has them quantized and engines load them as one layer with others: {}",
            promoted.len(),
            listing(&promoted)
        ));
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

/// What all members of a group share and no others do: the beginning of their names, and which
/// group of those that begin so.
type Group<'a> = (&'a str, &'static str);

/// The group that a weight belongs to.
fn group_of<'a>(name: &'a str, tensor: &Tensor) -> Option<Group<'a>> {
    const GROUPS: [&[&str]; 5] = [
        &["q_proj", "k_proj", "v_proj"],
        &["gate_proj", "up_proj"],
        &["in_proj_qkv", "in_proj_z"],
        &["in_proj_a", "in_proj_b"],
        &["q_a_proj", "kv_a_proj_with_mqa"],
    ];
    const EXPERTS: &str = ".experts.";
    if tensor.shape.len() < 2 {
        return None;
    }
    if let Some((layer, rest)) = name.split_once(EXPERTS) {
        let is_weight = rest.ends_with(".weight") || matches!(rest, "gate_up_proj" | "down_proj");
        return is_weight.then_some((layer, EXPERTS));
    }
    let (parent, module) = name.strip_suffix(".weight")?.rsplit_once('.')?;
    let group = GROUPS.iter().find(|group| group.contains(&module))?;
    Some((parent, group[0]))
}
