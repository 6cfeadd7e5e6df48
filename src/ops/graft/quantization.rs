//! How a graft changes the quantization of a view: which weights may replace which, and what config.json
//! declares afterwards.
//!
//! Weights of a known scheme move with their companions, and config.json lists which are quantized.
//! Which tensors of other schemes belong together is not known here, so a graft then replaces only
//! modules that are plain numbers in both checkpoints.

use std::collections::{BTreeSet, HashSet};

use indexmap::{IndexMap, IndexSet};

use crate::catalog::{CONFIG_FILE, Catalog, Config, Tensor};
use crate::error::setting::{DTYPE, GRAFT};
use crate::error::{Code, Error, Hint, Result};
use crate::ops::graft::choice::Choice;
use crate::ops::graft::source::{Afterwards, GraftSource};
use crate::quant::{self, Declared, Group, Scheme, companions, group_of, is_coded, weight_of};
use crate::tensor::{Dtype, Name};
use crate::text::listing;

/// What changes.
#[derive(Debug)]
pub(super) struct Change {
    /// How the weights are quantized that the graft brings.
    scheme: Box<dyn Scheme>,
    /// What the graft's config.json says of it.
    declaration: Option<serde_json::Value>,
    /// Weights that are quantized in the graft.
    brought: HashSet<String>,
    /// Weights that are quantized now and were not, or the reverse.
    changed: HashSet<String>,
}

/// What becomes of the quantization of `catalog` by `choice` of `graft`; nothing, where numbers replace
/// numbers.
///
/// # Errors
/// If the weights that are grafted do not go with the view's.
pub(super) fn check(
    graft: &GraftSource,
    catalog: &mut Catalog,
    choice: &Choice,
) -> Result<Option<Change>> {
    if choice.taken.is_empty() {
        return Ok(None);
    }
    let ours = quant::declaration(catalog.config_mut()?.cloned().as_ref(), &catalog.aux)?;
    let config = Config::find(&graft.checkpoint.aux)?;
    let theirs = quant::declaration(config.as_ref(), &graft.checkpoint.aux)?;
    for (declared, whose) in [(&ours, "base"), (&theirs, "graft")] {
        if let Declared::Other(method) = declared {
            check_plain(
                graft,
                catalog,
                choice,
                &format!("the {whose} declares {method}"),
            )?;
        }
    }
    let (mut brought, mut changed) = (HashSet::new(), HashSet::new());
    for name in &choice.weights {
        let was = is_quantized(catalog, name, graft)?;
        let is = comes_quantized(graft, name)?;
        if is {
            brought.insert((*name).to_owned());
        }
        if is != was {
            changed.insert((*name).to_owned());
        }
    }
    if brought.is_empty() && changed.is_empty() {
        return Ok(None);
    }
    let change = Change {
        declaration: match &theirs {
            Declared::By { declaration, .. } => Some(declaration.clone()),
            _ => None,
        },
        scheme: theirs.into_scheme(),
        brought,
        changed,
    };
    change.check_scheme(graft, catalog, ours)?;
    change.check_brought(graft, choice)?;
    Ok(Some(change))
}

/// Checks that all that is replaced is plain numbers, and so are the modules that it is in, since
/// `reason`.
fn check_plain(
    graft: &GraftSource,
    catalog: &Catalog,
    choice: &Choice,
    reason: &str,
) -> Result<()> {
    let ours = catalog.tensors.iter();
    let ours = ours.map(|(name, tensor)| (&**name, tensor.dtype));
    let theirs = graft.checkpoint.tensors.keys();
    let theirs = theirs.filter_map(|name| Some((&**name, graft.checkpoint.tensor(name)?.dtype)));
    let mut odd: HashSet<&str> = HashSet::new();
    for (name, dtype) in ours.chain(theirs) {
        let is_number = matches!(dtype, Dtype::BF16 | Dtype::F16 | Dtype::F32 | Dtype::F64);
        let (module, parameter) = name.rsplit_once('.').unwrap_or((name, ""));
        if !is_number || !matches!(parameter, "weight" | "bias") {
            odd.insert(module);
        }
    }
    for name in &choice.weights {
        let (module, _) = name.rsplit_once('.').unwrap_or((name, ""));
        if odd.contains(module) {
            let problem = format!(
                "{reason}, and ckptfs does not know which tensors of that belong together; it grafts only modules that are plain floating-point numbers in both checkpoints, and {module} is not one"
            );
            let error = graft.error(Code::OtherQuantization, name, problem);
            return Err(
                error.with_hint("graft other tensors, by a regular expression of their names")
            );
        }
    }
    Ok(())
}

