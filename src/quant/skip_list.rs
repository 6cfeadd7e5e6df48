//! `modules_to_not_convert`: the modules that consumers must leave alone.
//!
//! Consumers match the list by four rules, and it must be right under all of them:
//!
//! | consumer | an entry matches a module if |
//! |---|---|
//! | vLLM | they are equal |
//! | SGLang | the module is the entry or lies inside it |
//! | transformers 5 | the module is the entry, lies inside it, or ends with it |
//! | transformers 4 | the entry occurs anywhere in the module's path |
//!
//! So it holds full checkpoint paths only: every module with a weight of two or more dimensions
//! that is not quantized, `lm_head` also when it is tied, and never an ancestor of a quantized
//! tensor.

use std::collections::{BTreeMap, HashSet};

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use indexmap::IndexSet;

use crate::catalog::Catalog;
use crate::error::{Code, Warning};
use crate::quant::scheme::Scheme;
use crate::quant::skip_entries::module_of;
use crate::tensor::Name;
use crate::text::listing;

const WEIGHT_SUFFIX: &str = ".weight";
const HEAD: &str = "lm_head";

/// The finished list, and what is wrong with it for whom.
pub(super) struct SkipList {
    pub entries: IndexSet<String>,
    pub warnings: Vec<Warning>,
}

/// The list for `catalog`, whose tensors `quantized` are quantized by `scheme`. `declared` are the
/// entries that the source has; they stay unless they would hit a quantized module.
pub(super) fn build(
    scheme: &dyn Scheme,
    catalog: &Catalog,
    quantized: &IndexSet<Name>,
    declared: Vec<String>,
) -> SkipList {
    let mut sorted: Vec<&str> = quantized.iter().map(|name| &**name).collect();
    sorted.sort_unstable();
    let mut entries = IndexSet::new();
    let mut has_head = false;
    for (name, tensor) in &catalog.tensors {
        has_head |= is_head(name);
        if tensor.shape.len() < 2 || scheme.weight_of(name).is_some() || quantized.contains(name) {
            continue;
        }
        let is_weight = name.ends_with(WEIGHT_SUFFIX) || is_fused_expert(name);
        let module = module_of(name);
        if is_weight && !is_ancestor(module, &sorted) {
            entries.insert(module.to_owned());
        }
    }
    if !has_head {
        entries.insert(HEAD.to_owned());
    }
    let modules: IndexSet<&str> = quantized.iter().map(|name| module_of(name)).collect();
    let hit: HashSet<usize> = hits(&search(&declared), &modules)
        .map(|hit| hit.entry)
        .collect();
    entries.extend(
        declared
            .into_iter()
            .enumerate()
            .filter(|(i, _)| !hit.contains(i))
            .map(|(_, entry)| entry),
    );
    let warnings = match scheme.lists_by_name() {
        true => Vec::new(),
        false => contradictions(&entries, &modules),
    };
    SkipList { warnings, entries }
}

/// Quantized modules that some consumer would leave alone, each by the first entry that hits it:
/// all that do may be as many as all names together have parts.
pub(super) fn contradictions(
    entries: &IndexSet<String>,
    quantized: &IndexSet<&str>,
) -> Vec<Warning> {
    let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
    let mut by_consumer: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut seen: HashSet<(&str, &str)> = HashSet::new();
    for hit in hits(&search(&entries), quantized) {
        for consumer in hit.consumers() {
            if seen.insert((consumer, hit.module)) {
                let text = format!("{} by the entry {}", hit.module, entries[hit.entry]);
                by_consumer.entry(consumer).or_default().push(text);
            }
        }
    }
    by_consumer
        .iter()
        .map(|(consumer, modules)| {
            Warning::new(Code::SkipList, format!(
                "{consumer} will take quantized modules for unquantized ones, because it matches modules_to_not_convert by parts of names: {}",
                listing(modules)
            ))
        })
        .collect()
}

/// An entry that occurs in the path of a quantized module.
struct Hit<'a> {
    entry: usize,
    module: &'a str,
    start: usize,
    end: usize,
}

impl Hit<'_> {
    /// Those for whom the entry matches the module.
    fn consumers(&self) -> Vec<&'static str> {
        let at_end = self.end == self.module.len();
        let whole_parts = self.start == 0 && (at_end || self.module[self.end..].starts_with('.'));
        let mut consumers = vec!["transformers 4"];
        if whole_parts || at_end {
            consumers.push("transformers 5");
        }
        if whole_parts {
            consumers.push("SGLang");
        }
        if self.start == 0 && at_end {
            consumers.push("vLLM");
        }
        consumers
    }
}

/// A search for all of `entries` at once.
fn search<S: AsRef<str>>(entries: &[S]) -> AhoCorasick {
    let patterns = entries.iter().map(|entry| entry.as_ref().as_bytes());
    // Building fails only beyond billions of patterns; then nothing could be loaded either. (An
    // automaton of another kind may take a kilobyte for every byte of a name.)
    AhoCorasick::builder()
        .kind(Some(AhoCorasickKind::ContiguousNFA))
        .build(patterns)
        .expect("a list of names can be searched for")
}

/// Every occurrence of an entry in a quantized module's path.
fn hits<'a>(
    search: &'a AhoCorasick,
    quantized: &'a IndexSet<&str>,
) -> impl Iterator<Item = Hit<'a>> {
    quantized.iter().flat_map(|module| {
        let found = search.find_overlapping_iter(*module);
        found.map(|found| Hit {
            entry: found.pattern().as_usize(),
            module,
            start: found.start(),
            end: found.end(),
        })
    })
}

fn is_head(name: &str) -> bool {
    let module = name.strip_suffix(WEIGHT_SUFFIX);
    module.is_some_and(|module| module == HEAD || module.ends_with(".lm_head"))
}

/// Whether `name` is a 3-D expert tensor, which has no module of its own.
fn is_fused_expert(name: &str) -> bool {
    name.ends_with(".experts.gate_up_proj") || name.ends_with(".experts.down_proj")
}

/// Whether one of `names`, which are sorted, lies inside `module`.
fn is_ancestor(module: &str, names: &[&str]) -> bool {
    let inside = format!("{module}.");
    let first = names.partition_point(|name| *name < inside.as_str());
    names
        .get(first)
        .is_some_and(|name| name.starts_with(&inside))
}
