//! Names of training programs: what wrappers put into them, and what stands before the names of the model.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use indexmap::IndexMap;

use crate::error::{Code, Error, Result};
use crate::shown::Show;
use crate::tensor::Name;

/// What wrappers put into names, wherever a module is wrapped: FSDP1, torch.compile, activation checkpoints.
const WRAPPERS: [&str; 3] = [
    "_fsdp_wrapped_module",
    "_orig_mod",
    "_checkpoint_wrapped_module",
];

/// What data parallelism puts before names, several times if need be.
const OUTER: &str = "module.";

/// `names` as the model has them but for a common prefix; each with what it is called in the checkpoint.
///
/// # Errors
/// If two are then the same.
pub(super) fn cleaned<'a>(
    path: &Path,
    names: impl Iterator<Item = &'a Name>,
) -> Result<IndexMap<Name, &'a Name>> {
    let mut cleaned: IndexMap<Name, &Name> = IndexMap::new();
    for name in names {
        let parts: Vec<&str> = name
            .split('.')
            .filter(|part| !WRAPPERS.contains(part))
            .collect();
        let joined = parts.join(".");
        let mut rest = &*joined;
        while let Some(inner) = rest.strip_prefix(OUTER) {
            rest = inner;
        }
        if let Some(other) = cleaned.insert(rest.into(), name) {
            let problem = format!(
                "without what wrappers put into it, it has the name of {}",
                other.shown()
            );
            return Err(Error::of_tensor(Code::NameTaken, path, &**name, problem));
        }
    }
    Ok(cleaned)
}

/// What stands before the names of the model in `names`: with it gone, as many as possible are `known`, or if none are
/// known, they begin as those of models do.
pub(super) fn prefix<'a>(
    names: impl Iterator<Item = &'a str> + Clone,
    known: Option<&HashSet<&str>>,
) -> String {
    let Some(known) = known else {
        return usual_prefix(names).to_owned();
    };
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for name in names {
        let ends = name.match_indices('.').map(|(at, _)| at + 1);
        let starts = std::iter::once(0).chain(ends);
        for start in starts.filter(|&start| known.contains(&name[start..])) {
            *counts.entry(&name[..start]).or_default() += 1;
        }
    }
    // Of a copy, such as a moving average, names are longer.
    let best = counts.into_iter().max_by(|(a, of_a), (b, of_b)| {
        let by_length = b.len().cmp(&a.len());
        of_a.cmp(of_b).then(by_length).then(b.cmp(a))
    });
    best.map_or("", |(prefix, _)| prefix).to_owned()
}

/// What stands before names that begin as those of causal language models.
fn usual_prefix<'a>(names: impl Iterator<Item = &'a str> + Clone) -> &'a str {
    let begins = |rest: &str| rest.starts_with("model.") || rest.starts_with("lm_head.");
    let mut prefix = "";
    loop {
        let Some(first) = names.clone().next() else {
            return prefix;
        };
        let Some((part, _)) = first[prefix.len()..].split_once('.') else {
            return prefix;
        };
        let longer = &first[..prefix.len() + part.len() + 1];
        let mut all = names.clone();
        let mut some = names.clone();
        let is_before = all.all(|name| name.starts_with(longer))
            && some.any(|name| begins(&name[longer.len()..]));
        match is_before {
            true => prefix = longer,
            false => return prefix,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix_of(names: &[&str], known: &[&str]) -> String {
        let known: HashSet<&str> = known.iter().copied().collect();
        let known = (!known.is_empty()).then_some(&known);
        prefix(names.iter().copied(), known)
    }

    #[test]
    fn as_many_names_as_possible_are_known() {
        let known = ["model.norm.weight", "model.layers.0.w", "lm_head.weight"];
        for before in ["", "model.", "state_dict.", "app.model."] {
            let names = known.map(|name| format!("{before}{name}"));
            let mut names: Vec<&str> = names.iter().map(|name| &**name).collect();
            names.push("ema.model.norm.weight");
            assert_eq!(prefix_of(&names, &known), before);
        }
        // A model without a head, in a wrapper of the same name.
        assert_eq!(
            prefix_of(&["model.norm.weight"], &["norm.weight"]),
            "model."
        );
    }

    #[test]
    fn without_known_names_what_is_before_model_is_a_prefix() {
        assert_eq!(prefix_of(&["model.norm.weight"], &[]), "");
        assert_eq!(prefix_of(&["model.norm.weight", "lm_head.weight"], &[]), "");
        let names = ["model.model.norm.weight", "model.lm_head.weight"];
        assert_eq!(prefix_of(&names, &[]), "model.");
        assert_eq!(prefix_of(&["transformer.h.0.w"], &[]), "");
    }

    #[test]
    fn wrappers_are_taken_out_of_names() {
        let names: [Name; 2] = [
            "module._orig_mod.model._fsdp_wrapped_module.layers.0._checkpoint_wrapped_module.w"
                .into(),
            "module.module.lm_head.weight".into(),
        ];
        let cleaned = cleaned(Path::new("/c"), names.iter()).unwrap();
        let found: Vec<&str> = cleaned.keys().map(|name| &**name).collect();
        assert_eq!(found, ["model.layers.0.w", "lm_head.weight"]);
    }
}
