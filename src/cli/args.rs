//! Flags as typed, and the request they make. Nothing past this file sees a flag.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, ValueEnum};

use ckptfs::ops::{Filter, Rename};
use ckptfs::recipe::{
    Experts, FloatType, Fp8Request, LoraRequest, PartialBlocks, Repack, ScaleFormat, Selection,
    ViewRequest,
};

/// Which view: the flags that every command on a view has.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("selection").multiple(true).args(["fp8", "reference", "fp8_pattern"])))]
pub(crate) struct ViewArgs {
    /// Checkpoint directory that the view starts from
    #[arg(long, visible_alias = "source", value_name = "DIR")]
    pub(crate) base: PathBuf,

    /// PEFT adapter to merge into the base, its scaling times WEIGHT (repeatable; merged in order)
    #[arg(long, value_name = "DIR[:WEIGHT]", value_parser = parse_lora)]
    pub(crate) lora: Vec<LoraRequest>,

    /// Checkpoint directory that gives the tensors which the base lacks (repeatable; the first
    /// that has a tensor gives it)
    #[arg(long, value_name = "DIR")]
    pub(crate) extra: Vec<PathBuf>,

    /// Rename tensors: every match of REGEX in a name becomes REPLACEMENT ($1 or ${name} for
    /// groups; repeatable, applied in order)
    #[arg(long, value_name = "REGEX=REPLACEMENT", value_parser = parse_rename)]
    pub(crate) rename: Vec<String>,

    /// Keep only the tensors whose whole name matches this regular expression (repeatable)
    #[arg(long, value_name = "REGEX", value_parser = parse_name_pattern)]
    pub(crate) only: Vec<String>,

    /// Leave out the tensors whose whole name matches this regular expression (repeatable)
    #[arg(long, value_name = "REGEX", value_parser = parse_name_pattern)]
    pub(crate) drop: Vec<String>,

    /// Give every floating tensor in this dtype; block FP8 is dequantized
    #[arg(long, value_enum)]
    pub(crate) dtype: Option<Dtype>,

    /// Show fused experts (experts.gate_up_proj, experts.down_proj) as weights of single experts
    #[arg(long, conflicts_with = "fuse_experts")]
    pub(crate) unfuse_experts: bool,

    /// Show the weights of single experts as fused ones
    #[arg(long)]
    pub(crate) fuse_experts: bool,

    /// Quantize to 128x128-block FP8 by the built-in rule set
    #[arg(long)]
    pub(crate) fp8: bool,

    /// Quantize the tensors that are quantized in this checkpoint (its index alone is enough)
    #[arg(long, value_name = "DIR")]
    pub(crate) reference: Vec<PathBuf>,

    /// Quantize the tensors whose whole name matches this regular expression
    #[arg(long, value_name = "REGEX", value_parser = parse_pattern)]
    pub(crate) fp8_pattern: Vec<String>,

    /// Power-of-two scales (ue8m0), or the exact amax/448 (float32)
    #[arg(long, value_enum, default_value_t, requires = "selection")]
    pub(crate) scale_fmt: ScaleFmt,

    /// What to do with tensors whose last two dimensions are not multiples of 128
    #[arg(long, value_enum, default_value_t, requires = "selection")]
    pub(crate) partial_blocks: Partial,

    /// Pack all tensors into new shards of the standard names
    #[arg(long, conflicts_with = "no_repack")]
    pub(crate) repack: bool,

    /// Keep the base's shards even if their names are not standard
    #[arg(long)]
    pub(crate) no_repack: bool,

    /// Most tensor bytes in a new shard, in GiB; fractions are allowed
    #[arg(long, value_name = "GIB", default_value = "4", value_parser = parse_gib)]
    pub(crate) shard_size_gb: u64,
}

/// `--dtype`
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Dtype {
    Bf16,
    F16,
    F32,
}

/// `--scale-fmt`
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum ScaleFmt {
    #[default]
    Ue8m0,
    Float32,
}

/// `--partial-blocks`
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum Partial {
    #[default]
    Quantize,
    Keep,
}

