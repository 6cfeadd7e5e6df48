//! Scalars and trees as YAML text that [`super::yaml`] reads as the same values.

use std::fmt::Write as _;

use crate::ops::merge::Scalar;
use crate::recipe::yaml::{self, Node, Value};
use crate::shown::is_obeyed;

/// `text` such that YAML 1.1 and 1.2 read it as text: bare where that is plain to see, else in
/// quotes.
pub(super) fn text(text: &str) -> String {
    if is_bare(text) {
        return text.to_owned();
    }
    if text.chars().all(is_printable) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(c);
            }
            '\n' => quoted += "\\n",
            '\t' => quoted += "\\t",
            c if is_printable(c) => quoted.push(c),
            c if u32::from(c) <= 0xFFFF => write!(quoted, "\\u{:04X}", u32::from(c)).unwrap_or(()),
            c => write!(quoted, "\\U{:08X}", u32::from(c)).unwrap_or(()),
        }
    }
    quoted + "\""
}

/// Letters, digits and what paths have, beginning with a letter or slash, if no YAML takes it for
/// something else.
fn is_bare(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    text.len() > 1
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(plain)
        && matches!(yaml::plain(text), Value::Scalar(Scalar::Text(_)))
}

/// Whether YAML lets `c` stand in quotes on one line.
fn is_printable(c: char) -> bool {
    // Nor what would not be shown as it is.
    !is_obeyed(c) && !matches!(c, '\u{FEFF}' | '\u{FFFE}' | '\u{FFFF}')
}

/// A number that is read as the same one.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return ".nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { ".inf" } else { "-.inf" }.to_owned();
    }
    let shortest = format!("{value:?}");
    // YAML 1.1 wants a point and the exponent's sign.
    let Some((digits, exponent)) = shortest.split_once('e') else {
        return shortest;
    };
    let point = if digits.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with('-') { "" } else { "+" };
    format!("{digits}{point}e{sign}{exponent}")
}

/// Adds `node` behind its key, or behind the dash of a list, at `indent`; ends the line.
pub(super) fn tree(node: &Node, indent: usize, into: &mut String) {
    let pad = " ".repeat(indent);
    match &node.value {
        Value::Null => *into += " null\n",
        Value::Scalar(scalar) => {
            let scalar = match scalar {
                // A number to those who want one (`1e-4`), unless it is put in quotes.
                Scalar::Text(value) if node.number().is_some() => value.clone(),
                Scalar::Text(value) => text(value),
                Scalar::Float(value) => float(*value),
                other => other.to_string(),
            };
            *into += &format!(" {scalar}\n");
        }
        Value::List(nodes)
            if nodes
                .iter()
                .all(|node| matches!(node.value, Value::Scalar(_))) =>
        {
            *into += " [";
            for (position, node) in nodes.iter().enumerate() {
                let mut entry = String::new();
                tree(node, 0, &mut entry);
                *into += if position > 0 { ", " } else { "" };
                *into += entry.trim();
            }
            *into += "]\n";
        }
        Value::Map(entries) if entries.is_empty() => *into += " {}\n",
        Value::List(nodes) => {
            into.push('\n');
            for node in nodes.iter() {
                *into += &format!("{pad}-");
                tree(node, indent + 2, into);
            }
        }
        Value::Map(entries) => {
            // The first key may stand behind the dash.
            let behind_dash = into.ends_with('-');
            into.push(if behind_dash { ' ' } else { '\n' });
            for (position, (key, node)) in entries.iter().enumerate() {
                if !(behind_dash && position == 0) {
                    *into += &pad;
                }
                *into += &format!("{}:", text(&key.text));
                tree(node, indent + 2, into);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;

    fn read(text: &str) -> Node {
        let documents = yaml::parse(text, &Arc::from(Path::new("test")));
        let mut documents = documents.unwrap_or_else(|e| panic!("{e}\n{text}"));
        documents.remove(0)
    }

    #[test]
    fn text_is_read_as_the_same_text() {
        for value in [
            "",
            "a",
            "/models/a b",
            "y",
            "yes",
            "null",
            "1e4",
            "1.5",
            "0x10",
            "~",
            "- a",
            "a: b",
            "a #b",
            "it's",
            "\"",
            "\\",
            "'",
            " lead",
            "trail ",
            "tab\t",
            "line\nline",
            "\r",
            "日本",
            "é",
            "\u{85}",
            "\u{2028}",
            "\u{7f}",
            "\u{0}",
            "\u{FEFF}",
            "😀",
            "[a]",
            "{a}",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a",
            "|",
            ">",
            "?",
            ":",
            "^model\\.=x",
            "2001-01-01",
            "true",
            "a\u{1}'\"b",
            "…",
        ] {
            let quoted = text(value);
            let node = read(&format!("key: [{quoted}]\n"));
            let entries = node.map("test").unwrap();
            let list = entries[0].1.list("test").unwrap();
            assert_eq!(list[0].text("test").unwrap(), value, "{quoted}");
            assert!(!quoted.contains('\n'));
        }
        assert_eq!(text("/models/Qwen3-0.6B"), "/models/Qwen3-0.6B");
        assert_eq!(text("no"), "'no'");
    }

    #[test]
    fn numbers_are_read_as_the_same_numbers() {
        for value in [
            0.0,
            -0.0,
            1.0,
            0.1,
            -2.5,
            1e-7,
            1e300,
            1.5e-300,
            f64::MAX,
            f64::MIN_POSITIVE,
            1e16,
        ] {
            let node = read(&float(value));
            assert!(
                matches!(node.value, Value::Scalar(Scalar::Float(read)) if read.to_bits() == value.to_bits()),
                "{value:?}"
            );
        }
    }

    #[test]
    fn a_tree_is_read_as_the_same_tree() {
        let source = "aa: [1, 2.5, yes, 'yes', 1e-4, '1e-4']\nbb:\n  - cc: {dd: null, ee: []}\n    ff: ~\n  - [gg, {hh: ii}]\n  - {}\n'odd: key': x\njj: {}\n";
        let mut again = String::new();
        tree(&read(source), 0, &mut again);
        let shape = |node: &Node| {
            // Places differ.
            let mut text = String::new();
            tree(node, 0, &mut text);
            text
        };
        assert_eq!(shape(&read(&again)), again);
        for part in [
            "aa: [1, 2.5, true, 'yes', 1e-4, '1e-4']",
            "- cc:\n",
            "dd: null",
            "ee: []",
            "'odd: key'",
        ] {
            assert!(again.contains(part), "{part} is not in\n{again}");
        }
    }
}
