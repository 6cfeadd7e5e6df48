//! The operator: what of a catalog is quantized, and what becomes of it.

use indexmap::{IndexMap, IndexSet};

use crate::catalog::{Catalog, OperatorReport, Tensor};
use crate::error::{Code, Error, Result};
use crate::named::named;
use crate::ops::Operator;
use crate::ops::experts::{self, Experts, form_of};
use crate::ops::quantize::fp4::Converted;
use crate::ops::quantize::groups::{self, Decision};
use crate::ops::quantize::selection::{Selected, Selection};
use crate::ops::quantize::{checks, unquantized};
use crate::quant::{self, Encoding, Fit, Role, Scheme};
use crate::tensor::Name;

/// What to do with tensors that have blocks which are cut off at an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PartialBlocks {
    /// Quantize them too, with partial blocks at the edges.
    #[default]
    Quantize,
    /// Leave them in their dtype.
    Keep,
}

named!(PartialBlocks {
    Quantize: "quantize",
    Keep: "keep",
});

/// How many tensors were quantized.
#[derive(Debug)]
struct Quantized(usize);

impl OperatorReport for Quantized {
    fn counts(&self) -> Vec<(&'static str, usize)> {
        vec![("quantized", self.0)]
    }
}

/// Quantizes the selected tensors of a catalog.
#[derive(Debug)]
pub struct Quantize {
    pub selection: Selection,
    pub encoding: Box<dyn Encoding>,
    pub partial_blocks: PartialBlocks,
    /// Whether it was asked to round numbers of FP4 weights, which `encoding` then does.
    pub allows_rounding: bool,
}

impl Operator for Quantize {
    fn apply(&self, catalog: &mut Catalog) -> Result<()> {
        self.encoding.check_base(catalog)?;
        self.split_fused_experts(catalog)?;
        let selection = self.selection.resolve(catalog)?;
        checks::note_references(catalog, &selection);

        let declared = quant::declared_or_usual(catalog);
        let tensors = &catalog.tensors;
        let have_companions = have_companions(&*declared, tensors);
        let is_meant = |name: &str| {
            selection.selects(name) && (self.encoding.is_for(name) || selection.names(name))
        };
        let mut reencoded = self.encoding.reencoded(catalog, &is_meant)?;
        let mut unfit = Vec::new();
        let mut decisions = catalog
            .tensors
            .iter()
            .zip(&have_companions)
            .map(
                |((name, tensor), &has_companions)| match reencoded.get(name) {
                    Some((numbers, _)) => self.decide(&selection, name, numbers, false, &mut unfit),
                    None => self.decide(&selection, name, tensor, has_companions, &mut unfit),
                },
            )
            .collect::<Result<Vec<_>>>()?;
        checks::warn_unfit(catalog, &unfit);
        checks::warn_idle(catalog, &selection, &decisions);
        let mut report = std::mem::take(&mut catalog.report);
        groups::close(catalog, &selection, &mut decisions, &mut report)?;
        catalog.report = report;
        if let Some(rules) = &selection.rules {
            unquantized::note(catalog, &*declared, rules, &decisions);
        }

        let mut unquantized = std::mem::take(&mut catalog.tensors);
        let in_source = quantized_in(&*declared, &unquantized);
        let mut replaced = IndexMap::new();
        for ((name, tensor), decision) in unquantized.iter_mut().zip(&decisions) {
            if *decision == Decision::Quantize
                && let Some((numbers, scales)) = reencoded.swap_remove(name)
            {
                *tensor = numbers;
                replaced.insert(name.clone(), scales);
            }
        }
        let old_scales: IndexSet<&Name> = replaced.values().collect();
        let added = decisions.iter().filter(|d| **d == Decision::Quantize);
        let mut tensors = IndexMap::with_capacity(unquantized.len() + added.count());
        let to_encode = unquantized.iter().zip(&decisions);
        let to_encode = to_encode.filter(|(_, decision)| **decision == Decision::Quantize);
        let to_encode: Vec<_> = to_encode.map(|(weight, _)| weight).collect();
        let shared = self.encoding.shared(&to_encode);
        let mut quantized = IndexSet::new();
        let mut partial = Vec::new();
        let mut converted = Converted::default();
        let mut count = 0;
        for (((name, tensor), has_companions), decision) in
            unquantized.into_iter().zip(have_companions).zip(decisions)
        {
            if matches!(decision, Decision::Quantize | Decision::Quantized)
                || has_companions && in_source.contains(&name)
            {
                quantized.insert(name.clone());
            }
            if decision != Decision::Quantize {
                if !old_scales.contains(&name) {
                    tensors.insert(name, tensor);
                }
                continue;
            }
            let old_scales = replaced.get(&name);
            let has_companions = has_companions && old_scales.is_none();
            if self.encoding.fit(&name, &tensor, has_companions)? == Fit::Partial {
                partial.push(name.clone());
            }
            converted.add(&*self.encoding, &name, &tensor);
            let encoded = self.encoding.encode(&name, tensor, shared.get(&name))?;
            tensors.extend(encoded.into_iter().map(|(of, tensor)| match old_scales {
                // Loaders of this model look for scales where they were.
                Some(scales) if of != name => (scales.clone(), tensor),
                _ => (of, tensor),
            }));
            count += 1;
        }
        catalog.report.add(Quantized(count));
        converted.note(catalog, self.allows_rounding);
        catalog.tensors = tensors;
        self.encoding.declare(catalog, &quantized, &partial)
    }
}

