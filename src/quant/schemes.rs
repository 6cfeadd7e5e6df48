//! The list of schemes, and the questions that each of them is asked in turn.

use indexmap::IndexMap;
use serde_json::Value;

use crate::catalog::{CONFIG_FILE, Catalog, Tensor};
use crate::error::Result;
use crate::findings::Faults;
use crate::quant::declared::{all_declarations, declarations_in_text};
use crate::quant::fp8_block::Fp8Block;
use crate::quant::scheme::{Reading, Scheme, StoredFile, Verified};
use crate::tensor::{Dtype, Name};

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
        Some(config) => Fp8Block::declared(&all_declarations(config), config.path(), &example)?,
        None => Fp8Block::USUAL,
    };
    Ok(Box::new(scheme))
}

/// The scheme that `text`, a config.json, declares, or the usual one if it cannot be understood.
pub(crate) fn declared_in(text: &[u8]) -> Box<dyn Scheme> {
    let declarations = declarations_in_text(text);
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
