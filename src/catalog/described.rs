//! Parts of a model that config.json describes, and whether tensors of them are there: the layers of
//! the language model, and other modalities. What is not known to be a contradiction is none.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::catalog::{CONFIG_FILE, Config};
use crate::error::{Code, Warning};

const LAYERS_KEY: &str = "num_hidden_layers";
/// What else some models call the number of their layers.
const OTHER_LAYERS_KEYS: [&str; 3] = ["num_layers", "n_layer", "n_layers"];
/// Where multimodal models describe their language model.
const LANGUAGE_KEYS: [&str; 3] = ["text_config", "llm_config", "language_config"];
/// What a list of layers is called.
const LISTS: [&str; 4] = ["layers", "layer", "h", "blocks"];
/// What is around a list of layers for multi-token prediction, which are not among those that
/// [`LAYERS_KEY`] counts.
const MTP: &str = "mtp";

/// What describes a modality, and what parts of names of its tensors have in them.
const MODALITIES: [(&str, &[&str]); 2] = [
    ("vision_config", &["vision", "visual", "image"]),
    ("audio_config", &["audio", "speech"]),
];

/// The parts that a model has, by the names of its tensors.
#[derive(Debug, Default)]
pub struct Parts {
    /// The numbers of the layers of each list of them, by the list's name.
    layers: BTreeMap<String, BTreeSet<u64>>,
    modalities: BTreeSet<&'static str>,
}

impl Parts {
    /// The parts that tensors called `names` belong to.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut parts = Parts::default();
        for name in names {
            let mut modalities = MODALITIES.iter();
            if let Some((key, _)) = modalities.find(|(_, words)| has_one_of(name, words)) {
                parts.modalities.insert(key);
            } else if let Some((list, layer)) = layer_of(name)
                && !list.split('.').any(|part| part == MTP)
            {
                match parts.layers.get_mut(list) {
                    Some(layers) => {
                        layers.insert(layer);
                    }
                    None => {
                        parts.layers.insert(list.to_owned(), [layer].into());
                    }
                }
            }
        }
        parts
    }

    /// Says which layers are missing that `config` describes.
    pub fn missing_layers(&self, config: &Config) -> Option<Warning> {
        let declared = declared(config, LAYERS_KEY)?;
        let counts = OTHER_LAYERS_KEYS.into_iter();
        let counts = counts.filter_map(|key| self::declared(config, key));
        let complete = counts.chain([declared]).filter(|count| *count > 0);
        let mut lists = self.layers.iter();
        for count in complete {
            if lists
                .clone()
                .any(|(_, layers)| below(layers, count) == count)
            {
                return None;
            }
        }
        // Others are lists of modules that are shorter (MTP blocks, adapters of modalities).
        let first = lists.next()?;
        let (list, layers) = lists.fold(first, |longest, other| {
            if below(other.1, declared) > below(longest.1, declared) {
                other
            } else {
                longest
            }
        });
        (declared > 0).then(|| {
            Warning::new(Code::MissingLayers, format!(
                "{LAYERS_KEY} in {CONFIG_FILE} is {declared}, but {list} has no tensors of layer {}",
                missing(layers, declared)
            ))
        })
    }

    /// Says which modalities `config` describes and no tensor has the name of.
    pub fn missing_modalities(&self, config: &Config) -> Vec<Warning> {
        let described = |key: &str| config.get(key).is_some_and(|value| !value.is_null());
        let missing = MODALITIES
            .iter()
            .filter(|(key, _)| described(key) && !self.modalities.contains(key));
        let missing = missing.map(|(key, words)| {
            let words = words.join(" or ");
            Warning::new(
                Code::MissingLayers,
                format!("{key} is in {CONFIG_FILE}, but no tensor has a name with {words}"),
            )
        });
        missing.collect()
    }

    /// Says which parts that `config` describes are here, and not in `rest`.
    pub fn lost(&self, rest: &Parts, config: &Config) -> Vec<Warning> {
        let lost = self.modalities.difference(&rest.modalities);
        let described = lost.filter(|key| config.get(key).is_some_and(|value| !value.is_null()));
        let mut lost: Vec<Warning> = described
            .map(|key| {
                Warning::new(
                    Code::MissingLayers,
                    format!(
                        "{key} is in {CONFIG_FILE}, but the tensors that it describes are left out"
                    ),
                )
            })
            .collect();
        if let Some(declared) = declared(config, LAYERS_KEY)
            && !self.layers.is_empty()
            && rest.layers.is_empty()
        {
            lost.push(Warning::new(Code::MissingLayers, format!(
                "{LAYERS_KEY} in {CONFIG_FILE} is {declared}, but the tensors of all layers are left out"
            )));
        }
        lost
    }
}

