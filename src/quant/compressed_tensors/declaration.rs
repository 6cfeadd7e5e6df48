//! What config.json says of compressed-tensors: read from a source, and declared of a view.

use std::path::Path;

use indexmap::IndexSet;
use serde_json::{Value, json};

use crate::catalog::{CONFIG_FILE, Catalog, Config};
use crate::error::setting::DTYPE;
use crate::error::{Code, Error, Hint, Result};
use crate::quant::compressed_tensors::format::{Form, Kind, METHOD, Strategy, Weights};
use crate::quant::declared::{
    KEY, METHOD_KEY, SKIP_KEYS, TEXT_CONFIG, declarations, hide_modelopt, skips,
};
use crate::quant::scheme::Scheme;
use crate::quant::skip_list;
use crate::tensor::Name;

/// Where compressed-tensors lists modules that stay as they are.
pub(in crate::quant) const IGNORE: &str = "ignore";
const GROUPS: &str = "config_groups";

/// What activations are quantized to while a model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activations {
    /// They are not.
    None,
    /// To the type of the weights, a scale for each token.
    Tokens,
    /// To the type of the weights, a scale for so many elements of a token.
    Groups(u64),
}

/// The weights that all groups of `declaration` describe; `None` if it is not of this method, and what is
/// not known of it, for messages, if it is.
pub(super) fn weights(declaration: &Value) -> Option<std::result::Result<Weights, String>> {
    if declaration
        .get(METHOD_KEY)
        .is_none_or(|method| method != METHOD)
    {
        return None;
    }
    let sparse = declaration["sparsity_config"]["format"].as_str();
    if let Some(sparse) = sparse.filter(|format| *format != "dense") {
        return Some(Err(format!("the sparsity_config {sparse}")));
    }
    let groups = declaration.get(GROUPS).and_then(Value::as_object);
    let mut all: Option<Weights> = None;
    for group in groups.into_iter().flat_map(|groups| groups.values()) {
        let weights = match group.get("weights") {
            None | Some(Value::Null) => continue,
            Some(arguments) => match Weights::parse(arguments) {
                Ok(weights) => weights,
                Err(unknown) => return Some(Err(unknown)),
            },
        };
        let format = [group, declaration].map(|object| object["format"].as_str());
        let format = format.into_iter().flatten().next().unwrap_or_default();
        let is_packed = weights.form().is_some_and(|form| form != Form::Dense);
        if weights.form().is_none() || is_packed != (format == "pack-quantized") {
            let kind = weights.kind;
            return Some(Err(format!("the format {format:?} of {kind:?}")));
        }
        if all.is_some_and(|all| all != weights) {
            return Some(Err("several kinds of weights".to_owned()));
        }
        all = Some(weights);
    }
    Some(all.ok_or_else(|| format!("{GROUPS} without weights")))
}

/// The form in which `declaration` has weights, if it is one that can be read.
pub(super) fn form(declaration: &Value) -> Option<Form> {
    weights(declaration)?.ok()?.form()
}

/// The weights of `declarations`, all of which have a form, in the config.json `path`.
///
/// # Errors
/// If they are not the same.
pub(super) fn declared(declarations: &[Value], path: &Path) -> Result<Option<Weights>> {
    let mut all = declarations.iter().filter_map(|d| weights(d)?.ok());
    let first = all.next();
    match all.find(|other| Some(*other) != first) {
        None => Ok(first),
        Some(_) => {
            let problem = format!("{KEY} declares several kinds of weights");
            Err(Error::of_file(Code::BadConfig, path, problem).with_hint("remove one"))
        }
    }
}

/// Checks that the base can be described so: its config.json is there and declares nothing.
///
/// # Errors
/// If it is not.
pub(in crate::quant) fn check_base(catalog: &mut Catalog) -> Result<()> {
    let directory = catalog.report.sources[0].path.clone();
    let Some(config) = catalog.config_mut()? else {
        return Err(missing_config(&directory));
    };
    match declarations(config).first() {
        None => Ok(()),
        Some(declared) => {
            let method = declared.get(METHOD_KEY).unwrap_or(&Value::Null);
            let problem = format!(
                "{KEY} declares {METHOD_KEY} {method} already, and a view has one quantization"
            );
            let dequantize = Hint::give_value(DTYPE, "bf16").to("dequantize it first");
            let error = Error::of_file(Code::OtherQuantization, config.path(), problem);
            Err(error.with_hint(dequantize.or("start from the unquantized checkpoint")))
        }
    }
}

