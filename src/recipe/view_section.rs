//! `view` of a recipe: what follows the merge, or the base.

use crate::error::Result;
use crate::ops::merge::{Place, Scalar};
use crate::ops::{Filter, Precision, Rename};
use crate::recipe::dtype::parse_dtype;
use crate::recipe::models::{ModelPath, Reference};
use crate::recipe::size::parse_size;
use crate::recipe::yaml::{Fields, Node, Value};
use crate::recipe::{Experts, PartialBlocks, Repack, ScaleFormat, Selection};

/// What stands under `view`.
#[derive(Debug, Default)]
pub(super) struct ViewSection {
    /// Directories of models, by what the recipe calls them.
    pub models: Vec<(String, String)>,
    pub truncate_embeddings: Option<Place>,
    pub seed: Option<(u64, Place)>,
    /// With the weight of each.
    pub loras: Vec<((Reference, Place), f64)>,
    pub patch: Vec<(Reference, Place)>,
    pub renames: Vec<String>,
    pub only: Vec<String>,
    pub drop: Vec<String>,
    pub dtype: Option<Precision>,
    pub experts: Option<Experts>,
    pub fp8: Option<Fp8Section>,
    pub repack: Option<Repack>,
    pub shard_bytes: Option<u64>,
}

/// What stands under `fp8`.
#[derive(Debug, Default)]
pub(super) struct Fp8Section {
    pub rules: bool,
    pub references: Vec<(Reference, Place)>,
    pub patterns: Vec<String>,
    pub scale_format: ScaleFormat,
    pub partial_blocks: PartialBlocks,
}

impl ViewSection {
    /// The checkpoints and adapters that it names.
    pub(super) fn references(&self) -> impl Iterator<Item = &(Reference, Place)> {
        let loras = self.loras.iter().map(|(reference, _)| reference);
        let fp8 = self.fp8.iter().flat_map(|fp8| &fp8.references);
        loras.chain(&self.patch).chain(fp8)
    }

    pub(super) fn parse(node: &Node) -> Result<Self> {
        const KEYS: &[&str] = &[
            "models",
            "truncate_embeddings",
            "seed",
            "lora",
            "patch",
            "rename",
            "only",
            "drop",
            "dtype",
            "experts",
            "fp8",
            "repack",
            "single_file",
            "shard_size",
        ];
        let fields = Fields::new(node, "view", KEYS)?;
        let mut section = ViewSection::default();
        if let Some(node) = fields.get("models") {
            for (id, directory) in node.map("models")? {
                let directory = directory.text("a directory of models")?;
                section.models.push((id.text.clone(), directory.to_owned()));
            }
        }
        if let Some(node) = fields.get("truncate_embeddings")
            && node.bool("truncate_embeddings")?
        {
            section.truncate_embeddings = Some(node.place.clone());
        }
        if let Some(node) = fields.get("seed") {
            let seed = node.whole();
            let bad = || node.expected("seed", "a whole number that is not negative");
            section.seed = Some((seed.ok_or_else(bad)?, node.place.clone()));
        }
        if let Some(node) = fields.get("lora") {
            section.loras = loras(node)?;
        }
        if let Some(node) = fields.get("patch") {
            section.patch = references(node, "patch")?;
        }
        section.renames = checked(&fields, "rename", |rule| Rename::new(&[rule]).map(drop))?;
        section.only = checked(&fields, "only", |regex| {
            Filter::new(&[regex], &[]).map(drop)
        })?;
        section.drop = checked(&fields, "drop", |regex| {
            Filter::new(&[], &[regex]).map(drop)
        })?;
        if let Some(node) = fields.get("dtype") {
            let dtype = parse_dtype(node.text("dtype")?);
            let bad = || node.expected("dtype", "bf16, f16 or f32");
            section.dtype = Some(dtype.ok_or_else(bad)?);
        }
        if let Some(node) = fields.get("experts") {
            section.experts = Some(match node.text("experts")? {
                "unfuse" => Experts::Unfuse,
                "fuse" => Experts::Fuse,
                _ => return Err(node.expected("experts", "unfuse or fuse")),
            });
        }
        if let Some(node) = fields.get("fp8") {
            section.fp8 = fp8(node)?;
        }
        if let Some(node) = fields.get("repack") {
            section.repack = Some(match &node.value {
                Value::Scalar(Scalar::Bool(true)) => Repack::Always,
                Value::Scalar(Scalar::Bool(false)) => Repack::Never,
                _ => return Err(node.expected("repack", "true or false")),
            });
        }
        if let Some(node) = fields.get("shard_size") {
            let size = match &node.value {
                Value::Scalar(Scalar::Int(bytes)) => u64::try_from(*bytes).ok(),
                Value::Scalar(Scalar::Text(text)) => parse_size(text).ok(),
                _ => None,
            };
            let positive = size.filter(|size| *size > 0);
            let bad = || node.expected("shard_size", "a size such as 4GiB or 512MiB");
            section.shard_bytes = Some(positive.ok_or_else(bad)?);
        }
        if let Some(node) = fields.get("single_file")
            && node.bool("single_file")?
        {
            if section.repack == Some(Repack::Never) || section.shard_bytes.is_some() {
                return Err(node.place.error(
                    "single_file excludes repack: false and shard_size; leave one of them out",
                ));
            }
            section.repack = Some(Repack::SingleFile);
        }
        Ok(section)
    }
}

