//! References whose experts have another form than those of the view.

use std::collections::HashSet;

use indexmap::{IndexMap, IndexSet};
use regex::Regex;

use crate::catalog::Catalog;
use crate::error::setting::{EXPERTS, REFERENCES};
use crate::error::{Code, Hint, Warning};
use crate::named::Named;
use crate::ops::experts::{Experts, form_of};
use crate::ops::params::scoped;
use crate::ops::quantize::selection::Reference;
use crate::quant::weight_of;
use crate::text::{counted, listing};

/// Warns of modules of experts that `reference` has quantized in another form than `catalog` has them.
/// Returns these modules.
pub(super) fn warn_of_other_forms<'a>(
    catalog: &'a Catalog,
    reference: &'a Reference,
    warnings: &mut Vec<Warning>,
) -> HashSet<&'a str> {
    let names = catalog.tensors.keys().map(|name| &**name);
    let ours = forms(names.filter(|name| weight_of(name).is_none()));
    let theirs = forms(reference.quantized.iter().map(|name| &**name));
    let mut all = HashSet::new();
    for change in [Experts::Unfuse, Experts::Fuse] {
        // What `change` changes, and what of that the reference has as it becomes.
        let of_form = ours.iter().filter(|(_, forms)| **forms == [change]);
        let of_form: Vec<&str> = of_form.map(|(module, _)| *module).collect();
        let is_other = |module: &&str| theirs.get(module).is_some_and(|f| !f.contains(&change));
        let (other, same): (Vec<&str>, Vec<&str>) = of_form.into_iter().partition(is_other);
        if other.is_empty() {
            continue;
        }
        let (here, there) = match change {
            Experts::Unfuse => ("fused", "single"),
            Experts::Fuse => ("single", "fused"),
        };
        let problem = format!(
            "it quantizes nothing of {} whose experts are {here} in this view and {there} in the reference: {}",
            counted(other.len(), "module"),
            listing(&other)
        );
        let value = if same.is_empty() {
            change.name().to_owned()
        } else {
            scoped(change.name(), &scope(&other, &same))
        };
        let hint = Hint::give_value(EXPERTS, value).to("give them the form of the reference");
        let directory = reference.directory.display().to_string();
        let warning = Warning::new(Code::BadReference, problem);
        warnings.push(warning.about_value(REFERENCES, directory).with_hint(hint));
        all.extend(other);
    }
    all
}

/// The modules of experts that weights called `names` are of, each with what would change its forms.
fn forms<'a>(names: impl Iterator<Item = &'a str>) -> IndexMap<&'a str, Vec<Experts>> {
    let mut modules: IndexMap<&str, Vec<Experts>> = IndexMap::new();
    for (module, form) in names.filter_map(form_of) {
        let forms = modules.entry(module).or_default();
        if !forms.contains(&form) {
            forms.push(form);
        }
    }
    modules
}

/// A regular expression that matches all of `modules`, and none of `others`.
fn scope(modules: &[&str], others: &[&str]) -> String {
    let any_number = |module: &&str| {
        let parts = module.split('.');
        let parts = parts.map(|part| match part.parse::<u64>() {
            Ok(_) => "[0-9]+".to_owned(),
            Err(_) => regex::escape(part),
        });
        parts.collect::<Vec<_>>().join("\\.")
    };
    let of_any_layer: IndexSet<String> = modules.iter().map(any_number).collect();
    let of_any_layer: Vec<String> = of_any_layer.into_iter().collect();
    let of_any_layer = of_any_layer.join("|");
    let regex = Regex::new(&format!("^(?:{of_any_layer})$"));
    if regex.is_ok_and(|regex| !others.iter().any(|other| regex.is_match(other))) {
        return of_any_layer;
    }
    let each = modules.iter().map(|module| regex::escape(module));
    each.collect::<Vec<_>>().join("|")
}
