//! Modules import one way: none imports itself through others, in folders neither.
//!
//! What a `mod.rs` exports again counts as the module that it is from, so that a folder may have a
//! front door; what it defines itself counts as the folder's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use regex::Regex;

type Modules = BTreeMap<String, String>;

/// The text of every module, without comments and tests, by its path (`read::reader`).
fn modules() -> Modules {
    fn visit(directory: &Path, prefix: &str, modules: &mut Modules) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if name == "tests" {
                continue;
            }
            if path.is_dir() {
                visit(&path, &format!("{prefix}{name}::"), modules);
            } else if path.extension().is_some_and(|e| e == "rs") && name != "lib" && name != "main"
            {
                let module = match &*name {
                    "mod" => prefix.trim_end_matches("::").to_owned(),
                    _ => format!("{prefix}{name}"),
                };
                let text = fs::read_to_string(&path).unwrap();
                let text = text.split("#[cfg(test)]").next().unwrap();
                let text = Regex::new("//[^\n]*").unwrap().replace_all(text, "");
                modules.insert(module, text.into_owned());
            }
        }
    }
    let mut modules = Modules::new();
    visit(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        "",
        &mut modules,
    );
    modules
}

/// The paths of a `use`: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expanded(tree: &str) -> Vec<String> {
    let Some((prefix, rest)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or(tree);
        return vec![path.split_whitespace().collect()];
    };
    let inside = rest.rsplit_once('}').map_or(rest, |(inside, _)| inside);
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in inside.char_indices().chain([(inside.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(inside[start..at].trim());
                start = (at + 1).min(inside.len());
            }
            _ => {}
        }
    }
    let parts = parts.into_iter().filter(|part| !part.is_empty());
    parts
        .flat_map(|part| expanded(&format!("{prefix}{part}")))
        .collect()
}

/// `path`, written in `module`, from the root of the crate; `None` if it is of another crate.
fn absolute(modules: &Modules, module: &str, path: &str) -> Option<String> {
    let path = path.replace("::self", "");
    if let Some(path) = path.strip_prefix("crate::") {
        return Some(path.to_owned());
    }
    if let Some(path) = path.strip_prefix("self::") {
        return Some(format!("{module}::{path}"));
    }
    if let Some(path) = path.strip_prefix("super::") {
        let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
        return Some(format!("{parent}::{path}"));
    }
    let child = format!("{module}::{}", path.split("::").next().unwrap_or(&path));
    modules
        .contains_key(&child)
        .then(|| format!("{module}::{path}"))
}

/// The module that defines what `path` names.
fn defining(modules: &Modules, exports: &BTreeMap<String, String>, path: &str) -> Option<String> {
    let mut path = path.to_owned();
    for _ in 0..8 {
        let exported = exports.get(&path);
        match exported.filter(|to| !to.starts_with(&format!("{path}::"))) {
            Some(to) => path = to.clone(),
            None => break,
        }
    }
    while !modules.contains_key(&path) {
        path = path.rsplit_once("::")?.0.to_owned();
    }
    Some(path)
}

#[test]
fn no_module_imports_itself_through_others() {
    let modules = modules();
    let import = Regex::new(r"(?m)^(pub(?:\([^)]*\))? )?use ([^;]+);").unwrap();
    let inline = Regex::new(r"\bcrate::(?:\w+::)+\w+").unwrap();
    let mut exports = BTreeMap::new();
    let mut imports: Vec<(&String, String)> = Vec::new();
    for (module, text) in &modules {
        for found in import.captures_iter(text) {
            for path in expanded(&found[2]) {
                let Some(path) = absolute(&modules, module, &path) else {
                    continue;
                };
                match found.get(1) {
                    Some(_) => {
                        let name = path.rsplit("::").next().unwrap().to_owned();
                        exports.insert(format!("{module}::{name}"), path);
                    }
                    None => imports.push((module, path)),
                }
            }
        }
        let without = import.replace_all(text, "");
        for found in inline.find_iter(&without) {
            let path = found.as_str().trim_start_matches("crate::").to_owned();
            imports.push((module, path));
        }
    }
    let mut graph: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (module, path) in &imports {
        if let Some(to) = defining(&modules, &exports, path)
            && to != **module
        {
            graph.entry(module).or_default().insert(to);
        }
    }
    // What imports nothing that is left, or is imported by nothing, is in no circle.
    loop {
        let before = graph.len();
        let left: BTreeSet<String> = graph.keys().map(|module| (*module).to_owned()).collect();
        for imported in graph.values_mut() {
            imported.retain(|module| left.contains(module));
        }
        let imported: BTreeSet<String> = graph.values().flatten().cloned().collect();
        graph.retain(|module, imports| !imports.is_empty() && imported.contains(*module));
        if graph.len() == before {
            break;
        }
    }
    assert!(graph.is_empty(), "circles of imports: {graph:#?}");
}
