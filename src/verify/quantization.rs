//! What config.json declares about quantization, against the tensors that are there.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use aho_corasick::AhoCorasick;
use serde_json::Value;

use crate::catalog::{CONFIG_FILE, values};
use crate::error::Result;
use crate::jobs::{self, Progress};
use crate::source::with_room;
use crate::tensor::{Dtype, SCALE_SUFFIX, scale_name, scaled_name};
use crate::text::counted;
use crate::verify::block_scales::Pair;
use crate::verify::findings::Faults;
use crate::verify::known_scales::KnownScales;
use crate::verify::structure::ShardFile;

const KEY: &str = "quantization_config";
const SKIP_KEY: &str = "modules_to_not_convert";
/// Where multimodal models keep the configuration of their language model.
const TEXT_CONFIG: &str = "text_config";
/// A declaration of another tool, which some loaders prefer.
const MODELOPT_FILE: &str = "hf_quant_config.json";
const DEFAULT_BLOCK: [u64; 2] = [128, 128];

/// Reads scales that are declared to be powers of two.
pub(super) struct ScaleReading<'a> {
    /// These need no reading.
    pub(super) known: &'a KnownScales,
    pub(super) jobs: usize,
    pub(super) progress: &'a dyn Progress,
}

/// Finds every contradiction between config.json and the tensors of `shards`, of which `pairs`
/// have scales. Returns how many tensors have scales that should have been read, but are known.
///
/// # Errors
/// If scales cannot be read.
pub(super) fn check(
    directory: &Path,
    shards: &[ShardFile],
    pairs: &[Pair],
    reading: &ScaleReading,
    faults: &mut Faults,
) -> Result<usize> {
    let declaration = declaration(directory, !pairs.is_empty(), faults);
    let block = declared_block(declaration.as_ref(), faults);
    for pair in pairs {
        pair.check(block, faults);
    }
    let Some(declaration) = declaration else {
        if !pairs.is_empty() {
            faults.problems.add(format!(
                "{CONFIG_FILE} has no {KEY}, but there are block scales ({SCALE_SUFFIX}) for {}",
                counted(pairs.len(), "tensor")
            ));
        }
        return Ok(0);
    };
    check_method(&declaration, shards, pairs, faults);
    let declares_powers_of_two = declaration
        .get("scale_fmt")
        .is_some_and(|fmt| fmt == "ue8m0");
    let known = match declares_powers_of_two {
        true => reading.check_powers_of_two(pairs, faults)?,
        false => 0,
    };
    if !pairs.is_empty() {
        check_skip_list(&declaration, shards, pairs, faults);
    }
    Ok(known)
}

/// The `quantization_config` that loaders go by.
fn declaration(directory: &Path, has_scales: bool, faults: &mut Faults) -> Option<Value> {
    let path = directory.join(CONFIG_FILE);
    let text = match with_room(|| fs::read(&path)) {
        Ok(text) => text,
        Err(e) => {
            let fault = format!("{CONFIG_FILE} cannot be read: {e}");
            faults.warnings.add(fault);
            return None;
        }
    };
    let config = match values(&text, &[KEY, TEXT_CONFIG]) {
        Ok(config) => config,
        Err(e) => {
            // Python's JSON also has NaN and Infinity, so loaders may still read it.
            let fault = format!("{CONFIG_FILE} cannot be read: {e}");
            faults.warnings.add(fault);
            return None;
        }
    };
    let declared = |config: &Value| config.get(KEY).filter(|value| !value.is_null()).cloned();
    let nested = config.get(TEXT_CONFIG).and_then(declared);
    let declaration = declared(&config);
    if has_scales && declaration.is_some() {
        if nested.is_some() {
            faults.warnings.add(format!(
                "{CONFIG_FILE} declares {KEY} twice, at the top level and in {TEXT_CONFIG}"
            ));
        }
        if directory.join(MODELOPT_FILE).exists() {
            faults.warnings.add(format!(
                "{MODELOPT_FILE} is there beside {KEY} in {CONFIG_FILE}, and some loaders prefer it"
            ));
        }
    }
    declaration.or(nested)
}

fn declared_block(declaration: Option<&Value>, faults: &mut Faults) -> [u64; 2] {
    let Some(size) = declaration.and_then(|declared| declared.get("weight_block_size")) else {
        return DEFAULT_BLOCK;
    };
    match serde_json::from_value::<Option<[u64; 2]>>(size.clone()) {
        Ok(Some([rows, columns])) if rows > 0 && columns > 0 => [rows, columns],
        Ok(None) => DEFAULT_BLOCK,
        _ => {
            faults.problems.add(format!(
                "{CONFIG_FILE}: weight_block_size is {size}; expected two numbers such as [128, 128]"
            ));
            DEFAULT_BLOCK
        }
    }
}