/// Declares that the tensors `quantized` of the finished catalog are `weights`.
pub(super) fn declare(
    catalog: &mut Catalog,
    scheme: &dyn Scheme,
    quantized: &IndexSet<Name>,
    weights: Weights,
    activations: Activations,
) -> Result<()> {
    if quantized.is_empty() {
        return Ok(());
    }
    let skipped = skip_list::build(scheme, catalog, quantized, Vec::new());
    let ignored: Vec<String> = skipped.entries.into_iter().collect();
    let format = match weights.kind {
        Kind::Float8 => "float-quantized",
        Kind::Int8 => "int-quantized",
        Kind::Int4 => "pack-quantized",
    };
    let declaration = json!({
        METHOD_KEY: METHOD,
        "format": format,
        "quantization_status": "compressed",
        "global_compression_ratio": null,
        "kv_cache_scheme": null,
        GROUPS: {
            "group_0": {
                "targets": ["Linear"],
                "weights": of_weights(weights),
                "input_activations": of_activations(weights.kind, activations),
                "output_activations": null,
                "format": format,
            },
        },
        IGNORE: ignored,
    });
    let config = catalog
        .config_mut()?
        .expect("check_base found a config.json");
    replace(config, &declaration)?;
    hide_modelopt(catalog, &format!("{KEY} in {CONFIG_FILE} takes its place"));
    Ok(())
}

fn replace(config: &mut Config, declaration: &Value) -> Result<()> {
    config.set(KEY, declaration);
    config.remove_in(TEXT_CONFIG, KEY)
}

/// As [`Scheme::declare_stored`], once, at the top level: the others are listed under `relisted`, if they are.
pub(in crate::quant) fn declare_stored(
    scheme: &dyn Scheme,
    catalog: &mut Catalog,
    quantized: &IndexSet<Name>,
    theirs: Option<&Value>,
    relisted: Option<&str>,
) -> Result<()> {
    let directory = catalog.report.sources[0].path.clone();
    let ours = match catalog.config_mut()? {
        Some(config) => declarations(config),
        None => return Err(missing_config(&directory)),
    };
    let Some(declared) = ours.first().or(theirs) else {
        let method = scheme.name();
        let problem = format!("nothing declares how these weights of {method} are quantized");
        return Err(Error::of_file(
            Code::BadConfig,
            directory.join(CONFIG_FILE),
            problem,
        ));
    };
    let mut declaration = declared.clone();
    if let Some(key) = relisted {
        let declared = ours.iter().flat_map(skips).collect();
        let skipped = skip_list::build(scheme, catalog, quantized, declared);
        if let Some(declaration) = declaration.as_object_mut() {
            declaration.retain(|key, _| !SKIP_KEYS.contains(&key.as_str()));
        }
        declaration[key] = skipped.entries.into_iter().collect();
    }
    if ours == [declaration.clone()] {
        return Ok(());
    }
    let config = catalog.config_mut()?.expect("it was found above");
    replace(config, &declaration)?;
    hide_modelopt(catalog, &format!("{KEY} in {CONFIG_FILE} takes its place"));
    Ok(())
}

fn missing_config(directory: &Path) -> Error {
    let problem = "this file is missing, and a quantized view must declare its quantization there";
    Error::of_file(Code::BadConfig, directory.join(CONFIG_FILE), problem)
}

fn of_weights(weights: Weights) -> Value {
    let (kind, bits) = type_and_bits(weights.kind);
    let (strategy, group, block) = match weights.strategy {
        Strategy::Tensor => ("tensor", Value::Null, Value::Null),
        Strategy::Channel => ("channel", Value::Null, Value::Null),
        Strategy::Group(size) => ("group", json!(size), Value::Null),
        Strategy::Block(block) => ("block", Value::Null, json!(block)),
    };
    json!({
        "num_bits": bits,
        "type": kind,
        "symmetric": weights.symmetric,
        "strategy": strategy,
        "group_size": group,
        "block_structure": block,
        "dynamic": false,
        "actorder": null,
        "observer": "memoryless_minmax",
        "observer_kwargs": {},
    })
}

fn of_activations(kind: Kind, activations: Activations) -> Value {
    let (kind, bits) = type_and_bits(kind);
    let (strategy, group) = match activations {
        Activations::None => return Value::Null,
        Activations::Tokens => ("token", Value::Null),
        Activations::Groups(size) => ("group", json!(size)),
    };
    json!({
        "num_bits": bits,
        "type": kind,
        "symmetric": true,
        "strategy": strategy,
        "group_size": group,
        "block_structure": null,
        "dynamic": true,
        "actorder": null,
        "observer": null,
        "observer_kwargs": {},
    })
}

fn type_and_bits(kind: Kind) -> (&'static str, u64) {
    match kind {
        Kind::Float8 => ("float", 8),
        Kind::Int8 => ("int", 8),
        Kind::Int4 => ("int", 4),
    }
}
