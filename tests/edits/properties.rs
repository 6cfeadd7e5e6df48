//! Edits of any JSON text against a naive oracle: the tree that a parser gives, edited as a tree, and
//! the text before and behind the one place that is edited.

use indexmap::IndexMap;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::fixture::edited;

/// A JSON text as parsers see it: the last of equal keys counts, and a scalar is its text.
#[derive(Debug, Clone, PartialEq)]
enum Tree {
    Scalar(String),
    List(Vec<Tree>),
    Object(IndexMap<String, Tree>),
}

/// The positions that lead to a value, and the same as an edit spells it.
type Path = (Vec<usize>, String);

impl Tree {
    fn parse(text: &str) -> Self {
        let raw: &RawValue = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let tree = |raw: &RawValue| Tree::parse(raw.get());
        match raw.get().chars().next() {
            Some('{') => {
                let object: IndexMap<String, Box<RawValue>> = serde_json::from_str(text).unwrap();
                Tree::Object(object.iter().map(|(k, v)| (k.clone(), tree(v))).collect())
            }
            Some('[') => {
                let list: Vec<Box<RawValue>> = serde_json::from_str(text).unwrap();
                Tree::List(list.iter().map(|item| tree(item)).collect())
            }
            _ => Tree::Scalar(raw.get().to_owned()),
        }
    }

    /// The path of every value, the top level first.
    fn paths(&self) -> Vec<Path> {
        let below: Vec<(String, &Tree)> = match self {
            Tree::Scalar(_) => Vec::new(),
            Tree::List(list) => {
                let items = list.iter().enumerate();
                items.map(|(i, item)| (format!("[{i}]"), item)).collect()
            }
            Tree::Object(object) => {
                let members = object.iter();
                let spelled = |key: &str| format!(".{}", Value::from(key));
                members.map(|(key, value)| (spelled(key), value)).collect()
            }
        };
        let mut paths = vec![(Vec::new(), String::new())];
        for (position, (step, tree)) in below.iter().enumerate() {
            for (positions, spelled) in tree.paths() {
                let positions = [&[position], &positions[..]].concat();
                paths.push((positions, format!("{step}{spelled}")));
            }
        }
        paths
    }

    fn at(&mut self, positions: &[usize]) -> &mut Tree {
        positions.iter().fold(self, |tree, &position| match tree {
            Tree::Scalar(_) => unreachable!("nothing is in a scalar"),
            Tree::List(list) => &mut list[position],
            Tree::Object(object) => &mut object[position],
        })
    }

    fn remove(&mut self, positions: &[usize]) {
        let (&last, holder) = positions.split_last().unwrap();
        match self.at(holder) {
            Tree::Scalar(_) => unreachable!("nothing is in a scalar"),
            Tree::List(list) => drop(list.remove(last)),
            Tree::Object(object) => drop(object.shift_remove_index(last)),
        }
    }
}

/// White space as files have it.
fn space() -> impl Strategy<Value = String> {
    const SPACES: &[&str] = &["", "", " ", "\n", "\r\n", "\n  ", "\r\n\t", "  ", "\t "];
    select(SPACES).prop_map(str::to_owned)
}

/// Scalars, with numbers that no type holds.
fn scalar() -> impl Strategy<Value = String> {
    const SCALARS: &[&str] = &[
        "1",
        "-0.0",
        "1e400",
        "-1E+400",
        "1E-06",
        "123456789012345678901234567890123",
        "0.1000000000000000055511151231257827",
        "true",
        "false",
        "null",
        "\"\"",
        "\"\\u00e9\\/\\\\\"",
        "\"{[,:]}\\\"\"",
    ];
    prop_oneof![
        select(SCALARS).prop_map(str::to_owned),
        any::<String>().prop_map(|text| Value::from(text).to_string()),
    ]
}

/// Keys, some of which are the same, spelled in two ways.
fn key() -> impl Strategy<Value = String> {
    const KEYS: &[&str] = &[
        "\"a\"",
        "\"\\u0061\"",
        "\"b\"",
        "\"a.b\"",
        "\"[0]\"",
        "\"\"",
        "\"x=y:z\"",
        "\"é\\n\"",
    ];
    select(KEYS).prop_map(str::to_owned)
}

