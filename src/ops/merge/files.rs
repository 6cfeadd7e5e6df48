//! What a merge shows beside its tensors: config.json and tokenizer of one model.

use std::ffi::OsStr;
use std::sync::Arc;

use serde_json::Value;

use crate::catalog::{Catalog, Config};
use crate::error::{Code, Result, Warning};
use crate::ops::merge::definition::Definition;
use crate::ops::merge::inputs::{Run, Source, Stack};
use crate::ops::merge::names;
use crate::ops::merge::planner::Planned;
use crate::ops::merge::vocabulary::Rows;
use crate::source::AuxEntry;
use crate::tensor::Dtype;
use crate::text::listing;

/// What a loader needs beside the weights. Model cards and licenses speak of one model alone.
const SHOWN: [&str; 17] = [
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "added_tokens.json",
    "merges.txt",
    "vocab.json",
    "vocab.txt",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "normalizer.json",
    "configuration.json",
];

/// Those of [`SHOWN`] that do not belong to the tokenizer.
const OF_THE_MODEL: [&str; 3] = [
    "config.json",
    "generation_config.json",
    "configuration.json",
];

fn is_shown(name: &OsStr) -> bool {
    name.to_str()
        .is_some_and(|name| SHOWN.contains(&name) || name.ends_with(".py"))
}

/// Keeps the files that a merge shows, and takes those of a tokenizer from `tokenizer`, if that is
/// another model.
pub(in crate::ops) fn select(catalog: &mut Catalog, tokenizer: Option<Vec<AuxEntry>>) {
    let of_tokenizer = |entry: &AuxEntry| {
        let name = entry.name().to_str().unwrap_or_default();
        is_shown(entry.name()) && !OF_THE_MODEL.contains(&name) && !name.ends_with(".py")
    };
    let (mut shown, others): (Vec<_>, Vec<_>) = std::mem::take(&mut catalog.aux)
        .into_iter()
        .partition(|entry| is_shown(entry.name()));
    if let Some(tokenizer) = tokenizer {
        shown.retain(|entry| !of_tokenizer(entry));
        shown.extend(tokenizer.into_iter().filter(of_tokenizer));
        shown.sort_by(|a, b| a.name().cmp(b.name()));
    }
    catalog.aux = shown;
    let others: Vec<_> = others
        .iter()
        .map(|entry| entry.name().to_string_lossy())
        .collect();
    if !others.is_empty() {
        catalog.report.notes.push(format!(
            "not shown, since a merge is another model: {}",
            listing(&others)
        ));
    }
}

