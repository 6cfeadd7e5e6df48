//! The list of schemes, and the questions that each of them is asked in turn.

use std::path::Path;

use indexmap::{IndexMap, IndexSet};
use serde_json::Value;

use crate::catalog::{CONFIG_FILE, Catalog, Config, Tensor};
use crate::error::setting::DTYPE;
use crate::error::{Code, Error, Hint, Result};
use crate::findings::Faults;
use crate::quant::awq::Awq;
use crate::quant::bitsandbytes::BitsAndBytes;
use crate::quant::compressed_tensors::{self, CompressedTensors};
use crate::quant::declared::{
    METHOD_KEY, MODELOPT_FILE, all_declarations, declarations_in_text, tool_declaration,
};
use crate::quant::fp8_block::{self, Fp8Block, OtherFp8};
use crate::quant::gptq::Gptq;
use crate::quant::microscaling::{Microscaling, encodings as microscaling};
use crate::quant::mixed::Mixed;
use crate::quant::offer::Offer;
use crate::quant::scheme::{Reading, Scheme, StoredFile, Verified};
use crate::source::AuxEntry;
use crate::tensor::{Dtype, Name};

/// Every scheme, as it usually is. The first is the one of a checkpoint that declares none.
const SCHEMES: &[&dyn Scheme] = &[
    &Fp8Block::USUAL,
    &Microscaling::NVFP4_MODELOPT,
    &Microscaling::MXFP4_MODELOPT,
    &Microscaling::MXFP8,
    &CompressedTensors::DENSE,
    &CompressedTensors::PACKED_ASYMMETRIC,
    &CompressedTensors::PACKED,
    &Microscaling::NVFP4,
    &Microscaling::MXFP4,
    &Microscaling::GPT_OSS,
    &Awq::USUAL,
    &Gptq::USUAL,
    &BitsAndBytes,
    &OtherFp8::USUAL,
    &Mixed::new(scheme_of_group),
];

/// Every way in which views can be quantized. The first is the one of a request that names none.
pub(super) const ENCODINGS: &[Offer] = &[
    fp8_block::OFFER,
    compressed_tensors::FP8_CHANNEL,
    compressed_tensors::INT8_CHANNEL,
    compressed_tensors::INT4,
    microscaling::MXFP4,
    microscaling::MXFP8,
    microscaling::NVFP4,
];

/// The scheme that the config.json of a checkpoint declares for its weights, or the usual one if it
/// declares none. What a declaration is of does not matter where no tensor is quantized.
///
/// # Errors
/// If it declares a quantization that no scheme knows.
pub(crate) fn declared(catalog: &mut Catalog) -> Result<Box<dyn Scheme>> {
    let example = example(catalog);
    let by_tool = tool_declaration(&catalog.aux);
    let Some(config) = catalog.config_mut()? else {
        return Ok(usual());
    };
    let mut declarations = all_declarations(config);
    if declarations.is_empty() {
        declarations.extend(by_tool);
    }
    match scheme_of(&declarations, config.path(), &example) {
        Err(error) if example.is_empty() && error.code() == Code::OtherQuantization => Ok(usual()),
        found => found,
    }
}

/// The same, or the usual one if no scheme knows what is declared.
pub(crate) fn declared_or_usual(catalog: &mut Catalog) -> Box<dyn Scheme> {
    declared(catalog).unwrap_or_else(|_| usual())
}

/// Whether a tensor of `catalog` seems to be quantized, by its dtype or name.
pub(crate) fn has_quantized(catalog: &Catalog) -> bool {
    !example(catalog).is_empty()
}

/// The scheme that `text`, a config.json, declares, or the usual one if it cannot be understood.
pub(crate) fn declared_in(text: &[u8]) -> Box<dyn Scheme> {
    let declarations = declarations_in_text(text);
    scheme_of(&declarations, CONFIG_FILE.as_ref(), "").unwrap_or_else(|_| usual())
}

/// What a checkpoint declares of its quantization.
#[derive(Debug)]
pub(crate) enum Declared {
    Nothing,
    /// A scheme, by the first of its declarations.
    By {
        scheme: Box<dyn Scheme>,
        declaration: Value,
    },
    /// What no scheme here knows, or moves weight by weight, for messages.
    Other(String),
}

impl Declared {
    /// The scheme that is declared, or else the usual one.
    pub(crate) fn into_scheme(self) -> Box<dyn Scheme> {
        match self {
            Declared::By { scheme, .. } => scheme,
            Declared::Nothing | Declared::Other(_) => usual(),
        }
    }
}

/// What `config` declares, or another file of `aux` for it.
///
/// # Errors
/// If a scheme is declared wrongly.
pub(crate) fn declaration(config: Option<&Config>, aux: &[AuxEntry]) -> Result<Declared> {
    let declarations = config.map(all_declarations).unwrap_or_default();
    let Some(first) = declarations.first() else {
        let is_other = |entry: &AuxEntry| entry.name() == MODELOPT_FILE;
        let other = aux.iter().any(is_other);
        return Ok(if other {
            Declared::Other(MODELOPT_FILE.to_owned())
        } else {
            Declared::Nothing
        });
    };
    let of_all = |scheme: &&&dyn Scheme| {
        scheme.is_movable() && declarations.iter().all(|d| scheme.is_declared(d))
    };
    match (SCHEMES.iter().find(of_all), config) {
        (Some(scheme), Some(config)) => Ok(Declared::By {
            scheme: scheme.declared(&declarations, config.path())?,
            declaration: first.clone(),
        }),
        _ => {
            let method = first.get(METHOD_KEY).unwrap_or(&Value::Null);
            Ok(Declared::Other(format!("{METHOD_KEY} {method}")))
        }
    }
}

