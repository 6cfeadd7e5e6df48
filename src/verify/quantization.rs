//! What config.json declares about quantization, against the tensors that are there.

use std::collections::HashSet;

use aho_corasick::AhoCorasick;
use serde_json::Value;

use crate::catalog::{CONFIG_FILE, values};
use crate::error::{Code, Result, Warning};
use crate::findings::Faults;
use crate::jobs::Progress;
use crate::quant::{
    self, Entry, KEY, MODELOPT_FILE, Reading, SKIP_KEY, SKIP_KEYS, StoredFile, TEXT_CONFIG,
    Verified, is_class, target_lists, weight_of,
};
use crate::verify::known_scales::KnownScales;
use crate::verify::place::Place;
use crate::verify::shard_file::ShardFile;

/// Finds every contradiction between config.json and the tensors of `shards`. Returns how many
/// tensors have scales that should have been read, but are known.
///
/// # Errors
/// If scales cannot be read.
pub(super) fn check(
    place: &Place,
    shards: &[ShardFile],
    known: &KnownScales,
    jobs: usize,
    progress: &dyn Progress,
    faults: &mut Faults,
) -> Result<usize> {
    let declared = declaration(place, faults);
    let stored: Vec<StoredFile> = shards.iter().map(ShardFile::stored).collect();
    let reading = Reading {
        is_known: &|name, device| known.has(name, device),
        jobs,
        progress,
    };
    let found = quant::verify(declared.used.as_ref(), &stored, &reading, faults)?;
    if let Some(declaration) = &declared.used {
        check_targets(declaration, shards, faults);
    }
    if let Some(declaration) = declared.used
        && !found.quantized.is_empty()
    {
        for doubt in declared.doubts {
            faults.warnings.add_warning(doubt);
        }
        check_skip_list(&declaration, shards, &found, faults);
    }
    Ok(found.known)
}

/// What config.json declares.
#[derive(Default)]
struct Declared {
    /// The `quantization_config` that loaders go by.
    used: Option<Value>,
    /// What may have another effect than meant, if there are quantized tensors.
    doubts: Vec<Warning>,
}

fn declaration(place: &Place, faults: &mut Faults) -> Declared {
    let text = match place.text(CONFIG_FILE) {
        Ok(text) => text,
        Err(e) => {
            let fault = format!("{CONFIG_FILE} cannot be read: {e}");
            faults.warnings.add(Code::BadConfig, fault);
            return Declared::default();
        }
    };
    let config = match values(&text, &[KEY, TEXT_CONFIG]) {
        Ok(config) => config,
        Err(e) => {
            // Python's JSON also has NaN and Infinity, so loaders may still read it.
            let fault = format!("{CONFIG_FILE} cannot be read: {e}");
            faults.warnings.add(Code::BadConfig, fault);
            return Declared::default();
        }
    };
    let declared = |config: &Value| config.get(KEY).filter(|value| !value.is_null()).cloned();
    let nested = config.get(TEXT_CONFIG).and_then(declared);
    let declaration = declared(&config);
    let mut doubts = Vec::new();
    if declaration.is_some() {
        if nested.is_some() {
            doubts.push(Warning::new(
                Code::ConfigMismatch,
                format!(
                    "{CONFIG_FILE} declares {KEY} twice, at the top level and in {TEXT_CONFIG}"
                ),
            ));
        }
        if place.has(MODELOPT_FILE) {
            doubts.push(Warning::new(Code::ConfigMismatch, format!(
                "{MODELOPT_FILE} is there beside {KEY} in {CONFIG_FILE}, and some loaders prefer it"
            )));
        }
    }
    Declared {
        used: declaration.or(nested),
        doubts,
    }
}