/// Whether the view has the weight `name` quantized.
///
/// # Errors
/// If it has codes without companions: what else belongs to it is not known.
fn is_quantized(catalog: &Catalog, name: &str, graft: &GraftSource) -> Result<bool> {
    let tensor = &catalog.tensors[name];
    if !is_coded(tensor.dtype) {
        return Ok(false);
    }
    if quant::stored(&catalog.tensors, name).is_some() {
        return Ok(true);
    }
    Err(without_scales(graft, name, "view", tensor.dtype))
}

/// Whether the graft has the weight `name` quantized.
///
/// # Errors
/// If it has codes without companions, or companions of numbers.
fn comes_quantized(graft: &GraftSource, name: &str) -> Result<bool> {
    let tensor = graft.checkpoint.tensor(name);
    let dtype = tensor.expect("it is one of the graft's").dtype;
    let companions = graft.companions(name);
    if is_coded(dtype) && !companions.is_empty() {
        return Ok(true);
    }
    match companions.first() {
        Some(companion) => {
            let problem = format!("these are scales, but {name} is {dtype} in the graft");
            Err(graft.error(Code::BadScales, companion, problem))
        }
        None if is_coded(dtype) => Err(without_scales(graft, name, "graft", dtype)),
        None => Ok(false),
    }
}

fn without_scales(graft: &GraftSource, name: &str, whose: &str, dtype: Dtype) -> Error {
    let expected: Vec<String> = companions(name).collect();
    let problem = format!(
        "it is {dtype} in the {whose}, without {}; ckptfs does not know which scales belong to it",
        expected.join(" or ")
    );
    let error = graft.error(Code::MissingScales, name, problem);
    error.with_hint("graft other tensors, by a regular expression of their names")
}

impl Change {
    /// Checks that the weights that are brought are quantized as those that stay in the view, and as
    /// its config.json says, which `ours` is.
    fn check_scheme(&self, graft: &GraftSource, catalog: &Catalog, ours: Declared) -> Result<()> {
        let brought = graft.checkpoint.tensors.keys().map(|name| &**name);
        let brought: Vec<&str> = brought
            .filter(|name| self.brought.contains(*name))
            .collect();
        let Some(&first) = brought.first() else {
            return Ok(());
        };
        let weights = catalog.tensors.keys().filter_map(|name| weight_of(name));
        let staying = weights.filter_map(|name| {
            let dtype = catalog.tensors.get(name)?.dtype;
            (is_coded(dtype) && !self.brought.contains(name)).then_some(dtype)
        });
        let staying: BTreeSet<Dtype> = staying.collect();
        let refuse = |name: &str, found: &str, expected: &str| {
            let problem = format!(
                "the graft is quantized in {found}, and the view in {expected}; {CONFIG_FILE} can declare only one of them"
            );
            let error = graft.error(Code::OtherQuantization, name, problem);
            Err(error
                .with_hint("dequantize one of them first, as a view of its own, and graft that"))
        };
        let is_declared = matches!(ours, Declared::By { .. });
        let (found, expected) = (self.scheme.geometry(), ours.into_scheme().geometry());
        if found != expected && (is_declared || !staying.is_empty()) {
            return refuse(first, &found, &expected);
        }
        for name in brought {
            let dtype = graft.checkpoint.tensor(name).map(|tensor| tensor.dtype);
            let other = staying.iter().find(|other| Some(**other) != dtype);
            if let (Some(dtype), Some(other)) = (dtype, other) {
                return refuse(name, &dtype.to_string(), &other.to_string());
            }
        }
        Ok(())
    }

    /// Checks the companions that are brought.
    fn check_brought(&self, graft: &GraftSource, choice: &Choice) -> Result<()> {
        for name in choice
            .weights
            .iter()
            .filter(|name| self.brought.contains(**name))
        {
            let (_, weight) = graft.tensor(name, None);
            let companions = self.scheme.companions(name).into_iter();
            let companions: Vec<Tensor> = companions
                .filter(|companion| choice.taken.contains(&**companion))
                .map(|companion| graft.tensor(&companion, None).1)
                .collect();
            if companions.len() != self.scheme.companions(name).len() {
                return Err(without_scales(graft, name, "graft", weight.dtype));
            }
            let companions: Vec<&Tensor> = companions.iter().collect();
            let checked = self.scheme.check(name, &weight, &companions);
            checked.map_err(|error| error.about_value(GRAFT, graft.text()))?;
        }
        Ok(())
    }
}

