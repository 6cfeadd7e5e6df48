//! What config.json declares about quantization, and where.

use serde_json::Value;

use crate::catalog::{Catalog, Config};

pub(super) const KEY: &str = "quantization_config";
/// Where multimodal models keep the configuration of their language model.
pub(super) const TEXT_CONFIG: &str = "text_config";
pub(super) const METHOD_KEY: &str = "quant_method";
pub(super) const SKIP_KEY: &str = "modules_to_not_convert";
/// A declaration by another tool, which some loaders prefer.
const MODELOPT_FILE: &str = "hf_quant_config.json";

/// The declarations of the model and of the language model in it.
pub(super) fn declarations(config: &Config) -> Vec<Value> {
    [config.get(KEY), config.get_in(TEXT_CONFIG, KEY)]
        .into_iter()
        .flatten()
        .filter(|value| !value.is_null())
        .collect()
}

/// The modules that `declaration` leaves alone.
pub(super) fn skips(declaration: &Value) -> Vec<String> {
    let list = declaration.get(SKIP_KEY).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(|module| module.as_str().map(str::to_owned))
        .filter(|module| !module.is_empty())
        .collect()
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
