//! Operators: each rewrites a catalog from headers alone (the plan half) and brings the kernels
//! that compute what it adds (the kernel half).
//!
//! The order in which they are applied is that of [`Operations`]: config and other files of the base
//! are edited, embedding and head are tied or untied, adapters are merged, the result is patched, grafted on, given the names of another layout, renamed,
//! filtered, given in other dtypes, with a vocabulary of another size, with experts and linear attention in one
//! form, quantized, and last given the names, values and types of GGUF. So
//! patterns match new names, what is quantized was dequantized before, and expert forms see whatever
//! names and dtypes come out of the steps before.

mod architecture;
pub mod cast;
mod conversions;
mod convert;
pub mod dtype;
pub mod edits;
mod embeddings;
pub mod experts;
pub mod filter;
pub mod gather;
pub mod gguf;
pub mod graft;
pub mod like;
pub mod linear_attention;
pub mod lora;
pub mod merge;
pub mod moe;
pub mod names;
mod numbers;
pub mod open;
mod operator;
mod params;
pub mod patch;
mod pattern;
pub mod quantize;
mod random;
mod regroup;
pub mod rename;
mod tokenizer;
mod training;
pub mod tying;
pub mod vocabulary;
mod weight;
mod written;

pub use cast::CastParams;
pub use conversions::{CastRule, Conversions};
use convert::conversion;
pub use convert::convert;
pub(crate) use convert::{Converted, is_convertible};
pub use dtype::DtypeParams;
pub use edits::{Edit, EditsParams};
pub use experts::{Experts, ExpertsParams};
pub use filter::FilterParams;
pub use gguf::{GgufKind, GgufParams, GgufReport};
pub use graft::{GraftParams, GraftRequest};
pub use like::LikeParams;
pub use linear_attention::{LinearAttention, LinearAttentionParams};
pub use lora::{ExpertOrder, LoraParams, LoraRequest};
pub use names::{NameLayout, NamesParams};
pub use numbers::Numbers;
pub use operator::Operator;
pub use params::{Group, Params, Section, Setting, Takes, Value, split_scope};
pub(crate) use params::{chosen, short};
pub use patch::PatchParams;
pub use quantize::{PartialBlocks, Quantize, QuantizeParams, RuleSet, Selection};
pub use rename::RenameParams;
pub use tying::TyingParams;
pub use vocabulary::{Pad, VocabularyParams};
pub use written::{named_file, selective_source, weighted_source};

use std::path::Path;

use crate::catalog::Catalog;
use crate::error::Result;
pub use crate::kernels::lanes::Precision;
use crate::source::Location;

/// Declares [`Operations`] from the list of all operators.
macro_rules! operations {
    ($($name:ident: $params:ty,)+) => {
        /// What is asked of each operator, in the order in which they are applied.
        #[derive(Debug, Clone, Default)]
        pub struct Operations {
            $(pub $name: $params,)+
        }

        impl Operations {
            /// All of them, in this order.
            pub fn each(&self) -> impl Iterator<Item = &dyn Params> {
                [$(&self.$name as &dyn Params),+].into_iter()
            }

            fn each_mut(&mut self) -> impl Iterator<Item = &mut dyn Params> {
                [$(&mut self.$name as &mut dyn Params),+].into_iter()
            }
        }
    };
}

operations! {
    like: like::LikeParams,
    edits: edits::EditsParams,
    tying: tying::TyingParams,
    lora: lora::LoraParams,
    patch: patch::PatchParams,
    graft: graft::GraftParams,
    names: names::NamesParams,
    rename: rename::RenameParams,
    filter: filter::FilterParams,
    cast: cast::CastParams,
    dtype: dtype::DtypeParams,
    vocabulary: vocabulary::VocabularyParams,
    experts: experts::ExpertsParams,
    linear_attention: linear_attention::LinearAttentionParams,
    quantize: quantize::QuantizeParams,
    gguf: gguf::GgufParams,
}

impl Operations {
    /// Takes `value` for the setting `key` of whichever operator has it.
    ///
    /// # Errors
    /// If it is not a possible value.
    ///
    /// # Panics
    /// If no operator has such a setting.
    pub fn set(&mut self, key: &str, value: Value) -> Result<()> {
        let has_it = |setting: &Setting| setting.key == key;
        let mut all = self.each_mut();
        let params = all.find(|params| params.settings().iter().any(has_it));
        params.expect("a setting of an operator").set(key, value)
    }

    /// What they do to a catalog, in order. Opens what they read.
    ///
    /// # Errors
    /// If something that is asked cannot be done.
    pub fn operators(&self) -> Result<Vec<Box<dyn Operator>>> {
        let conversions = self.conversions();
        let mut operators = Vec::new();
        for params in self.each().filter(|params| params.is_asked()) {
            operators.extend(params.operators(&conversions)?);
        }
        Ok(operators)
    }

    /// The dtypes that are asked for.
    fn conversions(&self) -> Conversions<'_> {
        Conversions {
            dtype: self.dtype.to,
            undecided: match self.gguf.kind {
                // What it is encoded in rounds enough.
                Some(_) => Precision::F32,
                None => Precision::Bf16,
            },
            rules: &self.cast.rules,
            quantizes: self.quantize.is_asked(),
        }
    }

    /// What `base` is before anything is done to it.
    ///
    /// # Errors
    /// If it cannot be read, or lacks something that a view needs.
    pub fn base(&self, base: &Location) -> Result<Catalog> {
        let numbers = Numbers::of(&self.conversions())?;
        let added = self.patch.is_asked();
        open::catalog(base, &numbers, self.like.directory.as_ref(), added)
    }

    /// What they read from, in order.
    pub(crate) fn sources(&self) -> impl Iterator<Item = Location> {
        let settings = self.each().flat_map(|params| {
            let settings = params.settings().iter();
            settings.flat_map(|setting| params.get(setting.key))
        });
        settings.filter_map(|value| value.location().cloned())
    }

    /// Takes relative paths of files for relative to `directory`.
    pub(crate) fn relative_to(&mut self, directory: &Path) {
        self.each_mut()
            .for_each(|params| params.relative_to(directory));
    }
}
