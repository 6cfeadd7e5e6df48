//! What a graft that fits badly is refused for, and what its plan warns about.

use crate::catalog::{Catalog, Config, Tensor};
use crate::error::setting::{DTYPE, GRAFT, PATCH};
use crate::error::{Code, Error, Hint, Result, Warning};
use crate::ops::architecture;
use crate::ops::graft::choice::Choice;
use crate::ops::graft::source::{Afterwards, GraftSource};
use crate::quant::is_coded;
use crate::tensor::shape_text;
use crate::text::{counted, listing};

/// Signs that the graft does not do what was meant.
pub(super) fn warnings(
    graft: &GraftSource,
    catalog: &mut Catalog,
    choice: &Choice,
    afterwards: Afterwards,
) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if choice.taken.is_empty() {
        warnings.push(idle(graft, choice));
    } else {
        if !afterwards.dequantizes {
            warnings.extend(other_dtypes(graft, catalog, choice));
        }
        warnings.extend(lost_adapters(catalog, choice));
    }
    // What cannot be read is an error where it matters.
    let ours = catalog.config_mut().unwrap_or_default().cloned();
    if let (Some(ours), Ok(Some(theirs))) = (&ours, Config::find(&graft.checkpoint.aux)) {
        warnings.extend(architecture::differs(ours, &theirs, "graft"));
    }
    let about = |warning: Warning| warning.about_value(GRAFT, graft.text());
    warnings.into_iter().map(about).collect()
}

/// Nothing is replaced, for this reason.
fn idle(graft: &GraftSource, choice: &Choice) -> Warning {
    if let Some(names) = &graft.names
        && choice.not_in_view.is_empty()
    {
        let theirs = graft.checkpoint.tensors.keys();
        let theirs: Vec<&str> = theirs.map(|name| &**name).collect();
        return names.unmatched(GRAFT, &theirs);
    }
    let what = match &graft.names {
        Some(_) => "that it matches",
        None => "of the graft",
    };
    let problem = format!(
        "nothing is replaced: the view has none of the {} {what}: {}",
        counted(choice.not_in_view.len(), "tensor"),
        listing(&choice.not_in_view)
    );
    let path = graft.checkpoint.path.display().to_string();
    let add = Hint::give_value(PATCH, path).to("add what the view lacks");
    Warning::new(Code::NoEffect, problem).with_hint(add)
}

/// Tensors that are numbers in both, of other dtypes.
fn other_dtypes(graft: &GraftSource, catalog: &Catalog, choice: &Choice) -> Option<Warning> {
    let differing = choice.weights.iter().filter_map(|name| {
        let (ours, theirs) = (
            catalog.tensors[*name].dtype,
            graft.checkpoint.tensor(name)?.dtype,
        );
        let differs = ours != theirs && !is_coded(ours) && !is_coded(theirs);
        differs.then(|| format!("{name} is {ours} in the view and {theirs} in the graft"))
    });
    let differing: Vec<String> = differing.collect();
    (!differing.is_empty()).then(|| {
        let problem = format!(
            "{} in the place of others of another dtype: {}",
            counted(differing.len(), "tensor"),
            listing(&differing)
        );
        let convert = Hint::give(DTYPE).to("give all of them in one");
        Warning::new(Code::MixedDtypes, problem).with_hint(convert)
    })
}

/// Adapters are merged before: where a tensor is replaced, nothing is left of that.
fn lost_adapters(catalog: &Catalog, choice: &Choice) -> Option<Warning> {
    let is_merged = |tensor: &Tensor| {
        let mut steps = tensor.nodes().filter_map(|node| node.kernel.step(0));
        steps.any(|step| step.operator == "lora")
    };
    let lost = choice.weights.iter().copied();
    let lost: Vec<&str> = lost
        .filter(|name| is_merged(&catalog.tensors[*name]))
        .collect();
    (!lost.is_empty()).then(|| {
        let problem = format!(
            "it replaces {} that an adapter is merged into, and what the adapter changes there is lost: {}",
            counted(lost.len(), "tensor"),
            listing(&lost)
        );
        Warning::new(Code::NoEffect, problem)
    })
}

/// Checks that what is replaced has the same shape.
///
/// # Errors
/// If it has not: config.json, which stays the base's, describes its shapes.
pub(super) fn check_shapes(graft: &GraftSource, catalog: &Catalog, choice: &Choice) -> Result<()> {
    let mut differing = choice.weights.iter().filter_map(|name| {
        let (ours, theirs) = (
            &catalog.tensors[*name].shape,
            &graft.checkpoint.tensor(name)?.shape,
        );
        (ours != theirs).then_some((*name, ours, theirs))
    });
    let Some((name, ours, theirs)) = differing.next() else {
        return Ok(());
    };
    let others: Vec<&str> = differing.map(|(name, ..)| name).collect();
    let others = if others.is_empty() {
        String::new()
    } else {
        format!("; shapes also differ of {}", listing(&others))
    };
    let problem = format!(
        "its shape is {}, expected {} as in the view, because config.json stays the base's{others}",
        shape_text(theirs),
        shape_text(ours)
    );
    Err(refused(graft, name, problem))
}

fn refused(graft: &GraftSource, name: &str, problem: String) -> Error {
    let others =
        Hint::text("graft the other tensors alone, by a regular expression of their names");
    let other_way = "start from the graft's checkpoint, and graft what is to stay of the base";
    let error = graft.error(Code::GraftMismatch, name, problem);
    error.with_hint(others.or(other_way))
}