/// A number of the language model.
fn declared(config: &Config, key: &str) -> Option<u64> {
    let nested = LANGUAGE_KEYS.iter();
    let nested = nested.filter_map(|outer| config.get_in(outer, key));
    let mut values = config.get(key).into_iter().chain(nested);
    values.find_map(|value| Value::as_u64(&value))
}

fn has_one_of(name: &str, words: &[&str]) -> bool {
    words.iter().any(|word| name.contains(word))
}

/// What follows the number of a layer of the language model in the name of a tensor inside of it.
pub(crate) fn in_layer(name: &str) -> Option<&str> {
    let is_of_modality = |(_, words): &(&str, &[&str])| has_one_of(name, words);
    if MODALITIES.iter().any(is_of_modality) {
        return None;
    }
    let (list, _) = layer_of(name)?;
    let after_list = &name[list.len() + 1..];
    Some(after_list.split_once('.')?.1)
}

/// `model.layers.7.mlp.experts.3.up_proj.weight` → (`model.layers`, 7).
fn layer_of(name: &str) -> Option<(&str, u64)> {
    let mut end = 0;
    for part in name.split('.') {
        if let Ok(layer) = part.parse::<u64>() {
            let list = &name[..end.max(1) - 1];
            let last = list.rsplit('.').next()?;
            return LISTS.contains(&last).then_some((list, layer));
        }
        end += part.len() + 1;
    }
    None
}

/// How many of `layers` have a number less than `count`.
fn below(layers: &BTreeSet<u64>, count: u64) -> u64 {
    layers.range(..count).count() as u64
}

/// The numbers less than `count` that are not in `layers`: `4, 7..9`.
fn missing(layers: &BTreeSet<u64>, count: u64) -> String {
    const SHOWN: usize = 4;
    let mut gaps = Vec::new();
    let mut next = 0;
    for &layer in layers.range(..count).chain([&count]) {
        match layer - next {
            0 => {}
            1 => gaps.push(next.to_string()),
            _ => gaps.push(format!("{next}..{}", layer - 1)),
        }
        next = layer.saturating_add(1);
    }
    let more = gaps.len().saturating_sub(SHOWN);
    gaps.truncate(SHOWN);
    match more {
        0 => gaps.join(", "),
        _ => format!("{}, …", gaps.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_in_a_name_counts_layers_if_it_is_in_a_list_of_them() {
        for (name, expected) in [
            ("model.layers.7.mlp.experts.3.w", Some(("model.layers", 7))),
            ("h.0.attn", Some(("h", 0))),
            (
                "bert.encoder.layer.11.output",
                Some(("bert.encoder.layer", 11)),
            ),
            ("encoder.conv_layers.0.w", None),
            ("classifier.0.layers.1.w", None),
            ("0.layers.1.w", None),
            ("model.norm.weight", None),
            ("", None),
        ] {
            assert_eq!(layer_of(name), expected, "{name}");
        }
    }

    #[test]
    fn missing_layers_are_ranges() {
        for (layers, count, expected) in [
            (&[0, 1, 2][..], 4, "3"),
            (&[0, 1, 5, 6], 6, "2..4"),
            (&[], 3, "0..2"),
            (&[1, 3, 5, 7, 9, 11], u64::MAX, "0, 2, 4, 6, …"),
        ] {
            let layers = layers.iter().copied().collect();
            assert_eq!(missing(&layers, count), expected);
        }
    }
}