/// Has config.json say what is quantized in `catalog`, which has the tensors of `graft`.
///
/// # Errors
/// If it cannot, or engines could not load what is mixed.
pub(super) fn declare(
    graft: &GraftSource,
    catalog: &mut Catalog,
    change: Change,
    afterwards: Afterwards,
) -> Result<()> {
    let quantized: IndexSet<Name> = catalog
        .tensors
        .iter()
        .filter(|(name, tensor)| {
            is_coded(tensor.dtype) && quant::stored(&catalog.tensors, name).is_some()
        })
        .map(|(name, _)| name.clone())
        .collect();
    if !change.changed.is_empty() {
        if !afterwards.dequantizes && !afterwards.quantizes {
            check_layers(graft, &catalog.tensors, &quantized, &change.changed)?;
        }
        check_others(graft, catalog, &quantized)?;
    }
    if quantized.is_empty() {
        return quant::undeclare(catalog);
    }
    let warnings = catalog.report.warnings.len();
    change.scheme.declare_stored(
        catalog,
        &quantized,
        &|weight| change.brought.contains(weight),
        change.declaration.as_ref(),
        !change.changed.is_empty(),
    )?;
    if afterwards.dequantizes || afterwards.quantizes {
        // A later step removes this list or replaces it.
        catalog.report.warnings.truncate(warnings);
    } else {
        note_changes(catalog, &quantized, &change);
    }
    Ok(())
}

/// Notes which weights are quantized now and were not, and the reverse.
fn note_changes(catalog: &mut Catalog, quantized: &IndexSet<Name>, change: &Change) {
    let names = catalog.tensors.keys().map(|name| &**name);
    let changed = names.filter(|name| change.changed.contains(*name));
    let (now, before): (Vec<&str>, Vec<&str>) = changed.partition(|name| quantized.contains(*name));
    let mut notes = Vec::new();
    if !now.is_empty() {
        notes.push(format!(
            "quantized weights replace unquantized ones, and {CONFIG_FILE} declares them: {}",
            listing(&now)
        ));
    }
    if !before.is_empty() {
        notes.push(format!(
            "unquantized weights replace quantized ones, and {CONFIG_FILE} lists their modules: {}",
            listing(&before)
        ));
    }
    catalog.report.notes.extend(notes);
}

/// Checks that what engines load as one layer is quantized as one, where the graft `changed` a part of it.
fn check_layers(
    graft: &GraftSource,
    tensors: &IndexMap<Name, Tensor>,
    quantized: &IndexSet<Name>,
    changed: &HashSet<String>,
) -> Result<()> {
    let mut groups: IndexMap<Group, Vec<&str>> = IndexMap::new();
    for (name, tensor) in tensors {
        if let Some(group) = group_of(name, &tensor.shape) {
            groups.entry(group).or_default().push(name);
        }
    }
    for members in groups.values() {
        let is_changed = |name: &&&str| changed.contains(**name);
        let Some(grafted) = members.iter().find(is_changed) else {
            continue;
        };
        let is = quantized.contains(*grafted);
        let other = members.iter().find(|name| quantized.contains(**name) != is);
        if let Some(other) = other {
            let (is, other_is) = if is {
                ("quantized", "not")
            } else {
                ("not quantized", "quantized")
            };
            let problem = format!(
                "it would be {is} and {other} {other_is}, but engines load them as one layer"
            );
            let both = Hint::text("graft both, or neither");
            let one = Hint::give_value(DTYPE, "bf16").to("dequantize all");
            let error = graft.error(Code::MixedLayer, grafted, problem);
            return Err(error.with_hint(both.or(one)));
        }
    }
    Ok(())
}

/// Checks that there are no weights in codes beside those that are `quantized`, which config.json would
/// be wrong about.
fn check_others(graft: &GraftSource, catalog: &Catalog, quantized: &IndexSet<Name>) -> Result<()> {
    let mut tensors = catalog.tensors.iter();
    let other = tensors.find(|(name, tensor)| {
        let is_weight = is_coded(tensor.dtype) && tensor.shape.len() >= 2;
        let weight = weight_of(name);
        let is_scale = weight.is_some_and(|weight| quantized.contains(weight));
        is_weight && !is_scale && !quantized.contains(*name)
    });
    match other {
        Some((name, tensor)) => Err(without_scales(graft, name, "view", tensor.dtype)),
        None => Ok(()),
    }
}