fn usual() -> Box<dyn Scheme> {
    let usual = SCHEMES[0].declared(&[], CONFIG_FILE.as_ref());
    usual.expect("nothing is wrong with no declaration")
}

/// The scheme that all of `declarations`, which are in the config.json `path`, are of. `example` is a
/// remark for the message.
pub(super) fn scheme_of(
    declarations: &[Value],
    path: &Path,
    example: &str,
) -> Result<Box<dyn Scheme>> {
    let Some(first) = declarations.first() else {
        return Ok(usual());
    };
    let scheme = SCHEMES.iter().find(|scheme| scheme.is_declared(first));
    let is_other = |declaration: &&Value| scheme.is_none_or(|s| !s.is_declared(declaration));
    match (scheme, declarations.iter().find(is_other)) {
        (Some(scheme), None) => scheme.declared(declarations, path),
        (_, other) => {
            let other = other.unwrap_or(first);
            let [method, activations] =
                [METHOD_KEY, "activation_scheme"].map(|key| other.get(key).unwrap_or(&Value::Null));
            let unreadable = SCHEMES.iter().find_map(|scheme| scheme.unreadable(other));
            let with = unreadable.unwrap_or_else(|| format!("activation_scheme {activations}"));
            let readable: Vec<&str> = SCHEMES.iter().map(|scheme| scheme.readable()).collect();
            let problem = format!(
                "it declares {METHOD_KEY} {method} with {with}{example}; only {} can be dequantized",
                readable.join(", and ")
            );
            let hint = Hint::leave_out(DTYPE).or("start from the unquantized checkpoint");
            Err(Error::of_file(Code::OtherQuantization, path, problem).with_hint(hint))
        }
    }
}

/// The scheme of `declaration`, which has one group of weights; or what is not known of it, for messages.
fn scheme_of_group(declaration: &Value) -> std::result::Result<Box<dyn Scheme>, String> {
    let declarations = std::slice::from_ref(declaration);
    let scheme = SCHEMES
        .iter()
        .find(|scheme| scheme.is_declared(declaration));
    match scheme.map(|scheme| scheme.declared(declarations, CONFIG_FILE.as_ref())) {
        Some(Ok(scheme)) => Ok(scheme),
        Some(Err(error)) => Err(error.problem().to_owned()),
        None => {
            let mut unreadable = SCHEMES.iter().filter_map(|s| s.unreadable(declaration));
            Err(unreadable
                .next()
                .unwrap_or_else(|| declaration[METHOD_KEY].to_string()))
        }
    }
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
    for &scheme in SCHEMES {
        let found = scheme.verify(declaration, stored, reading, faults)?;
        all.lists_by_name |= found.lists_by_name && !found.quantized.is_empty();
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
pub fn companions(weight: &str) -> impl Iterator<Item = String> + use<> {
    let names = SCHEMES.iter().flat_map(|scheme| scheme.companions(weight));
    names.collect::<IndexSet<String>>().into_iter()
}

/// Whether `tensors` have codes or scales of the weight `weight`, by their names.
pub(crate) fn seems_quantized(tensors: &IndexMap<Name, Tensor>, weight: &str) -> bool {
    let beside = ["_packed", "_scale", "_scale_inv", ".absmax"];
    let of_module = [".qweight", ".SCB", ".scale"];
    let module = weight.strip_suffix(".weight");
    let beside = beside.iter().map(|suffix| [weight, suffix].concat());
    let of_module = of_module
        .iter()
        .filter_map(|suffix| Some([module?, suffix].concat()));
    beside
        .chain(of_module)
        .any(|name| tensors.contains_key(&*name))
}

/// The scheme of the weight `name` of `tensors` and its companions, if these are there.
pub(crate) fn stored<'a>(
    tensors: &'a IndexMap<Name, Tensor>,
    name: &str,
) -> Option<(&'static dyn Scheme, Vec<&'a Tensor>)> {
    SCHEMES.iter().find_map(|&scheme| {
        let companions = scheme.companions(name).into_iter();
        let companions: Option<Vec<&Tensor>> = companions
            .map(|companion| tensors.get(&*companion))
            .collect();
        // What is only read has none to move.
        let companions = companions.filter(|companions| !companions.is_empty())?;
        scheme
            .is_stored(tensors, name)
            .then_some((scheme, companions))
    })
}

/// Whether elements of `dtype` mean something only together with scales.
pub fn is_coded(dtype: Dtype) -> bool {
    SCHEMES.iter().any(|scheme| scheme.has_dtype(dtype))
}

/// A tensor that shows how `catalog` is quantized, for a message.
pub(super) fn example(catalog: &Catalog) -> String {
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