/// The JSON texts of objects; `unique` if no key of an object is there twice.
fn json(unique: bool) -> impl Strategy<Value = String> {
    let spaced = |inner: BoxedStrategy<String>| {
        let spaced = (space(), inner, space());
        spaced.prop_map(|(a, value, b)| format!("{a}{value}{b}"))
    };
    let value = scalar().prop_recursive(4, 24, 5, move |inner| {
        let inner = spaced(inner.boxed()).boxed();
        let list = (vec(inner.clone(), 0..4), space());
        let list = list.prop_map(|(items, space)| match &items[..] {
            [] => format!("[{space}]"),
            items => format!("[{}]", items.join(",")),
        });
        prop_oneof![list, object(inner, unique)]
    });
    let value = spaced(value.boxed()).boxed();
    spaced(object(value, unique).boxed())
}

fn object(value: BoxedStrategy<String>, unique: bool) -> impl Strategy<Value = String> {
    let member = (space(), key(), space(), value);
    (vec(member, 0..5), space()).prop_map(move |(members, space)| {
        let mut seen: Vec<String> = Vec::new();
        let mut texts = Vec::new();
        for (a, key, b, value) in members {
            let text = serde_json::from_str(&key).unwrap();
            if !(unique && seen.contains(&text)) {
                texts.push(format!("{a}{key}{b}:{value}"));
                seen.push(text);
            }
        }
        match &texts[..] {
            [] => format!("{{{space}}}"),
            texts => format!("{{{}}}", texts.join(",")),
        }
    })
}

/// Whether `whole` is `part` with one run of bytes more in it.
fn is_less_one_run(part: &str, whole: &str) -> bool {
    let start = part.bytes().zip(whole.bytes()).take_while(|(a, b)| a == b);
    let end = part.bytes().rev().zip(whole.bytes().rev());
    let end = end.take_while(|(a, b)| a == b);
    part.len() <= whole.len() && start.count() + end.count() >= part.len()
}

/// As an edit spells it.
fn spelled((_, path): &Path) -> &str {
    path.strip_prefix('.').unwrap_or(path)
}

fn cases() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(192)
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_value_that_is_set_is_all_that_changes(
        source in json(false), at in any::<Index>(), value in json(false)
    ) {
        let mut expected = Tree::parse(&source);
        let paths = expected.paths();
        prop_assume!(paths.len() > 1);
        let path = at.get(&paths[1..]);
        let found = edited(&source, &[("set", &format!("{}={value}", spelled(path)))]);

        *expected.at(&path.0) = Tree::parse(&value);
        prop_assert_eq!(Tree::parse(&found), expected);
        // What is around the value is the source's text.
        let value = value.trim();
        let is_around = found.match_indices(value).any(|(start, _)| {
            let behind = &found[start + value.len()..];
            source.starts_with(&found[..start])
                && source.ends_with(behind)
                && start + behind.len() <= source.len()
        });
        prop_assert!(is_around, "{:?}", found);
    }

    #[test]
    fn a_key_that_is_new_is_all_that_is_added(
        source in json(false), at in any::<Index>(), value in scalar()
    ) {
        let mut expected = Tree::parse(&source);
        let mut objects = expected.paths();
        let all = expected.clone();
        objects.retain(|path| matches!(all.clone().at(&path.0), Tree::Object(_)));
        let path = at.get(&objects);
        let point = if path.0.is_empty() { "" } else { "." };
        let edit = format!("{}{point}new={value}", spelled(path));
        let found = edited(&source, &[("set", &edit)]);

        let Tree::Object(object) = expected.at(&path.0) else { unreachable!() };
        let was_empty = object.is_empty();
        object.insert("new".to_owned(), Tree::Scalar(value));
        prop_assert_eq!(Tree::parse(&found), expected);
        // White space in an object that was empty goes.
        prop_assert!(was_empty || is_less_one_run(&source, &found), "{:?}", found);
    }

    #[test]
    fn a_value_that_is_taken_away_is_all_that_goes(source in json(false), at in any::<Index>()) {
        let mut expected = Tree::parse(&source);
        let paths = expected.paths();
        prop_assume!(paths.len() > 1);
        let path = at.get(&paths[1..]);
        let found = edited(&source, &[("unset", spelled(path))]);
        expected.remove(&path.0);
        prop_assert_eq!(Tree::parse(&found), expected);
    }

    #[test]
    fn the_text_of_what_stays_is_the_source_s(source in json(true), at in any::<Index>()) {
        let paths = Tree::parse(&source).paths();
        prop_assume!(paths.len() > 1);
        let path = at.get(&paths[1..]);
        let found = edited(&source, &[("unset", spelled(path))]);
        prop_assert!(is_less_one_run(&found, &source), "{:?}", found);
    }
}