fn check_method(declaration: &Value, shards: &[ShardFile], pairs: &[Pair], faults: &mut Faults) {
    let method = &declaration["quant_method"];
    if method != "fp8" {
        if !pairs.is_empty() {
            faults.problems.add(format!(
                "{CONFIG_FILE} declares quant_method {method}, but there are block scales, which are of \"fp8\", for {}",
                counted(pairs.len(), "tensor")
            ));
        }
        return;
    }
    let has_blocks = declaration
        .get("weight_block_size")
        .is_some_and(|size| !size.is_null());
    if has_blocks && pairs.is_empty() {
        faults.problems.add(format!(
            "{CONFIG_FILE} declares block FP8, but no tensor has block scales ({SCALE_SUFFIX})"
        ));
    }
    let names: HashSet<&str> = shards
        .iter()
        .flat_map(|shard| shard.header.keys())
        .map(|name| &**name)
        .collect();
    for (name, tensor) in shards.iter().flat_map(|shard| &shard.header) {
        // Per-tensor FP8 checkpoints call their scales `X_scale`.
        let has_scales = names.contains(scale_name(name).as_str())
            || names.contains(format!("{name}_scale").as_str());
        if tensor.dtype == Dtype::F8_E4M3 && tensor.shape.len() >= 2 && !has_scales {
            faults
                .problems
                .add_item("FP8 weights without scales", &**name);
        }
    }
}

impl ScaleReading<'_> {
    /// Returns how many of `pairs` were not read, because their scales are known.
    fn check_powers_of_two(&self, pairs: &[Pair], faults: &mut Faults) -> Result<usize> {
        let (known, others): (Vec<&Pair>, Vec<&Pair>) =
            (pairs.iter()).partition(|pair| self.known.has(pair.name, pair.scales_device()));
        let bytes = others.iter().map(|pair| pair.bytes_to_read()).sum();
        if bytes > 0 {
            let what = format!(
                "the scales of {}, to see whether all are powers of two as {CONFIG_FILE} declares",
                counted(others.len(), "tensor")
            );
            self.progress.start_reading(&what, bytes);
        }
        let found = jobs::map(&others, self.jobs, |pair| {
            self.progress.file(Path::new(&scale_name(pair.name)));
            pair.first_other_than_power_of_two(self.progress)
        })?;
        for (pair, found) in others.iter().zip(found) {
            if let Some((position, scale)) = found {
                faults.problems.add_item(
                    format!(
                        "{CONFIG_FILE} declares scale_fmt \"ue8m0\", but scales are not all powers of two (some loaders round them)"
                    ),
                    format!("{} ({scale:e} at {position})", scale_name(pair.name)),
                );
            }
        }
        Ok(known.len())
    }
}

/// The list is matched by full name, by ancestor, by ending or by any part of the name, depending
/// on the loader.
fn check_skip_list(declaration: &Value, shards: &[ShardFile], pairs: &[Pair], faults: &mut Faults) {
    let listed = declaration.get(SKIP_KEY).and_then(Value::as_array);
    let entries: Vec<&str> = listed
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .filter(|entry| !entry.is_empty())
        .collect();
    let exact: HashSet<&str> = entries.iter().copied().collect();
    let anywhere = AhoCorasick::new(&entries).expect("a list of names can be searched for");
    let quantized: HashSet<&str> = pairs.iter().map(|pair| pair.name).collect();
    for pair in pairs {
        let module = module_of(pair.name);
        if let Some(entry) = itself_and_ancestors(module).find(|path| exact.contains(path)) {
            let fault =
                format!("modules that {SKIP_KEY} lists, although their weight is quantized");
            let item = match entry == module {
                true => module.to_owned(),
                false => format!("{module} (by {entry})"),
            };
            faults.problems.add_item(fault, item);
        } else if let Some(hit) = anywhere.find(module) {
            let entry = entries[hit.pattern().as_usize()];
            faults.warnings.add_item(
                format!(
                    "quantized modules whose path holds an entry of {SKIP_KEY}, which some loaders take for a match"
                ),
                format!("{module} (by {entry})"),
            );
        }
    }
    for (name, tensor) in shards.iter().flat_map(|shard| &shard.header) {
        let is_weight = name.ends_with(".weight") && tensor.shape.len() >= 2;
        if !is_weight || quantized.contains(&**name) || scaled_name(name).is_some() {
            continue;
        }
        let module = module_of(name);
        if !itself_and_ancestors(module).any(|path| exact.contains(path)) {
            let fault = format!("unquantized modules that {SKIP_KEY} does not list");
            faults.warnings.add_item(fault, module);
        }
    }
}

/// The module that a tensor belongs to: its name without the last part.
fn module_of(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(module, _)| module)
}

fn itself_and_ancestors(module: &str) -> impl Iterator<Item = &str> {
    let dots = module.rmatch_indices('.').map(|(dot, _)| &module[..dot]);
    std::iter::once(module).chain(dots)
}