/// Gives files the text that they have now, and leaves out those that say the same of the tokenizer as it was.
pub(super) fn replace(catalog: &mut Catalog, changed: &[(&'static str, Vec<u8>)]) {
    const OF_SLOW_TOKENIZERS: [&str; 5] = [
        "tokenizer.model",
        "added_tokens.json",
        "merges.txt",
        "vocab.json",
        "vocab.txt",
    ];
    if changed.is_empty() {
        return;
    }
    let is_old = |entry: &AuxEntry| OF_SLOW_TOKENIZERS.iter().any(|name| entry.name() == *name);
    let (old, mut kept): (Vec<_>, Vec<_>) = std::mem::take(&mut catalog.aux)
        .into_iter()
        .partition(is_old);
    for (name, text) in changed {
        for entry in kept.iter_mut().filter(|entry| entry.name() == *name) {
            if let AuxEntry::File { name, file } | AuxEntry::Edited { name, file, .. } = entry {
                *entry = AuxEntry::Edited {
                    name: name.clone(),
                    file: file.clone(),
                    text: Arc::new(text.clone()),
                };
            }
        }
    }
    catalog.aux = kept;
    if !old.is_empty() {
        let names = old.iter().map(|entry| entry.name().to_string_lossy());
        catalog.report.notes.push(format!(
            "not shown, since the tokenizer has other tokens: {}",
            listing(&names.collect::<Vec<_>>())
        ));
    }
}

/// Edits the donor's config.json: dtype, number of layers, size of the vocabulary.
pub(super) fn edit_config(
    catalog: &mut Catalog,
    definition: &Definition,
    sources: &[Source],
    stacks: &[Stack],
    rows: &Rows,
    planned: &Planned,
) -> Result<()> {
    let Some(config) = catalog.config_mut()? else {
        return Ok(());
    };
    if let Some(dtype) = definition.out_dtype.or(definition.dtype) {
        set_dtype(config, dtype);
    }
    let mut warnings = Vec::new();
    for stack in stacks {
        warnings.extend(set_layers(config, sources, stack, definition.donor())?);
    }
    let embedding = planned
        .tensors
        .iter()
        .find(|(name, _)| names::is_vocabulary(name));
    let count = match (rows, embedding) {
        (Rows::Fewest, Some((_, tensor))) => Some(tensor.shape[0]),
        _ => rows.count(),
    };
    if let Some(count) = count
        && !set_if_present(config, &["vocab_size"], &Value::from(count))?
    {
        warnings.push(Warning::new(
            Code::ConfigNotUpdated,
            format!("config.json has no vocab_size; it should be {count}"),
        ));
    }
    catalog.report.warnings.extend(warnings);
    Ok(())
}

/// Says which dtype the tensors have, under the keys that the config has for that.
pub(in crate::ops) fn set_dtype(config: &mut Config, dtype: Dtype) {
    let mut keys: Vec<&str> = vec!["torch_dtype", "dtype"];
    keys.retain(|key| config.get(key).is_some());
    if keys.is_empty() {
        keys.push("torch_dtype");
    }
    for key in keys {
        config.set(key, &Value::from(torch_name(dtype)));
    }
}

/// Sets the first of `keys` that the config has, at the top level or in `text_config`.
fn set_if_present(config: &mut Config, keys: &[&str], value: &Value) -> Result<bool> {
    for key in keys {
        for outer in ["text_config", ""] {
            let found = match outer {
                "" => config.get(key),
                outer => config.get_in(outer, key),
            };
            let Some(found) = found else { continue };
            if found != *value {
                match outer {
                    "" => config.set(key, value),
                    outer => config.set_in(outer, key, value)?,
                }
            }
            return Ok(true);
        }
    }
    Ok(false)
}

/// The keys that say how many layers there are.
const LAYER_KEYS: [&str; 4] = ["num_hidden_layers", "n_layer", "num_layers", "n_layers"];

/// Lists in a config with an entry for each layer.
const PER_LAYER: [&str; 4] = [
    "layer_types",
    "mlp_layer_types",
    "layers_block_type",
    "no_rope_layers",
];

fn set_layers(
    config: &mut Config,
    sources: &[Source],
    stack: &Stack,
    donor: usize,
) -> Result<Vec<Warning>> {
    let Some(prefix) = stack.prefix.as_ref().filter(|_| !stack.whole) else {
        return Ok(Vec::new());
    };
    let layers: u64 = stack.runs.iter().map(|run| run.layers).sum();
    let mut warnings = Vec::new();
    if ["vision", "visual", "audio"]
        .iter()
        .any(|part| prefix.contains(part))
    {
        let had = sources[donor].layers(prefix, false);
        if had != layers {
            warnings.push(Warning::new(Code::ConfigNotUpdated, format!(
                "{prefix} has {layers} layers, and had {had} in the model that config.json is from: correct its number by hand"
            )));
        }
        return Ok(warnings);
    }
    if !set_if_present(config, &LAYER_KEYS, &Value::from(layers))? {
        warnings.push(Warning::new(
            Code::ConfigNotUpdated,
            format!("config.json does not say how many layers there are; there are {layers}"),
        ));
    }
    for key in PER_LAYER {
        if config.text_model(key).is_none_or(|value| !value.is_array()) {
            continue;
        }
        match per_layer(sources, &stack.runs, key) {
            Some(values) => {
                set_if_present(config, &[key], &Value::from(values))?;
            }
            None => warnings.push(Warning::new(
                Code::ConfigNotUpdated,
                format!(
                    "{key} in config.json keeps its value: the models do not show what it should be"
                ),
            )),
        }
    }
    for key in [
        "first_k_dense_replace",
        "decoder_sparse_step",
        "max_window_layers",
    ] {
        if config
            .text_model(key)
            .is_some_and(|value| value.as_u64().is_some_and(|n| n > 1))
        {
            warnings.push(Warning::new(Code::ConfigNotUpdated, format!(
                "{key} in config.json tells layers apart by their number, which slices change: check it"
            )));
        }
    }
    Ok(warnings)
}

/// The entries of the list `key` for the output's layers, each from the layer's first source.
fn per_layer(sources: &[Source], runs: &[Run], key: &str) -> Option<Vec<Value>> {
    let mut values = Vec::new();
    for run in runs {
        let source = &run.sources[0];
        let list = sources[source.model].config()?.text_model(key)?;
        let list = list.as_array()?;
        let range =
            usize::try_from(source.first).ok()?..usize::try_from(source.first + run.layers).ok()?;
        values.extend_from_slice(list.get(range)?);
    }
    Some(values)
}

/// What PyTorch calls a dtype.
pub(super) fn torch_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::BF16 => "bfloat16",
        Dtype::F16 => "float16",
        Dtype::F32 => "float32",
        _ => "float64",
    }
}