impl Quantize {
    /// Splits fused experts, if the encoding knows only weights of modules and some are selected.
    fn split_fused_experts(&self, catalog: &mut Catalog) -> Result<()> {
        if !self.encoding.needs_modules() {
            return Ok(());
        }
        let selection = self.selection.resolve(catalog)?;
        let is_fused = |name: &str| {
            form_of(name).is_some_and(|(_, change)| change == Experts::Unfuse)
                && selection.selects(name)
        };
        if catalog.tensors.keys().any(|name| is_fused(name)) {
            experts::unfuse(catalog)?;
            let note = "fused experts are split: the scheme knows only weights of modules";
            catalog.report.notes.push(note.to_owned());
        }
        Ok(())
    }

    fn decide(
        &self,
        selection: &Selected,
        name: &str,
        tensor: &Tensor,
        has_companions: bool,
        unfit: &mut Vec<String>,
    ) -> Result<Decision> {
        if has_companions && quant::is_coded(tensor.dtype) {
            return Ok(Decision::Quantized);
        }
        if !selection.selects(name) || !(self.encoding.is_for(name) || selection.names(name)) {
            return Ok(Decision::Keep);
        }
        match self.encoding.fit(name, tensor, has_companions)? {
            Fit::Partial if self.partial_blocks == PartialBlocks::Keep => Ok(Decision::KeepPartial),
            Fit::Not(problem) if selection.names(name) => {
                let problem = format!("it is selected by name, but {problem}");
                let error =
                    Error::of_tensor(Code::UnsupportedTensor, tensor.origin(), name, problem);
                Err(error.with_hint("leave it out of what is selected, or choose another scheme"))
            }
            Fit::Not(problem) => {
                unfit.push(format!("{name} ({problem})"));
                Ok(Decision::KeepUnfit)
            }
            Fit::Whole | Fit::Partial => Ok(Decision::Quantize),
        }
    }
}

/// Whether each of `tensors`, whose scheme is `declared`, has companions.
fn have_companions(declared: &dyn Scheme, tensors: &IndexMap<Name, Tensor>) -> Vec<bool> {
    let mut have = vec![false; tensors.len()];
    for (name, tensor) in tensors {
        let weight = match quant::weight_of(name) {
            Some(weight) => tensors.get_index_of(weight),
            None => match declared.role(tensors, name, tensor) {
                Role::Companion(weight) => tensors.get_index_of(&*weight),
                Role::Codes(_) | Role::Plain => None,
            },
        };
        if let Some(weight) = weight {
            have[weight] = true;
        }
    }
    have
}

/// Those of `tensors` that are codes of the scheme that is `declared`.
fn quantized_in(declared: &dyn Scheme, tensors: &IndexMap<Name, Tensor>) -> IndexSet<Name> {
    let tensors_and_roles = tensors.iter();
    let codes = tensors_and_roles.filter(|(name, tensor)| {
        matches!(declared.role(tensors, name, tensor), Role::Codes(weight) if *weight == ***name)
    });
    codes.map(|(name, _)| name.clone()).collect()
}