impl ViewArgs {
    /// The request that these flags make.
    pub(crate) fn request(&self) -> ViewRequest {
        let selected = self.fp8 || !self.reference.is_empty() || !self.fp8_pattern.is_empty();
        ViewRequest {
            base: absolute(&self.base),
            loras: self.lora.iter().map(absolute_lora).collect(),
            extras: self.extra.iter().map(|path| absolute(path)).collect(),
            renames: self.rename.clone(),
            only: self.only.clone(),
            drop: self.drop.clone(),
            dtype: self.dtype.map(|dtype| match dtype {
                Dtype::Bf16 => FloatType::Bf16,
                Dtype::F16 => FloatType::F16,
                Dtype::F32 => FloatType::F32,
            }),
            experts: match (self.unfuse_experts, self.fuse_experts) {
                (true, _) => Some(Experts::Unfuse),
                (_, true) => Some(Experts::Fuse),
                _ => None,
            },
            fp8: selected.then(|| Fp8Request {
                rules: self.fp8,
                references: self.reference.iter().map(|path| absolute(path)).collect(),
                patterns: self.fp8_pattern.clone(),
                scale_format: match self.scale_fmt {
                    ScaleFmt::Ue8m0 => ScaleFormat::Ue8m0,
                    ScaleFmt::Float32 => ScaleFormat::Float32,
                },
                partial_blocks: match self.partial_blocks {
                    Partial::Quantize => PartialBlocks::Quantize,
                    Partial::Keep => PartialBlocks::Keep,
                },
            }),
            repack: match (self.repack, self.no_repack) {
                (true, _) => Repack::Always,
                (_, true) => Repack::Never,
                _ => Repack::Auto,
            },
            shard_bytes: self.shard_size_gb,
        }
    }

    /// The directories that the view reads from.
    pub(crate) fn sources(&self) -> Vec<PathBuf> {
        let base = std::iter::once(&self.base);
        base.chain(self.lora.iter().map(|lora| &lora.adapter))
            .chain(&self.extra)
            .chain(&self.reference)
            .map(|path| absolute(path))
            .collect()
    }
}

/// A view outlives the working directory of the command that made it.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn absolute_lora(lora: &LoraRequest) -> LoraRequest {
    LoraRequest {
        adapter: absolute(&lora.adapter),
        ..lora.clone()
    }
}

/// `DIR`, or `DIR:WEIGHT` where what is behind the last colon is a number.
fn parse_lora(text: &str) -> Result<LoraRequest, String> {
    let (adapter, weight) = match text.rsplit_once(':') {
        Some((adapter, weight)) => match weight.parse() {
            Ok(weight) => (adapter, weight),
            Err(_) => (text, 1.0),
        },
        None => (text, 1.0),
    };
    match f64::is_finite(weight) {
        true => Ok(LoraRequest {
            adapter: adapter.into(),
            weight,
        }),
        false => Err(format!("the weight {weight} is not finite")),
    }
}

const UNITS: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// A number of bytes: `536870912`, `512MiB`, `1.5GiB`.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = UNITS
        .iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)))
        .unwrap_or((text, 1));
    scaled(number.trim(), unit)
        .ok_or_else(|| format!("{text:?} is not a size; write for example 512MiB or 1.5GiB"))
}

fn parse_pattern(text: &str) -> Result<String, String> {
    accepted(text, Selection::check_pattern(text))
}

fn parse_name_pattern(text: &str) -> Result<String, String> {
    accepted(text, Filter::new(&[text.to_owned()], &[]))
}

fn parse_rename(text: &str) -> Result<String, String> {
    accepted(text, Rename::new(&[text.to_owned()]))
}

fn accepted<T>(text: &str, check: ckptfs::Result<T>) -> Result<String, String> {
    check.map(|_| text.to_owned()).map_err(|e| e.to_string())
}

fn parse_gib(text: &str) -> Result<u64, String> {
    match scaled(text, 1 << 30) {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ => Err(format!(
            "{text:?} is not a shard size in GiB; write for example 4 or 0.5"
        )),
    }
}

fn scaled(number: &str, unit: u64) -> Option<u64> {
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit);
    }
    let bytes = number.parse::<f64>().ok()? * unit as f64;
    (bytes >= 0.0 && bytes < u64::MAX as f64).then_some(bytes as u64)
}
