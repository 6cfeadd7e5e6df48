//! What the plan of a patch warns about: signs that the view is not what was meant.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::catalog::{Catalog, Config, Opened};
use crate::error::setting::{PATCH, REFERENCES};
use crate::error::{Code, Hint, Result, Warning};
use crate::ops::architecture;
use crate::quant::{companions, weight_of};
use crate::tensor::{Dtype, shape_text};
use crate::text::{counted, listing};

/// Compares `extra` with the catalog that it is about to be added to.
pub(super) fn warn_before(catalog: &mut Catalog, extra: &Opened) -> Result<()> {
    let added: Vec<&str> = extra
        .tensors
        .keys()
        .map(|name| &**name)
        .filter(|name| !catalog.tensors.contains_key(*name))
        .collect();
    let mut warnings = Vec::new();
    if added.is_empty() {
        let problem = "nothing is added: the base has all its tensors";
        warnings.push(Warning::new(Code::NoEffect, problem));
    }
    warnings.extend(full_quantization(catalog, &added));
    warnings.extend(foreign_dtypes(catalog, extra, &added));
    // A config that cannot be read is no obstacle to a patch; it only cannot be compared.
    let base_config = catalog.config_mut().unwrap_or_default().cloned();
    warnings.extend(foreign_layers(catalog, base_config.as_ref(), &added));
    warnings.extend(other_shapes(catalog, extra));
    if let (Some(base), Ok(Some(extra))) = (&base_config, Config::find(&extra.aux)) {
        warnings.extend(architecture::differs(base, &extra, "extra"));
    }
    let directory = extra.path.display().to_string();
    let warnings = warnings.into_iter();
    let warnings = warnings.map(|warning| warning.about_value(PATCH, &*directory));
    catalog.report.warnings.extend(warnings);
    Ok(())
}

fn full_quantization(catalog: &Catalog, added: &[&str]) -> Option<Warning> {
    let scales_of_base = added
        .iter()
        .filter_map(|name| weight_of(name))
        .filter(|weight| catalog.tensors.contains_key(*weight))
        .count();
    (scales_of_base > 0).then(|| {
        let problem = format!(
            "it looks like a quantization of the base: it adds {} ({}) of the base's own weights, which stay unquantized",
            counted(scales_of_base, "scale tensor"),
            companions("*").collect::<Vec<_>>().join(", ")
        );
        let warning = Warning::new(Code::QuantizedExtra, problem);
        warning.with_hint(Hint::Instead {
            setting: REFERENCES,
            of: PATCH,
        })
    })
}

/// Added tensors of a dtype that the base does not have. Scales follow their weights.
fn foreign_dtypes(catalog: &Catalog, extra: &Opened, added: &[&str]) -> Option<Warning> {
    let known: BTreeSet<Dtype> = catalog.tensors.values().map(|t| t.dtype).collect();
    let mut foreign: BTreeMap<Dtype, Vec<&str>> = BTreeMap::new();
    for name in added {
        let Some(dtype) = extra.tensor(name).map(|tensor| tensor.dtype) else {
            continue;
        };
        if !known.contains(&dtype) && weight_of(name).is_none() {
            foreign.entry(dtype).or_default().push(name);
        }
    }
    let parts: Vec<String> = foreign
        .iter()
        .map(|(dtype, names)| format!("{dtype} ({})", listing(names)))
        .collect();
    (!parts.is_empty()).then(|| {
        Warning::new(
            Code::MixedDtypes,
            format!(
                "added tensors have dtypes that no tensor of the base has: {}",
                parts.join("; ")
            ),
        )
    })
}

/// Added layers beyond those that the base's config, or else its own numbering, leaves room for.
/// Multi-token prediction blocks are numbered behind the last layer.
fn foreign_layers(catalog: &Catalog, config: Option<&Config>, added: &[&str]) -> Option<Warning> {
    let number = |key| config?.text_model(key)?.as_u64();
    let declared = number("num_hidden_layers");
    let predictors = number("num_nextn_predict_layers").unwrap_or(0).max(1);
    let mut base_layers: HashMap<&str, u64> = HashMap::new();
    for name in catalog.tensors.keys() {
        if let Some((prefix, layer)) = layer_of(name) {
            let last = base_layers.entry(prefix).or_insert(layer);
            *last = layer.max(*last);
        }
    }
    let mut outside: BTreeSet<(&str, u64, u64)> = BTreeSet::new();
    for name in added {
        if let Some((prefix, layer)) = layer_of(name)
            && let Some(last) = base_layers.get(prefix)
        {
            let layers = declared.unwrap_or(0).max(last.saturating_add(1));
            if layer >= layers.saturating_add(predictors) {
                outside.insert((prefix, layer, layers));
            }
        }
    }
    let parts: Vec<String> = outside
        .iter()
        .map(|(prefix, layer, layers)| format!("{prefix}{layer} (the base has {layers} layers)"))
        .collect();
    (!parts.is_empty()).then(|| {
        Warning::new(
            Code::OtherArchitecture,
            format!(
                "added layer numbers do not fit the base: {}",
                listing(&parts)
            ),
        )
    })
}

/// `model.layers.7.mlp.gate.weight` → (`model.layers.`, 7).
fn layer_of(name: &str) -> Option<(&str, u64)> {
    const LAYERS: &str = "layers.";
    let start = if name.starts_with(LAYERS) {
        LAYERS.len()
    } else {
        name.find(".layers.")? + 1 + LAYERS.len()
    };
    let number = name[start..].split('.').next()?;
    Some((&name[..start], number.parse().ok()?))
}

fn other_shapes(catalog: &Catalog, extra: &Opened) -> Option<Warning> {
    let differing: Vec<String> = extra
        .tensors
        .keys()
        .filter_map(|name| {
            let (ours, theirs) = (catalog.tensors.get(name)?, extra.tensor(name)?);
            (ours.shape != theirs.shape).then(|| {
                format!(
                    "{name} is {} in the base and {} in the extra",
                    shape_text(&ours.shape),
                    shape_text(&theirs.shape)
                )
            })
        })
        .collect();
    (!differing.is_empty()).then(|| {
        Warning::new(
            Code::OtherArchitecture,
            format!(
                "base and extra look like different architectures: {}",
                listing(&differing)
            ),
        )
    })
}
