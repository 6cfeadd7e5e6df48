//! What a view is as GGUF: keys, and tensors in their types and order.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use crate::catalog::{
    CONFIG_FILE, Catalog, Extents, GgufModel, GgufTensor, OperatorReport, Tensor,
};
use crate::error::setting::{GGUF, GGUF_TYPE};
use crate::error::{Code, Error, Result};
use crate::format::gguf::{Keys, TensorType};
use crate::named::Named;
use crate::ops::gguf::architecture::{ARCHITECTURES, Architecture, without_module};
use crate::ops::gguf::encode::encode;
use crate::ops::gguf::files::{self, Files};
use crate::ops::gguf::kind::GgufKind;
use crate::ops::gguf::metadata::{Hparams, KeyWriter, Parameters, model_keys};
use crate::ops::gguf::tensors::{Arranging, mtp_layer, mtp_part};
use crate::ops::gguf::types::{Facts, choose};
use crate::ops::gguf::{rope_factors, tokenizer};
use crate::ops::pattern;
use crate::tensor::{Dtype, Name, Shape};

/// The architectures whose values can be written.
const WRITTEN: [&str; 9] = [
    "llama",
    "qwen2",
    "qwen3",
    "qwen3moe",
    "gemma3",
    "qwen3next",
    "qwen35",
    "qwen35moe",
    "deepseek2",
];

/// What is asked.
pub(super) struct Asked<'a> {
    pub kind: GgufKind,
    /// Types of single tensors, by expressions that match a part of their names.
    pub types: &'a [(String, TensorType)],
    pub pre: Option<&'a str>,
    /// The most bytes of tensors in a file.
    pub split_bytes: Option<u64>,
}

/// How many tensors and weights have which type.
#[derive(Debug, Clone)]
pub struct GgufReport {
    pub architecture: &'static str,
    /// By the names of types: tensors, weights, bytes.
    pub types: BTreeMap<&'static str, (u64, u64, u64)>,
}

impl OperatorReport for GgufReport {}

/// The model of `catalog`, whose tensors are in `order`.
///
/// # Errors
/// If its architecture is not known, or something that a file needs is missing.
pub(super) fn model(catalog: &mut Catalog, order: &[usize], asked: &Asked) -> Result<GgufModel> {
    let config = files::config(catalog)?;
    let files = Files::of(catalog);
    let architecture = architecture(&config, files)?;
    let nextn = catalog.tensors.keys().filter_map(|name| {
        let name = without_module(name);
        Some(mtp_layer(mtp_part(&name)?)?.0.saturating_add(1))
    });
    let nextn = nextn.max().unwrap_or_default();
    let hparams = Hparams::new(config.clone(), architecture, files.directory(), nextn)?;
    let in_order = || {
        order.iter().map(|&position| {
            let tensor = catalog.tensors.get_index(position);
            let (name, tensor) = tensor.expect("a position of the catalog");
            (&**name, tensor)
        })
    };
    let kind = match asked.kind {
        GgufKind::Auto => automatic(in_order().map(|(_, tensor)| tensor)),
        kind => kind,
    };
    let vocabulary = match architecture.name {
        "gemma3" => Some(tokenizer::vocabulary_len(&hparams, files)?),
        _ => None,
    };
    let arranging = Arranging {
        architecture,
        hparams: &hparams,
        vocabulary,
    };
    let mut tensors = rope_freqs(architecture, &hparams)?;
    tensors.extend(arranging.arrange(in_order())?);
    if !kind.is_of_converter() {
        tensors.sort_by(|(a, _), (b, _)| (layer(a), a).cmp(&(layer(b), b)));
    }
    let named = |(name, tensor): &'_ (String, Tensor)| (name.clone(), tensor.shape.clone());
    let shapes: Vec<_> = tensors.iter().map(named).collect();
    let shapes: Vec<(&str, &[u64])> = shapes.iter().map(|(n, s)| (&**n, &**s)).collect();
    let types = asked.types.iter();
    let types = types.map(|(text, kind)| Ok((pattern::compile(GGUF_TYPE, text)?, *kind)));
    let types: Vec<_> = types.collect::<Result<_>>()?;
    let wanted = |name: &str| {
        types
            .iter()
            .find(|(names, _)| names.is_match(name))
            .map(|(_, t)| *t)
    };
    let chosen = choose(kind, facts(architecture, &hparams), &shapes, wanted)?;
    let keys = keys(
        architecture,
        kind,
        (&config, &hparams),
        files,
        &shapes,
        asked.pre,
    )?;
    let tensors = tensors
        .iter()
        .zip(chosen)
        .map(|((name, tensor), tensor_type)| {
            Ok(GgufTensor {
                name: Name::from(&**name),
                tensor_type,
                shape: shown_shape(kind, &tensor.shape),
                tensor: encode(name, tensor, tensor_type)?,
            })
        });
    let tensors: Vec<GgufTensor> = tensors.collect::<Result<_>>()?;
    let directory = files.directory().file_name().unwrap_or_default();
    let stem = format!(
        "{}-{}",
        directory.to_string_lossy(),
        kind.name().to_ascii_uppercase()
    );
    catalog.report.add(report(architecture, &tensors));
    Ok(GgufModel {
        stem,
        keys,
        tensors,
        split_bytes: asked.split_bytes,
    })
}

