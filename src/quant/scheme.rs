//! What a quantization scheme must answer: [`Scheme`] for weights that are quantized, [`Encoding`] for
//! weights that a view quantizes.

use std::fmt::{self, Debug};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};
use serde_json::Value;

use crate::catalog::{Catalog, Tensor};
use crate::error::Result;
use crate::findings::Faults;
use crate::format::StoredTensor;
use crate::jobs::Progress;
use crate::kernels::lanes::Precision;
use crate::source::Blob;
use crate::tensor::{Dtype, Name};

/// What a tensor is to a scheme.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// No part of a quantized weight.
    Plain,
    /// The codes of the weight of this name.
    Codes(String),
    /// What else belongs to the weight of this name.
    Companion(String),
}

/// How the weights of a checkpoint are quantized.
pub trait Scheme: Debug + Send + Sync {
    /// What messages call it.
    fn name(&self) -> &'static str;

    /// The weights that it can give as numbers, for messages.
    fn readable(&self) -> &'static str;

    /// Whether `declaration`, a `quantization_config`, is of this scheme.
    fn is_declared(&self, declaration: &Value) -> bool;

    /// What of `declaration`, which is by the method of this scheme and yet not of it, is not known, for messages.
    fn unreadable(&self, _declaration: &Value) -> Option<String> {
        None
    }

    /// The scheme as `declarations` have it, all of which [are of it](Scheme::is_declared) and in the
    /// config.json `path`; without any, as it usually is.
    ///
    /// # Errors
    /// If one is wrong, or they contradict each other.
    fn declared(&self, declarations: &[Value], path: &Path) -> Result<Box<dyn Scheme>>;

    /// What codes and companions have to do with each other, for messages ("blocks of 2 x 2"): two
    /// schemes of one name and one geometry read the same numbers.
    fn geometry(&self) -> String;

    /// Declares in config.json of `catalog` that of its weights those in `quantized`, which it stores in
    /// this scheme, are quantized. What config.json declares already stays, or else what `theirs`, the
    /// declaration of another checkpoint, does, as far as it is true of the weights that are `brought`
    /// from there. The list of the others is made anew if `relists`.
    ///
    /// # Errors
    /// If config.json is missing, or it or companions cannot be read.
    fn declare_stored(
        &self,
        catalog: &mut Catalog,
        quantized: &IndexSet<Name>,
        brought: &dyn Fn(&str) -> bool,
        theirs: Option<&Value>,
        relists: bool,
    ) -> Result<()>;

    /// The name of the codes of the weight `weight`: its own, or that of a companion, if no tensor has the
    /// weight's own name.
    fn codes(&self, weight: &str) -> String {
        weight.to_owned()
    }

    /// Whether loaders match what config.json lists as unquantized by whole names alone.
    fn lists_by_name(&self) -> bool {
        false
    }

    /// Whether it has only weights of modules: experts that it has cannot be fused.
    fn needs_modules(&self) -> bool {
        false
    }

    /// Whether the weight `weight`, all of whose companions are among `tensors`, is of this scheme and not
    /// of another with companions of these names.
    fn is_stored(&self, _tensors: &IndexMap<Name, Tensor>, _weight: &str) -> bool {
        true
    }

    /// Whether the dtypes of the weight `weight`, all of whose companions are among `tensors`, are those of this scheme.
    fn has_dtypes_of(&self, tensors: &IndexMap<Name, Tensor>, weight: &str) -> bool {
        self.is_stored(tensors, weight)
    }

    /// Whether `tensor`, called `name` among `tensors`, is to be [decoded](Scheme::decoded).
    fn is_quantized(
        &self,
        _tensors: &IndexMap<Name, Tensor>,
        _name: &str,
        tensor: &Tensor,
    ) -> bool {
        self.has_dtype(tensor.dtype)
    }

    /// What the tensor called `name` is among `tensors`, which it is one of.
    fn role(&self, tensors: &IndexMap<Name, Tensor>, name: &str, tensor: &Tensor) -> Role {
        match self.weight_of(name) {
            Some(weight) if self.codes(weight) == name => Role::Codes(weight.to_owned()),
            Some(weight) => Role::Companion(weight.to_owned()),
            None if self.is_quantized(tensors, name, tensor) => Role::Codes(name.to_owned()),
            None => Role::Plain,
        }
    }

    /// Whether views can have such weights as they are beside others, so that config.json declares both.
    fn is_movable(&self) -> bool {
        true
    }

    /// The names of the companions of the weight `weight`.
    fn companions(&self, weight: &str) -> Vec<String>;

