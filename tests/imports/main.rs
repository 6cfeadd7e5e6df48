//! Modules import in one direction: no module imports itself through others, inside folders too.
//!
//! An item that a `mod.rs` re-exports counts as an item of the file that defines it, so that a folder
//! can have a front door. What a `mod.rs` defines or calls itself counts as its own: one that calls a
//! child must not define anything that this child imports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use regex::{Captures, Regex};

type Modules = BTreeMap<String, String>;
/// What each module imports.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// `text` without comments, strings, unit tests and the paths of `pub(in ..)`.
fn code(text: &str) -> String {
    let tests = Regex::new(r"(?s)#\[cfg\(test\)\]\s*mod \w+ \{.*").unwrap();
    let rest = Regex::new(concat!(
        r##"(?s)//[^\n]*|r#+".*?"#+|'(?:\\.|[^'\\])'|"(?:\\.|[^"\\])*""##,
        r"|pub\(in [^)]*\)|#\[cfg\(test\)\]\s*mod \w+;"
    ))
    .unwrap();
    let text = rest.replace_all(text, |found: &Captures| {
        if found[0].starts_with("pub") {
            "pub(super)"
        } else {
            ""
        }
    });
    tests.replace(&text, "").into_owned()
}

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
                modules.insert(module, code(&text));
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

/// What the modules import, and how names lead to the modules that define them.
struct Imports {
    modules: Modules,
    /// What a module has by a `use`, its own or a public one: `quant::Scheme` is
    /// `quant::scheme::Scheme`.
    used: BTreeMap<String, String>,
}

impl Imports {
    /// The modules that each of `modules` imports.
    fn graph(modules: Modules) -> Graph {
        let statement = Regex::new(r"(?m)^\s*(pub(?:\([^)]*\))? )?use ([^;]+);").unwrap();
        let inline = Regex::new(r"\b\w+(?:::\w+)+").unwrap();
        let mut imports = Imports {
            modules,
            used: BTreeMap::new(),
        };
        let mut paths: Vec<(String, String)> = Vec::new();
        for (module, text) in &imports.modules {
            let body = statement.replace_all(text, "").into_owned();
            for found in statement.captures_iter(text) {
                for path in expanded(&found[2]) {
                    let Some(path) = imports.absolute(module, &path) else {
                        continue;
                    };
                    let name = path.rsplit("::").next().unwrap().to_owned();
                    // A re-export is an import too if the module uses the name itself.
                    let named = Regex::new(&format!(r"\b{}\b", regex::escape(&name))).unwrap();
                    if found.get(1).is_none() || named.is_match(&body) {
                        paths.push((module.clone(), path.clone()));
                    }
                    if name != "*" {
                        imports.used.insert(format!("{module}::{name}"), path);
                    }
                }
            }
            for found in inline.find_iter(&body) {
                // `$crate::` of a macro is the crate too; `a::b` after `::` cannot be matched.
                if let Some(path) = imports.absolute(module, found.as_str()) {
                    paths.push((module.clone(), path));
                }
            }
        }
        let names = imports.modules.keys().cloned();
        let mut graph: Graph = names.map(|module| (module, BTreeSet::new())).collect();
        for (module, path) in paths {
            if let Some(to) = imports.defining(&path)
                && to != module
            {
                graph.entry(module).or_default().insert(to);
            }
        }
        graph
    }

    /// `path`, written in `module`, from the root of the crate; `None` if it is of another crate, or
    /// of something that a `use` has brought in.
    fn absolute(&self, module: &str, path: &str) -> Option<String> {
        let path = path.replace("::self", "");
        let of_crate = path
            .strip_prefix("crate::")
            .or(path.strip_prefix("ckptfs::"));
        if let Some(path) = of_crate {
            return Some(path.to_owned());
        }
        if let Some(path) = path.strip_prefix("self::") {
            return Some(format!("{module}::{path}"));
        }
        let (mut parent, mut rest) = (module, &*path);
        while let Some(path) = rest.strip_prefix("super::") {
            (parent, rest) = (
                parent.rsplit_once("::").map_or("", |(parent, _)| parent),
                path,
            );
        }
        if rest.len() < path.len() {
            return Some(
                format!("{parent}::{rest}")
                    .trim_start_matches("::")
                    .to_owned(),
            );
        }
        let child = format!("{module}::{}", path.split("::").next().unwrap_or(&path));
        let is_child = self.modules.contains_key(&child);
        is_child.then(|| format!("{module}::{path}"))
    }

