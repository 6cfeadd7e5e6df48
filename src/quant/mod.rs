//! Quantization schemes: which stored tensors together are one weight, how config.json declares it,
//! and how numbers become codes and codes numbers.
//!
//! A quantized weight is a tensor of codes and its companions (scales, for example), which are told
//! by their names. They are named, moved, kept and left out together. Nothing outside this module
//! knows a companion's name, a block's size or what codes are made of.

mod declared;
pub mod fp8_block;
mod groups;
mod skip_list;

use std::fmt::{self, Debug};
use std::ops::Range;

use indexmap::{IndexMap, IndexSet};
use serde_json::Value;

pub(crate) use declared::{KEY, METHOD_KEY, SKIP_KEY, TEXT_CONFIG, skips};
pub(crate) use declared::{MODELOPT_FILE, undeclare};
pub(crate) use groups::{Group, group_of};

use crate::catalog::{CONFIG_FILE, Catalog, Tensor};
use crate::error::Result;
use crate::findings::Faults;
use crate::format::StoredTensor;
use crate::jobs::Progress;
use crate::kernels::lanes::Precision;
use crate::source::Blob;
use crate::tensor::{Dtype, Name};
use fp8_block::Fp8Block;

/// How the weights of a checkpoint are quantized.
pub trait Scheme: Debug + Send + Sync {
    /// What messages call it.
    fn name(&self) -> &'static str;

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

    /// The numbers, in dtype `to`, of the weight called `name`, whose companions are among
    /// `tensors`.
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

/// How a view quantizes weights.
pub trait Encoding: Debug + Send + Sync {
    /// Checks that the config.json of `catalog` can declare it.
    ///
    /// # Errors
    /// If it is missing, or declares something else.
    fn check_base(&self, catalog: &mut Catalog) -> Result<()>;

    /// Whether `tensor`, called `name`, has whole blocks only. `has_companions` says whether there
    /// are companions of that name already.
    ///
    /// # Errors
    /// If it cannot be quantized.
    fn has_whole_blocks(&self, name: &str, tensor: &Tensor, has_companions: bool) -> Result<bool>;

    /// The weight `tensor` quantized: its codes, called as it was, and then its companions.
    fn encode(&self, name: &Name, tensor: Tensor) -> Vec<(Name, Tensor)>;

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
    pub file: &'a dyn Blob,
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
}

/// Every scheme, as it is where config.json says nothing else.
const SCHEMES: [&dyn Scheme; 1] = [&Fp8Block::USUAL];

/// The scheme that the config.json of a checkpoint declares for its weights, or the usual one if it
/// declares none.
///
/// # Errors
/// If it declares a quantization that no scheme knows.
pub(crate) fn declared(catalog: &mut Catalog) -> Result<Box<dyn Scheme>> {
    let example = example(catalog);
    let scheme = match catalog.config_mut()? {
        Some(config) => Fp8Block::declared(&declared::all(config), config.path(), &example)?,
        None => Fp8Block::USUAL,
    };
    Ok(Box::new(scheme))
}

/// The scheme that `text`, a config.json, declares, or the usual one if it cannot be understood.
pub(crate) fn declared_in(text: &[u8]) -> Box<dyn Scheme> {
    let declarations = declared::in_text(text);
    let scheme = Fp8Block::declared(&declarations, CONFIG_FILE.as_ref(), "");
    Box::new(scheme.unwrap_or(Fp8Block::USUAL))
}

/// Finds what is wrong with the quantized weights of `stored`, and with what `declaration`, the
/// `quantization_config` of config.json, says of them.
///
/// # Errors
/// If scales cannot be read.
pub(crate) fn verify<'a>(
    declaration: Option<&Value>,
    stored: &'a [StoredFile<'a>],
    reading: &Reading,
    faults: &mut Faults,
) -> Result<Verified<'a>> {
    let mut all = Verified::default();
    for scheme in SCHEMES {
        let found = scheme.verify(declaration, stored, reading, faults)?;
        all.quantized.extend(found.quantized);
        all.known += found.known;
    }
    Ok(all)
}

/// The weight that a tensor called `name` is a companion of, by its name alone.
pub fn weight_of(name: &str) -> Option<&str> {
    SCHEMES.iter().find_map(|scheme| scheme.weight_of(name))
}

/// Every name that a companion of the weight `weight` may have; of `*`, patterns of such names.
pub fn companions(weight: &str) -> impl Iterator<Item = String> {
    SCHEMES
        .into_iter()
        .flat_map(move |scheme| scheme.companions(weight))
}

/// The scheme of the weight `name` of `tensors` and its companions, if these are there.
pub(crate) fn stored<'a>(
    tensors: &'a IndexMap<Name, Tensor>,
    name: &str,
) -> Option<(&'static dyn Scheme, Vec<&'a Tensor>)> {
    SCHEMES.into_iter().find_map(|scheme| {
        let companions = scheme.companions(name).into_iter();
        let companions: Option<Vec<&Tensor>> = companions
            .map(|companion| tensors.get(&*companion))
            .collect();
        Some((scheme, companions?))
    })
}

/// Whether elements of `dtype` mean something only together with scales.
pub fn is_coded(dtype: Dtype) -> bool {
    SCHEMES.iter().any(|scheme| scheme.has_dtype(dtype))
}

/// A tensor that shows how `catalog` is quantized, for a message.
fn example(catalog: &Catalog) -> String {
    const SUFFIXES: [&str; 9] = [
        ".qweight",
        ".weight_packed",
        ".weight_scale",
        ".weight_scale_2",
        ".absmax",
        ".SCB",
        ".scales",
        "_blocks",
        "_scales",
    ];
    let is_quantized = |name: &str| {
        weight_of(name).is_some() || SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
    };
    let mut tensors = catalog.tensors.iter();
    tensors
        .find(|(name, tensor)| is_coded(tensor.dtype) || is_quantized(name))
        .map_or_else(String::new, |(name, _)| {
            format!(" (a tensor of it is {name})")
        })
}