/// Texts that `check` accepts.
fn checked(
    fields: &Fields,
    key: &str,
    check: impl Fn(String) -> Result<()>,
) -> Result<Vec<String>> {
    let Some(node) = fields.get(key) else {
        return Ok(Vec::new());
    };
    let texts = entries(node).iter().map(|node| {
        let text = node.text(key)?.to_owned();
        check(text.clone()).map_err(|e| node.place.error(e))?;
        Ok(text)
    });
    texts.collect()
}

/// Those of a list; what is no list is the one of its kind.
fn entries(node: &Node) -> &[Node] {
    match &node.value {
        Value::List(nodes) => nodes,
        _ => std::slice::from_ref(node),
    }
}

/// Adapters: `path`, or `{path: …, revision: …, weight: …}`.
fn loras(node: &Node) -> Result<Vec<((Reference, Place), f64)>> {
    let loras = entries(node).iter().map(|node| {
        let (reference, weight) = match &node.value {
            Value::Map(_) => {
                let fields = Fields::new(node, "lora", &["path", "revision", "weight"])?;
                let weight = match fields.get("weight") {
                    Some(node) => node
                        .float()
                        .ok_or_else(|| node.expected("weight", "a number"))?,
                    None => 1.0,
                };
                let model = ModelPath::of(&fields)?;
                (Reference { model, lora: None }, weight)
            }
            _ => (Reference::parse(node.text("lora")?, &node.place)?, 1.0),
        };
        Ok(((reference, node.place.clone()), weight))
    });
    loras.collect()
}

fn references(node: &Node, what: &str) -> Result<Vec<(Reference, Place)>> {
    let references = entries(node).iter().map(|node| {
        let reference = Reference::of(node, what)?;
        Ok((reference, node.place.clone()))
    });
    references.collect()
}

/// `true` quantizes by the built-in rules; so does a map that selects nothing else.
fn fp8(node: &Node) -> Result<Option<Fp8Section>> {
    if let Value::Scalar(Scalar::Bool(on)) = node.value {
        return Ok(on.then(|| Fp8Section {
            rules: true,
            ..Fp8Section::default()
        }));
    }
    const KEYS: &[&str] = &[
        "rules",
        "references",
        "patterns",
        "scale_fmt",
        "partial_blocks",
    ];
    let fields = Fields::new(node, "fp8", KEYS)?;
    let mut section = Fp8Section::default();
    if let Some(node) = fields.get("references") {
        section.references = references(node, "references")?;
    }
    section.patterns = checked(&fields, "patterns", |pattern| {
        Selection::check_pattern(&pattern)
    })?;
    section.rules = match fields.get("rules") {
        Some(node) => node.bool("rules")?,
        None => section.references.is_empty() && section.patterns.is_empty(),
    };
    if !section.rules && section.references.is_empty() && section.patterns.is_empty() {
        return Err(node
            .place
            .error("fp8 selects nothing: give rules, references or patterns"));
    }
    if let Some(node) = fields.get("scale_fmt") {
        section.scale_format = match node.text("scale_fmt")? {
            "ue8m0" => ScaleFormat::Ue8m0,
            name if parse_dtype(name) == Some(Precision::F32) => ScaleFormat::Float32,
            _ => return Err(node.expected("scale_fmt", "ue8m0 or float32")),
        };
    }
    if let Some(node) = fields.get("partial_blocks") {
        section.partial_blocks = match node.text("partial_blocks")? {
            "quantize" => PartialBlocks::Quantize,
            "keep" => PartialBlocks::Keep,
            _ => return Err(node.expected("partial_blocks", "quantize or keep")),
        };
    }
    Ok(Some(section))
}
