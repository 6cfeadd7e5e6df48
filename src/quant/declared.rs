//! What config.json declares about quantization, and where.

use indexmap::IndexSet;
use serde_json::Value;

use crate::catalog::{Catalog, Config, values};
use crate::error::Result;
use crate::quant::activations;
use crate::source::AuxEntry;

pub(crate) const KEY: &str = "quantization_config";
/// Where multimodal models keep the configuration of their language model.
pub(crate) const TEXT_CONFIG: &str = "text_config";
pub(crate) const METHOD_KEY: &str = "quant_method";
pub(crate) const SKIP_KEY: &str = "modules_to_not_convert";
/// Every key under which lists of modules that stay as they are stand. vLLM and SGLang look for the
/// second before the first; the third is that of compressed-tensors, the next two of ModelOpt, the
/// last of bitsandbytes.
pub(crate) const SKIP_KEYS: [&str; 6] = [
    SKIP_KEY,
    "ignored_layers",
    "ignore",
    "exclude_modules",
    "exclude",
    "llm_int8_skip_modules",
];
/// What compressed-tensors and ModelOpt quantize alike: for each group, which modules and how.
pub(super) const GROUPS_KEY: &str = "config_groups";
/// The modules of a group: names, expressions, or classes such as `Linear`.
pub(super) const TARGETS_KEY: &str = "targets";
/// Where older compressed-tensors checkpoints have their declaration.
pub(super) const COMPRESSION_KEY: &str = "compression_config";
/// A declaration by another tool, which some loaders prefer.
pub(crate) const MODELOPT_FILE: &str = "hf_quant_config.json";
/// The object of that file that declares.
pub(super) const MODELOPT_KEY: &str = "quantization";

/// The declarations of the model and of the language model in it.
pub(crate) fn declarations(config: &Config) -> Vec<Value> {
    [config.get(KEY), config.get_in(TEXT_CONFIG, KEY)]
        .into_iter()
        .flatten()
        .filter(|value| !value.is_null())
        .collect()
}

/// Every declaration, also where only older tools look for it.
pub(super) fn all_declarations(config: &Config) -> Vec<Value> {
    let mut all = declarations(config);
    all.extend(config.get(COMPRESSION_KEY).filter(|value| !value.is_null()));
    all
}

/// The declarations in `text`, a config.json; none if it cannot be read.
pub(super) fn declarations_in_text(text: &[u8]) -> Vec<Value> {
    let config = values(text, &[KEY, TEXT_CONFIG, COMPRESSION_KEY]).unwrap_or_default();
    let declared = [
        &config[KEY],
        &config[TEXT_CONFIG][KEY],
        &config[COMPRESSION_KEY],
    ];
    declared
        .into_iter()
        .filter(|value| !value.is_null())
        .cloned()
        .collect()
}

/// The declaration of another tool in `aux`, in the words of config.json.
pub(super) fn tool_declaration(aux: &[AuxEntry]) -> Option<Value> {
    let entry = aux.iter().find(|entry| entry.name() == MODELOPT_FILE)?;
    let text = match entry {
        AuxEntry::File { file, .. } => file.read_all(Config::MAX_BYTES).ok()?,
        AuxEntry::Edited { text, .. } => text.to_vec(),
        AuxEntry::Directory { .. } => return None,
    };
    let mut file: Value = serde_json::from_slice(&text).ok()?;
    let mut declaration = file.get_mut(MODELOPT_KEY)?.take();
    declaration
        .as_object_mut()?
        .insert(METHOD_KEY.to_owned(), "modelopt".into());
    Some(declaration)
}

/// The entries of all lists of modules that `declaration` leaves alone, each once.
pub(crate) fn skips(declaration: &Value) -> Vec<String> {
    let lists = SKIP_KEYS.iter().filter_map(|key| declaration.get(key));
    let entries = lists.filter_map(Value::as_array).flatten();
    let entries = entries.filter_map(|module| module.as_str().map(str::to_owned));
    let entries: IndexSet<String> = entries.filter(|module| !module.is_empty()).collect();
    entries.into_iter().collect()
}

/// The lists of modules that are quantized alike, each with the keys that lead to it in `declaration`.
pub(crate) fn target_lists(declaration: &Value) -> impl Iterator<Item = (Vec<&str>, &Vec<Value>)> {
    let groups = declaration.get(GROUPS_KEY).and_then(Value::as_object);
    groups.into_iter().flatten().filter_map(|(group, value)| {
        let list = value.get(TARGETS_KEY)?.as_array()?;
        Some((vec![GROUPS_KEY, group.as_str(), TARGETS_KEY], list))
    })
}

/// Takes the declaration of another tool out of the view, `because` it would contradict it.
pub(super) fn hide_modelopt(catalog: &mut Catalog, because: &str) {
    let shown = catalog.aux.len();
    catalog.aux.retain(|entry| entry.name() != MODELOPT_FILE);
    if catalog.aux.len() < shown {
        let note = format!("{MODELOPT_FILE} of the base is not shown: {because}");
        catalog.report.notes.push(note);
    }
}

/// Removes what declares a quantization, and the scales of activations that were declared with it.
///
/// # Errors
/// If config.json cannot be read or edited.
pub(crate) fn undeclare(catalog: &mut Catalog) -> Result<()> {
    let by_tool = tool_declaration(&catalog.aux).is_some();
    hide_modelopt(catalog, "no tensor of the view is quantized by it");
    let Some(config) = catalog.config_mut()? else {
        return Ok(());
    };
    let was_declared = by_tool || !all_declarations(config).is_empty();
    config.remove(KEY);
    config.remove(COMPRESSION_KEY);
    if config.get_in(TEXT_CONFIG, KEY).is_some() {
        config.remove_in(TEXT_CONFIG, KEY)?;
    }
    if was_declared {
        activations::remove(catalog);
    }
    Ok(())
}
