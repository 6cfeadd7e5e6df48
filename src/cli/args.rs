//! Flags as typed, and the request they make. Nothing past this file sees a flag.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{ArgGroup, Args, ValueEnum};

use ckptfs::jobs::MAX_THREADS;
use ckptfs::ops::{Filter, Rename};
use ckptfs::recipe::{
    DEFAULT_SHARD_BYTES, DTYPES, Experts, LoraRequest, PartialBlocks, Places, Precision, Repack,
    ScaleFormat, Selection, ViewRequest, parse_dtype, parse_shard_size,
};

use crate::cli::waiting::note_silent_mount;

/// Which view: the flags that every command on a view has.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("selection").multiple(true).args(["fp8", "reference", "fp8_pattern", "recipe"])))]
pub(crate) struct ViewArgs {
    /// Checkpoint directory that the view starts from
    #[arg(
        long,
        visible_alias = "source",
        value_name = "DIR",
        required_unless_present = "recipe",
        conflicts_with = "recipe"
    )]
    pub(crate) base: Option<PathBuf>,

    /// Recipe of the view instead of a base: a merge as mergekit describes it, or a list of what
    /// the flags below say; flags given besides win over it, or add to its lists
    #[arg(long, value_name = "FILE")]
    pub(crate) recipe: Option<PathBuf>,

    /// Directory of a model that the recipe names (repeatable); others are looked for beside the
    /// recipe and in the cache of the Hugging Face hub
    #[arg(long, value_name = "ID=DIR", value_parser = parse_model, conflicts_with = "base")]
    pub(crate) model: Vec<(String, PathBuf)>,

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
    #[arg(long, value_name = "REGEX", value_parser = parse_only)]
    pub(crate) only: Vec<String>,

    /// Leave out the tensors whose whole name matches this regular expression (repeatable)
    #[arg(long, value_name = "REGEX", value_parser = parse_drop)]
    pub(crate) drop: Vec<String>,

    /// Give every floating tensor in this dtype; block FP8 is dequantized
    #[arg(long, value_parser = dtypes(), ignore_case = true)]
    pub(crate) dtype: Option<Precision>,

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
    /// [default: ue8m0]
    #[arg(long, value_enum, requires = "selection")]
    pub(crate) scale_fmt: Option<ScaleFmt>,

    /// What to do with tensors whose last two dimensions are not multiples of 128
    /// [default: quantize]
    #[arg(long, value_enum, requires = "selection")]
    pub(crate) partial_blocks: Option<Partial>,

    /// Pack all tensors into new shards of the standard names
    #[arg(long, conflicts_with = "no_repack")]
    pub(crate) repack: bool,

    /// Keep the base's shards even if their names are not standard
    #[arg(long)]
    pub(crate) no_repack: bool,

    /// Pack all tensors into one model.safetensors without an index
    #[arg(long, conflicts_with_all = ["no_repack", "shard_size"])]
    pub(crate) single_file: bool,

    /// Maximum of tensor bytes in a new shard; a number without a unit is in GiB [default: 4GiB]
    #[arg(long, alias = "shard-size-gb", value_name = "SIZE", value_parser = parse_shard_size)]
    pub(crate) shard_size: Option<u64>,
}

/// `--scale-fmt`
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum ScaleFmt {
    Ue8m0,
    #[value(aliases = ["f32", "fp32"])]
    Float32,
}

/// `--partial-blocks`
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Partial {
    Quantize,
    Keep,
}

/// The same, where the base or recipe may also be the first argument.
#[derive(Debug, Args)]
#[command(mut_arg("base", |base| base.required_unless_present_any(["start", "recipe"])))]
pub(crate) struct ViewOrDir {
    /// Checkpoint directory that the view starts from, as --base; or a recipe (a file), as --recipe
    #[arg(value_name = "DIR", conflicts_with_all = ["base", "recipe"], group = "selection")]
    start: Option<PathBuf>,

    #[command(flatten)]
    view: ViewArgs,
}

impl ViewOrDir {
    /// The flags that say the same.
    pub(crate) fn into_view(self) -> ViewArgs {
        let mut view = self.view;
        // A shard or a config.json is no recipe: as a base, the error says what it is.
        let is_recipe = |path: &Path| {
            let extension = path.extension().unwrap_or_default();
            path.exists() && !path.is_dir() && extension != "safetensors" && extension != "json"
        };
        match self.start {
            Some(file) if is_recipe(&file) => view.recipe = Some(file),
            Some(directory) => view.base = Some(directory),
            None => {}
        }
        view
    }
}

