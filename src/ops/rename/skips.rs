//! `modules_to_not_convert` of a quantized source follows the tensors of its modules to their new
//! names.

use serde_json::Value;

use crate::catalog::{CONFIG_FILE, Catalog};
use crate::error::{Code, Result, Warning};
use crate::quant::{KEY, METHOD_KEY, SKIP_KEY, TEXT_CONFIG, skips};
use crate::tensor::Name;
use crate::text::listing;

/// The head, which is listed also where it is tied and has no tensor.
const HEAD: &str = "lm_head";

/// Renames the modules that the base's config.json lists, for the tensors of `catalog` that are to
/// have `names`, and warns of those that it cannot follow.
pub(super) fn follow(catalog: &mut Catalog, names: &[Name]) -> Result<()> {
    let mut renames: Vec<(Name, Name)> = catalog
        .tensors
        .keys()
        .cloned()
        .zip(names.iter().cloned())
        .collect();
    renames.sort_unstable();
    let mut warnings = Vec::new();
    match catalog.config_mut() {
        Err(error) => warnings.push(Warning::new(Code::ConfigNotUpdated, format!(
            "{CONFIG_FILE} cannot be read, and what it may say of modules keeps their old names: {error}"
        ))),
        Ok(None) => {}
        Ok(Some(config)) => {
            let top = config.get(KEY);
            if let Some(declared) = top.and_then(|d| followed(d, &renames, &mut warnings)) {
                config.set(KEY, &declared);
            }
            let nested = config.get_in(TEXT_CONFIG, KEY);
            if let Some(declared) = nested.and_then(|d| followed(d, &renames, &mut warnings)) {
                config.set_in(TEXT_CONFIG, KEY, &declared)?;
            }
        }
    }
    catalog.report.warnings.extend(warnings);
    Ok(())
}

/// `declared` with its list renamed, if that changes it.
fn followed(
    mut declared: Value,
    renames: &[(Name, Name)],
    warnings: &mut Vec<Warning>,
) -> Option<Value> {
    let method = declared.get(METHOD_KEY).filter(|method| *method != "fp8");
    if let Some(method) = method {
        warnings.push(Warning::new(Code::ConfigNotUpdated, format!(
            "{KEY} in {CONFIG_FILE} declares {METHOD_KEY} {method}, and what it says of modules keeps their old names"
        )));
        return None;
    }
    let old = skips(&declared);
    let (mut unknown, mut parted) = (Vec::new(), Vec::new());
    let mut new: Vec<String> = Vec::with_capacity(old.len());
    for module in &old {
        new.push(match new_name(module, renames) {
            Follow::Same => module.clone(),
            Follow::To(name) => name,
            Follow::Parted => {
                parted.push(module);
                module.clone()
            }
            Follow::Unknown => {
                if module != HEAD {
                    unknown.push(module);
                }
                module.clone()
            }
        });
    }
    for (modules, why) in [
        (parted, "whose tensors are renamed to different modules"),
        (unknown, "that no tensor of this view belongs to"),
    ] {
        if !modules.is_empty() {
            warnings.push(Warning::new(
                Code::ConfigNotUpdated,
                format!(
                    "{SKIP_KEY} in {CONFIG_FILE} keeps the names of modules {why}: {}",
                    listing(&modules)
                ),
            ));
        }
    }
    if new == old {
        return None;
    }
    declared[SKIP_KEY] = new.into();
    Some(declared)
}

/// What becomes of a module when tensors are renamed.
enum Follow {
    Same,
    To(String),
    /// Its tensors are in different modules then.
    Parted,
    /// It has no tensors.
    Unknown,
}

fn new_name(module: &str, renames: &[(Name, Name)]) -> Follow {
    let inside = format!("{module}.");
    let first = renames.partition_point(|(old, _)| **old < *inside);
    let tensors = renames[first..].iter();
    let mut tensors = tensors
        .take_while(|(old, _)| old.starts_with(&inside))
        .map(|(old, new)| new.strip_suffix(&old[module.len()..]))
        .peekable();
    let Some(&expected) = tensors.peek() else {
        return Follow::Unknown;
    };
    match expected {
        Some(_) if !tensors.all(|other| other == expected) => Follow::Parted,
        Some("") | None => Follow::Parted,
        Some(name) if name == module => Follow::Same,
        Some(name) => Follow::To(name.to_owned()),
    }
}