/// The shape that a file has: llama-quantize leaves out dimensions of length 1 in front.
fn shown_shape(kind: GgufKind, shape: &Shape) -> Shape {
    if kind.is_of_converter() {
        return shape.clone();
    }
    let ones = shape.iter().take_while(|len| **len == 1).count();
    shape[ones.min(shape.len().saturating_sub(1))..].into()
}

/// That of config.json.
fn architecture<'a>(config: &'a Map<String, Json>, files: Files) -> Result<&'static Architecture> {
    let first = |config: Option<&'a Json>| config?.get(0)?.as_str();
    let of_text = config
        .get("text_config")
        .and_then(|text| text.get("architectures"));
    let class = first(of_text).or_else(|| first(config.get("architectures")));
    let known = class.and_then(Architecture::of_class);
    known
        .filter(|architecture| WRITTEN.contains(&architecture.name))
        .ok_or_else(|| {
            let written = ARCHITECTURES.iter().filter(|a| WRITTEN.contains(&a.name));
            let classes = written.flat_map(|architecture| architecture.classes);
            let classes: Vec<&str> = classes.copied().collect();
            let found = class.unwrap_or("missing");
            let problem = format!(
                "its architecture is {found}; these can be given as GGUF: {}",
                classes.join(", ")
            );
            let path = files.directory().join(CONFIG_FILE);
            Error::of_file(Code::UnknownArchitecture, path, problem).about(GGUF)
        })
}

/// BF16 or F16, whichever the first matrix is in.
fn automatic<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> GgufKind {
    let mut kinds = tensors
        .filter(|tensor| tensor.shape.len() >= 2)
        .filter_map(|tensor| match tensor.dtype {
            Dtype::BF16 => Some(GgufKind::Bf16),
            Dtype::F16 => Some(GgufKind::F16),
            _ => None,
        });
    kinds.next().unwrap_or(GgufKind::F16)
}

/// The first tensor of a Llama 3.
fn rope_freqs(architecture: &Architecture, hparams: &Hparams) -> Result<Vec<(String, Tensor)>> {
    if architecture.name != "llama" {
        return Ok(Vec::new());
    }
    let head = match hparams.whole("head_dim") {
        Some(head) => head,
        None => hparams.need("hidden_size")? / hparams.need("num_attention_heads")?,
    };
    let Some(factors) = rope_factors::factors(hparams.full_rope(), head) else {
        return Ok(Vec::new());
    };
    let bytes = factors.iter().flat_map(|factor| factor.to_le_bytes());
    let tensor = Tensor {
        dtype: Dtype::F32,
        shape: [factors.len() as u64].into(),
        extents: Extents::made(bytes.collect()),
        home: None,
    };
    Ok(vec![("rope_freqs.weight".to_owned(), tensor)])
}

/// The layer of a tensor; nothing for those before all layers.
fn layer(name: &str) -> Option<u64> {
    let rest = name.strip_prefix("blk.")?;
    rest.split_once('.')?.0.parse().ok()
}

fn facts(architecture: &Architecture, hparams: &Hparams) -> Facts {
    let heads = hparams.whole("num_attention_heads").unwrap_or(1);
    let kv_heads = hparams.whole("num_key_value_heads").unwrap_or(heads);
    let kv_heads = match architecture.name {
        "deepseek2" => 1,
        _ => kv_heads,
    };
    let layers = hparams.layers().unwrap_or_default();
    let experts = hparams.first(&["num_local_experts", "num_experts", "n_routed_experts"]);
    let is_70b = layers == 80
        && match architecture.name {
            "llama" => heads != kv_heads,
            name => name == "qwen2",
        };
    Facts {
        gqa: heads.checked_div(kv_heads).unwrap_or(1),
        experts: experts.and_then(Json::as_u64).unwrap_or_default(),
        layers,
        is_70b,
        has_imatrix: false,
    }
}

/// All keys, in order.
fn keys(
    architecture: &'static Architecture,
    kind: GgufKind,
    (config, hparams): (&Map<String, Json>, &Hparams),
    files: Files,
    shapes: &[(&str, &[u64])],
    pre: Option<&str>,
) -> Result<Keys> {
    let mut writer = KeyWriter::new(architecture.name);
    let parameters = Parameters::of(shapes.iter().copied());
    let of_model = (config, hparams);
    model_keys(&mut writer, architecture, kind, of_model, files, parameters)?;
    tokenizer::keys(&mut writer, architecture, hparams, config, files, pre)?;
    let mut keys = writer.finish();
    if !kind.is_of_converter() {
        // llama-quantize writes these again.
        for key in ["general.quantization_version", "general.file_type"] {
            if let Some(value) = keys.shift_remove(key) {
                keys.insert(key.to_owned(), value);
            }
        }
    }
    Ok(keys)
}

fn report(architecture: &Architecture, tensors: &[GgufTensor]) -> GgufReport {
    let mut types: BTreeMap<&'static str, (u64, u64, u64)> = BTreeMap::new();
    for tensor in tensors {
        let (count, weights, bytes) = types.entry(tensor.tensor_type.name()).or_default();
        *count += 1;
        *weights += tensor.shape.iter().product::<u64>();
        *bytes += tensor.tensor.len();
    }
    GgufReport {
        architecture: architecture.name,
        types,
    }
}
