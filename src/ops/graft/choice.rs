//! Which tensors of a graft take the places of the view's.

use std::collections::HashSet;

use crate::catalog::Catalog;
use crate::error::setting::DTYPE;
use crate::error::{Code, Error, Hint, Result};
use crate::ops::graft::source::GraftSource;
use crate::quant::{self, weight_of};

/// The tensors of a graft, by what becomes of them.
#[derive(Debug, Default)]
pub(super) struct Choice<'a> {
    /// Those that the view has under the same name, and their companions.
    pub taken: HashSet<&'a str>,
    /// The same in the graft's order, without companions.
    pub weights: Vec<&'a str>,
    /// How many are not asked for.
    pub not_matching: usize,
    /// Those that are asked for and that the view lacks.
    pub not_in_view: Vec<&'a str>,
}

impl<'a> Choice<'a> {
    /// What is taken of `graft` for `catalog`. A companion is taken if its weight is.
    ///
    /// # Errors
    /// If a companion is asked for without its weight, or has none in the graft.
    pub(super) fn new(graft: &'a GraftSource, catalog: &Catalog) -> Result<Self> {
        let theirs = &graft.checkpoint.tensors;
        let mut choice = Choice::default();
        for name in theirs.keys() {
            let is_known = |weight: &&str| {
                theirs.contains_key(*weight) || catalog.tensors.contains_key(*weight)
            };
            let weight = weight_of(name).filter(is_known);
            let subject = weight.unwrap_or(name);
            let is_asked = |name: &str| graft.names.as_ref().is_none_or(|n| n.matches(name));
            if !is_asked(subject) {
                if weight.is_some() && catalog.tensors.contains_key(subject) && is_asked(name) {
                    return Err(scales_alone(graft, name, subject));
                }
                choice.not_matching += 1;
            } else if !catalog.tensors.contains_key(subject) {
                if quant::seems_quantized(&catalog.tensors, subject) {
                    return Err(packed(graft, name, subject));
                }
                choice.not_in_view.push(name);
            } else if weight.is_some() && !theirs.contains_key(subject) {
                return Err(without_weight(graft, name, subject));
            } else {
                choice.taken.insert(name);
                if weight.is_none() {
                    choice.weights.push(name);
                }
            }
        }
        Ok(choice)
    }
}

fn scales_alone(graft: &GraftSource, name: &str, weight: &str) -> Error {
    let problem = format!(
        "{} matches these scales, but not {weight}, which stays as it is",
        graft.names()
    );
    let error = graft.error(Code::ScalesSeparated, name, problem);
    error.with_hint("let the expression match the weight too (its scales go with it)")
}

fn packed(graft: &GraftSource, name: &str, weight: &str) -> Error {
    let problem =
        format!("the view has {weight} in packed codes, which a graft does not replace one by one");
    let error = graft.error(Code::OtherQuantization, name, problem);
    let dequantize = Hint::give_value(DTYPE, "bf16").to("dequantize all");
    error.with_hint(dequantize.or("graft other tensors, by a regular expression of their names"))
}

fn without_weight(graft: &GraftSource, name: &str, weight: &str) -> Error {
    let problem = format!("these are scales of {weight}, which the graft does not have");
    let error = graft.error(Code::MissingWeight, name, problem);
    error.with_hint("take weight and scales from the same checkpoint, or graft other tensors by a regular expression of their names")
}