impl ViewArgs {
    /// The request that these flags make, on top of the recipe if one is given: what is one thing
    /// replaces the recipe's, lists go on.
    pub(crate) fn request(&self) -> ckptfs::Result<ViewRequest> {
        let named = [&self.base, &self.recipe].into_iter().flatten();
        let adapters = self.lora.iter().map(|lora| &lora.adapter);
        let named = named
            .chain(adapters)
            .chain(&self.extra)
            .chain(&self.reference);
        named.for_each(|path| note_silent_mount(path));
        let places = Places::from_environment(self.model.clone());
        let mut request = match (&self.recipe, &self.base) {
            (Some(recipe), _) => ViewRequest::from_recipe(&absolute(recipe), &places)?,
            (None, Some(base)) if self.model.is_empty() => {
                ViewRequest::new(places.directory(base)?)
            }
            (None, Some(_)) => {
                return Err(ckptfs::Error::Request(
                    "--model is about a recipe, and there is none; leave it out".to_owned(),
                ));
            }
            (None, None) => unreachable!("one of them is required"),
        };
        let all = |paths: &[PathBuf]| {
            let paths = paths.iter().map(|path| places.directory(path));
            paths.collect::<ckptfs::Result<Vec<_>>>()
        };
        for lora in &self.lora {
            request.loras.push(LoraRequest {
                adapter: places.directory(&lora.adapter)?,
                ..lora.clone()
            });
        }
        request.extras.extend(all(&self.extra)?);
        request.renames.extend(self.rename.iter().cloned());
        request.only.extend(self.only.iter().cloned());
        request.drop.extend(self.drop.iter().cloned());
        request.dtype = self.dtype.or(request.dtype);
        match (self.unfuse_experts, self.fuse_experts) {
            (true, _) => request.experts = Some(Experts::Unfuse),
            (_, true) => request.experts = Some(Experts::Fuse),
            _ => {}
        }
        if self.fp8 || !self.reference.is_empty() || !self.fp8_pattern.is_empty() {
            let fp8 = request.fp8.get_or_insert_default();
            fp8.rules |= self.fp8;
            fp8.references.extend(all(&self.reference)?);
            fp8.patterns.extend(self.fp8_pattern.iter().cloned());
        }
        self.options(&mut request)?;
        match (self.repack, self.no_repack) {
            (true, _) => request.repack = Repack::Always,
            (_, true) => request.repack = Repack::Never,
            _ => {}
        }
        if let Some(bytes) = self.shard_size {
            request.shard_bytes = bytes;
            if request.repack == Repack::SingleFile {
                // The recipe's; the flag wins.
                request.repack = Repack::Always;
            }
        }
        if self.single_file {
            request.repack = Repack::SingleFile;
            request.shard_bytes = DEFAULT_SHARD_BYTES;
        }
        Ok(request)
    }

    /// The options of the quantization.
    fn options(&self, request: &mut ViewRequest) -> ckptfs::Result<()> {
        if self.scale_fmt.is_none() && self.partial_blocks.is_none() {
            return Ok(());
        }
        let Some(fp8) = &mut request.fp8 else {
            return Err(ckptfs::Error::Request(
                "--scale-fmt and --partial-blocks say how to quantize, and neither the recipe nor a flag says what".to_owned(),
            ));
        };
        fp8.scale_format = match self.scale_fmt {
            Some(ScaleFmt::Ue8m0) => ScaleFormat::Ue8m0,
            Some(ScaleFmt::Float32) => ScaleFormat::Float32,
            None => fp8.scale_format,
        };
        fp8.partial_blocks = match self.partial_blocks {
            Some(Partial::Quantize) => PartialBlocks::Quantize,
            Some(Partial::Keep) => PartialBlocks::Keep,
            None => fp8.partial_blocks,
        };
        Ok(())
    }
}

/// A view outlives the working directory of the command that made it.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
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

/// `ID=DIR`
pub(crate) fn parse_model(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((id, directory)) if !id.is_empty() && !directory.is_empty() => {
            Ok((id.to_owned(), absolute(Path::new(directory))))
        }
        _ => Err(format!(
            "{text:?} is not ID=DIR, such as org/model=/models/model"
        )),
    }
}

fn parse_pattern(text: &str) -> Result<String, String> {
    accepted(text, Selection::check_pattern(text))
}

fn parse_only(text: &str) -> Result<String, String> {
    accepted(text, Filter::new(&[text.to_owned()], &[]))
}

fn parse_drop(text: &str) -> Result<String, String> {
    accepted(text, Filter::new(&[], &[text.to_owned()]))
}

fn parse_rename(text: &str) -> Result<String, String> {
    accepted(text, Rename::new(&[text.to_owned()]))
}

fn accepted<T>(text: &str, check: ckptfs::Result<T>) -> Result<String, String> {
    check.map(|_| text.to_owned()).map_err(|e| e.to_string())
}

/// The names of dtypes, of which others than ours are not listed.
fn dtypes() -> impl TypedValueParser<Value = Precision> {
    let names = DTYPES.map(|(_, names)| {
        let (first, others) = names.split_first().expect("each has a name");
        PossibleValue::new(*first).aliases(others.iter().copied())
    });
    let named = |name: String| parse_dtype(&name).expect("one of the names");
    PossibleValuesParser::new(names).map(named)
}

/// A number of threads.
pub(crate) fn parse_threads(text: &str) -> Result<NonZeroUsize, String> {
    match text.parse::<NonZeroUsize>() {
        Ok(count) if count.get() <= MAX_THREADS => Ok(count),
        _ => Err(format!("{text:?} is not a number from 1 to {MAX_THREADS}")),
    }
}
