//! What a view is as GGUF: keys, and tensors in their types and order.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value as Json};

use crate::catalog::{
    CONFIG_FILE, Catalog, Extents, GgufModel, GgufTensor, OperatorReport, Tensor,
};
use crate::error::setting::{GGUF, GGUF_TYPE};
use crate::error::{Code, Error, Result};
use crate::format::gguf::{Keys, TensorType};
use crate::kernels::lanes::Precision;
use crate::named::Named;
use crate::ops::gguf::architecture::{ARCHITECTURES, Architecture, without_module};
use crate::ops::gguf::encode::encode;
use crate::ops::gguf::files::{self, Files};
use crate::ops::gguf::importance::Importance;
use crate::ops::gguf::kind::GgufKind;
use crate::ops::gguf::metadata::{Hparams, KeyWriter, Parameters, model_keys};
use crate::ops::gguf::source::decoded;
use crate::ops::gguf::tensors::{Arranged, Arranging, mtp_layer, mtp_part};
use crate::ops::gguf::types::{Facts, choose};
use crate::ops::gguf::{rope_factors, tokenizer};
use crate::ops::pattern;
use crate::tensor::{Dtype, Name, Shape};

/// What is asked.
pub(super) struct Asked<'a> {
    pub kind: GgufKind,
    /// Types of single tensors, by expressions that match a part of their names.
    pub types: &'a [(String, TensorType)],
    pub pre: Option<&'a str>,
    /// The most bytes of tensors in a file.
    pub split_bytes: Option<u64>,
    pub importance: Option<&'a Importance>,
}

impl Asked<'_> {
    /// Whether llama-quantize makes files in `kind`; else the converter does.
    fn is_by_quantizer(&self, kind: GgufKind) -> bool {
        !kind.is_of_converter() || self.importance.is_some()
    }
}

/// How many tensors and weights have which type.
#[derive(Debug, Clone)]
pub struct GgufReport {
    pub architecture: &'static str,
    /// By the names of types: tensors, weights, bytes.
    pub types: BTreeMap<&'static str, (u64, u64, u64)>,
    /// With an importance matrix, how many matrices it is of, and how many of them were found.
    pub imatrix: Option<(usize, usize)>,
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
    let by_quantizer = asked.is_by_quantizer(kind);
    if by_quantizer {
        tensors.sort_by(|Arranged { name: a, .. }, Arranged { name: b, .. }| {
            (layer(a), a).cmp(&(layer(b), b))
        });
    }
    let shapes = tensors.iter().map(|it| (&*it.name, &**it.shape()));
    let shapes: Vec<(&str, &[u64])> = shapes.collect();
    let types = asked.types.iter();
    let types = types.map(|(text, kind)| Ok((pattern::compile(GGUF_TYPE, text)?, *kind)));
    let types: Vec<_> = types.collect::<Result<_>>()?;
    let stored: HashMap<&str, TensorType> = tensors
        .iter()
        .filter_map(|it| Some((&*it.name, it.blocks.as_ref()?.tensor_type)))
        .collect();
    let wanted = |name: &str| {
        let asked = types.iter().find(|(names, _)| names.is_match(name));
        // The converter leaves blocks as they are.
        let stored = stored.get(name).filter(|_| !by_quantizer);
        asked.map(|(_, asked)| *asked).or(stored.copied())
    };
    let facts = Facts {
        has_imatrix: asked.importance.is_some(),
        by_quantizer,
        ..facts(architecture, &hparams)
    };
    let chosen = choose(kind, facts, &shapes, wanted)?;
    let of_model = (&config, &hparams);
    let of_tensors = (&shapes[..], !stored.is_empty());
    let keys = keys(architecture, kind, of_model, files, of_tensors, asked)?;
    let tensors = tensors.iter().zip(chosen).map(|(arranged, tensor_type)| {
        let (name, shape) = (&*arranged.name, arranged.shape());
        let stored = arranged.blocks.as_ref();
        let is_stored_so = stored.is_some_and(|blocks| blocks.tensor_type == tensor_type);
        let weights = match asked.importance {
            Some(importance) if tensor_type != TensorType::F32 && !is_stored_so => {
                importance.of(name, shape)?
            }
            _ => None,
        };
        let tensor = match stored {
            _ if is_stored_so => arranged.tensor.clone(),
            Some(blocks) => {
                let numbers = decoded(name, &arranged.tensor, blocks, Precision::F32)?;
                encode(name, &numbers, tensor_type, weights)?
            }
            None => encode(name, &arranged.tensor, tensor_type, weights)?,
        };
        Ok(GgufTensor {
            name: Name::from(name),
            tensor_type,
            shape: shown_shape(by_quantizer, shape),
            tensor,
        })
    });
    let tensors: Vec<GgufTensor> = tensors.collect::<Result<_>>()?;
    let directory = files.directory().file_name().unwrap_or_default();
    let stem = format!(
        "{}-{}",
        directory.to_string_lossy(),
        kind.name().to_ascii_uppercase()
    );
    if let Some(importance) = asked.importance {
        importance.check_used()?;
        catalog.sources.add(importance.shard());
    }
    let imatrix = asked.importance.map(Importance::counts);
    catalog.report.add(report(architecture, &tensors, imatrix));
    Ok(GgufModel {
        stem,
        keys,
        tensors,
        split_bytes: asked.split_bytes,
    })
}

/// The shape that a file has: llama-quantize leaves out dimensions of length 1 in front.
fn shown_shape(by_quantizer: bool, shape: &Shape) -> Shape {
    if !by_quantizer {
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
    known.ok_or_else(|| {
        let classes = ARCHITECTURES.iter().flat_map(|known| known.classes);
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
fn rope_freqs(architecture: &Architecture, hparams: &Hparams) -> Result<Vec<Arranged>> {
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
    Ok(vec![Arranged::numbers("rope_freqs.weight", tensor)])
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
        ..Facts::default()
    }
}

/// All keys, in order.
fn keys(
    architecture: &'static Architecture,
    kind: GgufKind,
    (config, hparams): (&Map<String, Json>, &Hparams),
    files: Files,
    (shapes, has_mxfp4): (&[(&str, &[u64])], bool),
    asked: &Asked,
) -> Result<Keys> {
    let mut writer = KeyWriter::new(architecture.name);
    let parameters = Parameters::of(shapes.iter().copied());
    let of_model = (config, hparams);
    let file_type = match kind {
        kind if kind.is_plain() && has_mxfp4 => GgufKind::Mxfp4,
        kind => kind,
    };
    model_keys(
        &mut writer,
        architecture,
        file_type,
        of_model,
        files,
        parameters,
    )?;
    tokenizer::keys(&mut writer, architecture, hparams, config, files, asked.pre)?;
    let mut keys = writer.finish();
    if asked.is_by_quantizer(kind) {
        // llama-quantize writes these again.
        for key in ["general.quantization_version", "general.file_type"] {
            if let Some(value) = keys.shift_remove(key) {
                keys.insert(key.to_owned(), value);
            }
        }
    }
    if let Some(importance) = asked.importance {
        importance.add_keys(&mut keys);
    }
    Ok(keys)
}

fn report(
    architecture: &Architecture,
    tensors: &[GgufTensor],
    imatrix: Option<(usize, usize)>,
) -> GgufReport {
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
        imatrix,
    }
}
