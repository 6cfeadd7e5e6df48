//! `view` of a recipe: what follows the merge, or the base.

use crate::error::Result;
use crate::ops::merge::{Place, Scalar};
use crate::recipe::models::Reference;
use crate::recipe::size::parse_size;
use crate::recipe::yaml::{Fields, Node, Value};
use crate::recipe::{Experts, PartialBlocks, Repack, ScaleFormat, Selection};

/// What stands under `view`.
#[derive(Debug, Default)]
pub(super) struct ViewSection {
    pub truncate_embeddings: Option<Place>,
    pub seed: Option<(u64, Place)>,
    pub patch: Vec<(Reference, Place)>,
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
    pub(super) fn parse(node: &Node) -> Result<Self> {
        const KEYS: &[&str] = &[
            "truncate_embeddings",
            "seed",
            "patch",
            "experts",
            "fp8",
            "repack",
            "shard_size",
        ];
        let fields = Fields::new(node, "view", KEYS)?;
        let mut section = ViewSection::default();
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
        if let Some(node) = fields.get("patch") {
            section.patch = references(node, "patch")?;
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
        Ok(section)
    }
}

fn references(node: &Node, what: &str) -> Result<Vec<(Reference, Place)>> {
    let nodes = match &node.value {
        Value::List(nodes) => nodes,
        _ => std::slice::from_ref(node),
    };
    let references = nodes.iter().map(|node| {
        let reference = Reference::parse(node.text(what)?, &node.place)?;
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
    if let Some(node) = fields.get("patterns") {
        for pattern in node.texts("patterns")? {
            Selection::check_pattern(pattern).map_err(|e| node.place.error(e))?;
            section.patterns.push(pattern.to_owned());
        }
    }
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
            "float32" => ScaleFormat::Float32,
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