/// Targets of groups that are names or expressions, and not classes, name modules that are there.
fn check_targets(declaration: &Value, shards: &[ShardFile], faults: &mut Faults) {
    let mut lists = target_lists(declaration).peekable();
    if lists.peek().is_none() {
        return;
    }
    let names = shards.iter().flat_map(|shard| shard.header.keys());
    let modules: HashSet<&str> = names.map(|name| module_of(name)).collect();
    let with_ancestors: HashSet<&str> = (modules.iter().copied())
        .flat_map(itself_and_ancestors)
        .collect();
    for (path, list) in lists {
        for target in list.iter().filter_map(Value::as_str) {
            let is_there = match Entry::new(target) {
                Entry::Path(path) => is_class(path) || with_ancestors.contains(path),
                entry @ Entry::Pattern(_) => modules.iter().any(|module| entry.names(module)),
                Entry::Unreadable => true,
            };
            if !is_there {
                let fault = format!("targets in {} that name no module", path.join("."));
                faults.warnings.add_item(Code::SkipList, fault, target);
            }
        }
    }
}

/// The list is matched by full name, by ancestor, by ending or by any part of the name, depending
/// on the loader.
fn check_skip_list(
    declaration: &Value,
    shards: &[ShardFile],
    found: &Verified,
    faults: &mut Faults,
) {
    let has_list = |key: &&str| declaration.get(key).is_some_and(Value::is_array);
    let lists: Vec<&str> = SKIP_KEYS.into_iter().filter(has_list).collect();
    let keys = if lists.is_empty() {
        vec![SKIP_KEY]
    } else {
        lists
    };
    for key in keys {
        check_list(key, declaration, shards, found, faults);
    }
}

/// The same of the list `key`, and each loader reads one of them.
fn check_list(
    key: &str,
    declaration: &Value,
    shards: &[ShardFile],
    found: &Verified,
    faults: &mut Faults,
) {
    let quantized = &found.quantized;
    let listed = declaration.get(key).and_then(Value::as_array);
    let all = listed.into_iter().flatten().filter_map(Value::as_str);
    let all = all.filter(|entry| !entry.is_empty());
    let all = all.map(|text| (text, Entry::new(text)));
    let (paths, patterns): (Vec<_>, Vec<_>) =
        all.partition(|(_, entry)| matches!(entry, Entry::Path(_)));
    let entries: Vec<&str> = paths.into_iter().map(|(text, _)| text).collect();
    let exact: HashSet<&str> = entries.iter().copied().collect();
    let pattern_of = |module: &str| {
        let mut patterns = patterns.iter();
        let found = patterns.find(|(_, pattern)| pattern.names(module));
        found.map(|(text, _)| *text)
    };
    let anywhere = AhoCorasick::new(&entries).expect("a list of names can be searched for");
    for name in quantized {
        let module = module_of(name);
        let by_name = itself_and_ancestors(module).find(|path| exact.contains(path));
        if let Some(entry) = by_name.or_else(|| pattern_of(module)) {
            let fault = format!("modules that {key} lists, although their weight is quantized");
            let item = if entry == module {
                module.to_owned()
            } else {
                format!("{module} (by {entry})")
            };
            faults.problems.add_item(Code::SkipList, fault, item);
        } else if !found.lists_by_name
            && let Some(hit) = anywhere.find(module)
        {
            let entry = entries[hit.pattern().as_usize()];
            faults.warnings.add_item(Code::SkipList, format!(
                    "quantized modules whose path holds an entry of {key}, which some loaders take for a match"
                ),
                format!("{module} (by {entry})"),
            );
        }
    }
    if found.lists_by_name {
        // Lists name what would be quantized else: embeddings, for example, never are.
        return;
    }
    let quantized: HashSet<&str> = quantized.iter().copied().collect();
    for (name, tensor) in shards.iter().flat_map(|shard| &shard.header) {
        let is_weight = name.ends_with(".weight") && tensor.shape.len() >= 2;
        if !is_weight || quantized.contains(&**name) || weight_of(name).is_some() {
            continue;
        }
        let module = module_of(name);
        let is_listed = itself_and_ancestors(module).any(|path| exact.contains(path))
            || pattern_of(module).is_some();
        if !is_listed {
            let fault = format!("unquantized modules that {key} does not list");
            faults.warnings.add_item(Code::SkipList, fault, module);
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