    /// The module that defines what `path` names.
    fn defining(&self, path: &str) -> Option<String> {
        let mut path = path.to_owned();
        for _ in 0..8 {
            // The longest beginning of the path that a `use` brought in leads elsewhere.
            let ends = path.match_indices("::").map(|(at, _)| at);
            let ends: Vec<usize> = ends.chain([path.len()]).collect();
            let moved = ends.iter().rev().find_map(|&end| {
                let to = self.used.get(&path[..end])?;
                let is_module = self.modules.contains_key(&path[..end]);
                (!is_module && *to != path[..end]).then(|| format!("{to}{}", &path[end..]))
            });
            match moved {
                Some(moved) => path = moved,
                None => break,
            }
        }
        while !self.modules.contains_key(&path) {
            path = path.rsplit_once("::")?.0.to_owned();
        }
        Some(path)
    }
}

/// What every module imports, itself or through others.
fn reached(graph: &Graph) -> Graph {
    let mut reached = graph.clone();
    for through in graph.keys() {
        let further = reached[through].clone();
        for imports in reached.values_mut() {
            if imports.contains(through) {
                imports.extend(further.iter().cloned());
            }
        }
    }
    reached
}

/// The imports that lead back to the module that has them.
fn circles(graph: &Graph) -> Graph {
    let reached = reached(graph);
    let leads_back = |from: &String, to: &String| reached.get(to).is_some_and(|r| r.contains(from));
    let left = graph.iter().map(|(module, imports)| {
        let back = imports.iter().filter(|to| leads_back(module, to));
        (module.clone(), back.cloned().collect::<BTreeSet<String>>())
    });
    left.filter(|(_, imports)| !imports.is_empty()).collect()
}

/// `graph` between the modules at the root of the crate.
fn between_top_level(graph: &Graph) -> Graph {
    let top = |module: &str| module.split("::").next().unwrap_or(module).to_owned();
    let mut between: Graph = BTreeMap::new();
    for (module, imports) in graph {
        let module = top(module);
        let imports = imports.iter().map(|import| top(import));
        let imports = imports.filter(|import| *import != module);
        between.entry(module.clone()).or_default().extend(imports);
    }
    between
}

/// A line for each module, after the modules that it imports: with `--nocapture`, the graph.
fn listing(graph: &Graph) -> String {
    let mut left: BTreeMap<&String, &BTreeSet<String>> = graph.iter().collect();
    let mut text = String::new();
    while !left.is_empty() {
        let is_ready = |imports: &BTreeSet<String>| !imports.iter().any(|i| left.contains_key(i));
        let ready = left.iter().find(|(_, imports)| is_ready(imports));
        let (&module, &imports) = ready.or(left.iter().next()).expect("some are left");
        left.remove(module);
        let imports: Vec<&str> = imports.iter().map(String::as_str).collect();
        text += &format!("{module} -> {}\n", imports.join(" "));
    }
    text
}

#[test]
fn no_module_imports_itself_through_others() {
    let left = circles(&Imports::graph(modules()));
    assert!(left.is_empty(), "circles of imports: {left:#?}");
}

#[test]
fn no_top_level_module_imports_itself_through_others() {
    let between = between_top_level(&Imports::graph(modules()));
    println!("{}", listing(&between));
    let left = circles(&between);
    assert!(left.is_empty(), "circles of imports: {left:#?}");
}

/// What `modules` import, as `module -> imports`; `a` is the text of `a/mod.rs` beside `a::b`.
fn imports_of(modules: &[(&str, &str)]) -> Vec<String> {
    let modules = modules
        .iter()
        .map(|(name, text)| ((*name).to_owned(), code(text)));
    let graph = Imports::graph(modules.collect());
    listing(&graph).lines().map(str::to_owned).collect()
}

#[test]
fn a_call_into_a_child_is_an_import() {
    let child = "use crate::a::Shared;\npub fn run(_: Shared) {}";
    let called = "mod b;\npub struct Shared;\npub fn run() { b::run(Shared) }";
    assert_eq!(
        imports_of(&[("a", called), ("a::b", child)]),
        ["a -> a::b", "a::b -> a"]
    );
    let used = "mod b;\npub use b::run;\npub struct Shared;\npub fn all() { run(Shared) }";
    assert_eq!(
        imports_of(&[("a", used), ("a::b", child)]),
        ["a -> a::b", "a::b -> a"]
    );
}

#[test]
fn a_front_door_is_no_import() {
    let door = "mod b;\nmod c;\npub use b::run;\npub use c::Shared;";
    let child = "use crate::a::Shared;\npub fn run(_: Shared) {}";
    let modules = [("a", door), ("a::b", child), ("a::c", "pub struct Shared;")];
    assert_eq!(imports_of(&modules), ["a -> ", "a::c -> ", "a::b -> a::c"]);
}

#[test]
fn comments_strings_and_unit_tests_import_nothing() {
    let text = "// a::b::run\nconst X: &str = \"crate::a::b\";\n#[cfg(test)]\nmod tests { use super::b::run; }";
    assert_eq!(
        imports_of(&[("a", text), ("a::b", "")]),
        ["a -> ", "a::b -> "]
    );
}