    /// The weight that a tensor called `name` is a companion of, by its name alone.
    fn weight_of<'a>(&self, name: &'a str) -> Option<&'a str>;

    /// Whether elements of `dtype` are codes or scales: numbers that mean something only together
    /// with others.
    fn has_dtype(&self, dtype: Dtype) -> bool;

    /// The rows of a weight that share companions: a weight can be cut between them.
    fn block_rows(&self) -> u64;

    /// The rows of each companion that belong to `rows` of a weight, which begin and end between
    /// blocks or at the weight's edges.
    fn companion_rows(&self, rows: Range<u64>) -> Range<u64>;

    /// Checks that the companions of `weight`, in the order of [`Scheme::companions`], have the
    /// dtypes and shapes that belong to it.
    ///
    /// # Errors
    /// If they have not, so that they cannot be moved with it.
    fn check(&self, name: &str, weight: &Tensor, companions: &[&Tensor]) -> Result<()>;

    /// Checks that the companion `name` among `tensors` is that of a weight which
    /// [`Scheme::decoded`] takes.
    ///
    /// # Errors
    /// If it is not.
    fn check_companion(
        &self,
        tensors: &IndexMap<Name, Tensor>,
        name: &str,
        companion: &Tensor,
    ) -> Result<()>;

    /// The numbers, in dtype `to`, of the weight called `name`, whose [codes](Scheme::codes) are `weight` and
    /// whose companions are among `tensors`.
    ///
    /// # Errors
    /// If they are not, or have other dtypes or shapes.
    fn decoded(
        &self,
        tensors: &IndexMap<Name, Tensor>,
        name: &str,
        weight: &Tensor,
        to: Precision,
    ) -> Result<Tensor>;

    /// Finds what is wrong with the weights of `stored`, and with what `declaration`, the
    /// `quantization_config` of config.json, says of them. Returns what loaders take for quantized.
    ///
    /// # Errors
    /// If scales cannot be read.
    fn verify<'a>(
        &self,
        declaration: Option<&Value>,
        stored: &'a [StoredFile<'a>],
        reading: &Reading,
        faults: &mut Faults,
    ) -> Result<Verified<'a>>;
}

/// How the shape of a weight fits an encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// Every block or group is whole.
    Whole,
    /// Blocks at its edges are cut off, and are quantized so.
    Partial,
    /// It cannot be quantized; why, for messages.
    Not(String),
}

/// What an encoding makes of the numbers of a weight that was FP4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exactness {
    /// The weight was not FP4, or nobody would expect its numbers.
    NotExpected,
    /// The same numbers, or an error where they are read.
    Exact,
    /// The nearest ones.
    Rounded(Rounding),
}

/// Why numbers of a weight that was FP4 are rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rounding {
    /// In words, for messages.
    pub why: &'static str,
    /// The setting and the value of it by which they are not, if there is one.
    pub instead: Option<(&'static str, &'static str)>,
}

/// How a view quantizes weights.
pub trait Encoding: Debug + Send + Sync {
    /// Checks that the config.json of `catalog` can declare it.
    ///
    /// # Errors
    /// If it is missing, or declares something else.
    fn check_base(&self, catalog: &mut Catalog) -> Result<()>;

    /// Whether it knows only weights of modules: experts that are fused must be split first.
    fn needs_modules(&self) -> bool {
        false
    }

    /// Whether it is for weights called `name`, of those that rules select. What somebody selects by name
    /// is not asked for.
    fn is_for(&self, _name: &str) -> bool {
        true
    }

    /// How the shape of `tensor`, called `name`, fits. `has_companions` says whether there are
    /// companions of that name already.
    ///
    /// # Errors
    /// If it cannot be quantized for another reason than the sizes of its dimensions.
    fn fit(&self, name: &str, tensor: &Tensor, has_companions: bool) -> Result<Fit>;

    /// What encoding each of `weights`, which are all that are quantized, must know of others of them.
    fn shared(&self, _weights: &[(&Name, &Tensor)]) -> IndexMap<Name, Tensor> {
        IndexMap::new()
    }

    /// What becomes of the numbers of `tensor`, if they were FP4.
    fn exactness(&self, _tensor: &Tensor) -> Exactness {
        Exactness::NotExpected
    }

    /// Weights of `catalog` that are quantized in another way than this, though config.json declares this way, and that
    /// can be encoded so: the numbers of each of those that `is_meant`, and what its companions are called.
    ///
    /// # Errors
    /// If they cannot be given as numbers.
    fn reencoded(
        &self,
        _catalog: &Catalog,
        _is_meant: &dyn Fn(&str) -> bool,
    ) -> Result<IndexMap<Name, (Tensor, Name)>> {
        Ok(IndexMap::new())
    }

    /// The weight `tensor` quantized: its codes, called as it was, and then its companions. `shared` is
    /// what [`Encoding::shared`] gave for it.
    ///
    /// # Errors
    /// If its elements do not take whole bytes.
    fn encode(
        &self,
        name: &Name,
        tensor: Tensor,
        shared: Option<&Tensor>,
    ) -> Result<Vec<(Name, Tensor)>>;

    /// Declares in config.json that the tensors `quantized` of the finished catalog are quantized,
    /// and warns of what loaders do not read as it is. `partial` are those that this view quantized
    /// and that have blocks which are cut off at an edge.
    ///
    /// # Errors
    /// If config.json or a scale cannot be read.
    fn declare(
        &self,
        catalog: &mut Catalog,
        quantized: &IndexSet<Name>,
        partial: &[Name],
    ) -> Result<()>;
}

/// A file of a checkpoint on disk and its tensors.
#[derive(Debug)]
pub struct StoredFile<'a> {
    pub name: &'a str,
    pub file: &'a Arc<dyn Blob>,
    pub tensors: &'a IndexMap<Name, StoredTensor>,
}

/// How scales are read where their values matter.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    /// Whether the scales of this name, in a file on this device, need no reading.
    pub is_known: &'a (dyn Fn(&str, u64) -> bool + Sync),
    pub jobs: usize,
    pub progress: &'a dyn Progress,
}

impl Debug for Reading<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").finish_non_exhaustive()
    }
}

/// What [`Scheme::verify`] found.
#[derive(Debug, Default)]
pub struct Verified<'a> {
    /// Weights that have companions.
    pub quantized: Vec<&'a str>,
    /// How many of them have scales that were to be read, but are known.
    pub known: usize,
    /// As [`Scheme::lists_by_name`].
    pub lists_by_name: bool,
}
