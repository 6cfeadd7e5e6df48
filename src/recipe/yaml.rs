//! YAML as a tree whose every value knows its place, bounded against hostile input.
//!
//! Scalars mean what they mean to PyYAML (YAML 1.1), since that is what reads recipes elsewhere:
//! `yes` is true, and `1e-4` is text that parameters take as a number.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use regex::Regex;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use crate::error::{Code, Error, Place, Result};
use crate::ops::merge::Scalar;
use crate::spelling::did_you_mean;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub place: Place,
    pub value: Value,
    /// Whether it is a scalar in quotes, or a block of text: text, whatever it looks like.
    pub quoted: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Scalar(Scalar),
    List(Arc<[Node]>),
    /// In order, each key once.
    Map(Arc<[(Key, Node)]>),
}

#[derive(Debug, Clone)]
pub(super) struct Key {
    pub text: String,
    pub place: Place,
}

/// The most bytes of a document.
pub(super) const MOST_BYTES: usize = 1 << 20;

/// The most values, those behind an alias counted each time.
const MOST_NODES: usize = 1 << 16;

/// The deepest nesting.
const MOST_DEPTH: usize = 32;

/// Parses `text`, the content of `file`: its documents that say something, of which there is one at least.
pub(super) fn parse(text: &str, file: &Arc<Path>) -> Result<Vec<Node>> {
    Builder {
        file,
        open: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
        roots: Vec::new(),
    }
    .build(text)
}

/// A list or map that is not at its end yet.
struct Open {
    anchor: usize,
    place: Place,
    /// How many values there were before it.
    before: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map(Vec<(Key, Node)>, Option<Key>),
}

struct Builder<'a> {
    file: &'a Arc<Path>,
    open: Vec<Open>,
    /// Values by anchor, with how many they hold.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    roots: Vec<Node>,
}

impl Builder<'_> {
    fn build(mut self, text: &str) -> Result<Vec<Node>> {
        let mut parser = Parser::new_from_str(text);
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|e| {
                self.place(e.marker())
                    .error(Code::RecipeSyntax, format!("not valid YAML: {}", e.info()))
            })?;
            self.event(event, self.place(&span.start))?;
        }
        self.roots.retain(|root| !root.is_null());
        if self.roots.is_empty() {
            let problem = "the recipe is empty";
            return Err(Error::of_file(Code::RecipeSyntax, self.file, problem));
        }
        Ok(self.roots)
    }

    fn place(&self, marker: &Marker) -> Place {
        Place {
            file: self.file.clone(),
            line: marker.line(),
            column: marker.col() + 1,
        }
    }

    fn event(&mut self, event: Event, place: Place) -> Result<()> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                if let Some(tag) = tag {
                    return Err(place.error(
                        Code::RecipeSyntax,
                        format!("tags (!{}) are not supported", tag.suffix),
                    ));
                }
                let quoted = style != ScalarStyle::Plain;
                let value = if quoted {
                    Value::Scalar(Scalar::Text(text.into_owned()))
                } else {
                    plain(&text)
                };
                let node = Node {
                    place,
                    value,
                    quoted,
                };
                self.add(node, anchor, 1)
            }
            Event::SequenceStart(anchor, None) => {
                self.start(anchor, place, Content::List(Vec::new()))
            }
            Event::MappingStart(anchor, None) => {
                self.start(anchor, place, Content::Map(Vec::new(), None))
            }
            Event::SequenceStart(_, Some(tag)) | Event::MappingStart(_, Some(tag)) => Err(place
                .error(
                    Code::RecipeSyntax,
                    format!("tags (!{}) are not supported", tag.suffix),
                )),
            Event::SequenceEnd | Event::MappingEnd => {
                let open = self.open.pop().expect("the parser closes what it opened");
                let value = match open.content {
                    Content::List(nodes) => Value::List(nodes.into()),
                    Content::Map(entries, _) => Value::Map(entries.into()),
                };
                let held = self.nodes - open.before;
                let node = Node {
                    place: open.place,
                    value,
                    quoted: false,
                };
                self.add(node, open.anchor, held)
            }
            Event::Alias(anchor) => {
                let Some((node, held)) = self.anchors.get(&anchor).cloned() else {
                    return Err(
                        place.error(Code::RecipeSyntax, "this alias is inside of what it names")
                    );
                };
                self.count(held, &place)?;
                self.add(Node { place, ..node }, 0, held)
            }
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn start(&mut self, anchor: usize, place: Place, content: Content) -> Result<()> {
        if self.open.len() == MOST_DEPTH {
            return Err(place.error(
                Code::RecipeSyntax,
                format!("nested more than {MOST_DEPTH} deep"),
            ));
        }
        self.open.push(Open {
            anchor,
            place,
            before: self.nodes,
            content,
        });
        Ok(())
    }

    fn count(&mut self, more: usize, place: &Place) -> Result<()> {
        self.nodes += more;
        if self.nodes > MOST_NODES {
            Err(place.error(Code::RecipeSyntax, format!("more than {MOST_NODES} values")))
        } else {
            Ok(())
        }
    }

    /// Adds a value that is complete and holds `held` values.
    fn add(&mut self, node: Node, anchor: usize, held: usize) -> Result<()> {
        self.count(1, &node.place)?;
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), held + 1));
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.roots.push(node),
            Some(Content::List(nodes)) => nodes.push(node),
            Some(Content::Map(entries, key)) => match key.take() {
                Some(key) => entries.push((key, node)),
                None => {
                    let Value::Scalar(scalar) = node.value else {
                        return Err(node.place.error(Code::RecipeSyntax, "a key must be a name"));
                    };
                    let text = match scalar {
                        Scalar::Text(text) => text,
                        other => other.to_string(),
                    };
                    if let Some((first, _)) = entries.iter().find(|(key, _)| key.text == text) {
                        return Err(node.place.error(
                            Code::RecipeKey,
                            format!("{text} is given twice, first in line {}", first.place.line),
                        ));
                    }
                    *key = Some(Key {
                        text,
                        place: node.place,
                    });
                }
            },
        }
        Ok(())
    }
}

/// What a scalar without quotes means.
pub(super) fn plain(text: &str) -> Value {
    static FLOAT: LazyLock<Regex> = LazyLock::new(|| {
        let float = r"^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|[-+]?\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?)$";
        Regex::new(float).expect("a valid expression")
    });
    let scalar = match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Scalar::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Scalar::Bool(false)
        }
        _ => match (integer(text), special(text)) {
            (Some(int), _) => Scalar::Int(int),
            (None, Some(float)) => Scalar::Float(float),
            (None, None) => match text.replace('_', "").parse() {
                Ok(float) if FLOAT.is_match(text) => Scalar::Float(float),
                _ => Scalar::Text(text.to_owned()),
            },
        },
    };
    Value::Scalar(scalar)
}

fn special(text: &str) -> Option<f64> {
    match text {
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Some(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Some(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => Some(f64::NAN),
        _ => None,
    }
}

/// Decimal, binary (`0b`), octal (a leading 0) and hexadecimal (`0x`) numbers.
fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let digits = digits.replace('_', "");
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'b', ..] => (2, &digits[2..]),
        [b'0', b'x', ..] => (16, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, &*digits),
    };
    if digits.starts_with(['-', '+']) {
        return None;
    }
    let value = i64::from_str_radix(digits, radix).ok()?;
    Some(if negative { -value } else { value })
}

impl Node {
    /// What it is, for messages.
    pub(super) fn kind(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Scalar(scalar) => scalar.to_string(),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map of keys".to_owned(),
        }
    }

    /// An error: `what` is not what it should be.
    pub(super) fn expected(&self, what: &str, expected: &str) -> Error {
        self.place.error(
            Code::RecipeValue,
            format!("{what} is {}, expected {expected}", self.kind()),
        )
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    pub(super) fn list(&self, what: &str) -> Result<&[Node]> {
        match &self.value {
            Value::List(nodes) => Ok(nodes),
            _ => Err(self.expected(what, "a list")),
        }
    }

    pub(super) fn map(&self, what: &str) -> Result<&[(Key, Node)]> {
        match &self.value {
            Value::Map(entries) => Ok(entries),
            _ => Err(self.expected(what, "a map of keys")),
        }
    }

    pub(super) fn text(&self, what: &str) -> Result<&str> {
        match &self.value {
            Value::Scalar(Scalar::Text(text)) => Ok(text),
            _ => Err(self.expected(what, "text")),
        }
    }

    /// A whole number that is not negative.
    pub(super) fn whole(&self) -> Option<u64> {
        match self.value {
            Value::Scalar(Scalar::Int(value)) => u64::try_from(value).ok(),
            _ => None,
        }
    }

    /// A finite number, also where YAML 1.1 takes it for text (`1e-4`).
    pub(super) fn float(&self) -> Option<f64> {
        let value = match self.number()? {
            Scalar::Int(value) => value as f64,
            Scalar::Float(value) => value,
            Scalar::Bool(_) | Scalar::Text(_) => return None,
        };
        value.is_finite().then_some(value)
    }

    /// A number without quotes, also where YAML 1.1 takes it for text.
    pub(super) fn number(&self) -> Option<Scalar> {
        match &self.value {
            Value::Scalar(scalar @ (Scalar::Int(_) | Scalar::Float(_))) => Some(scalar.clone()),
            Value::Scalar(Scalar::Text(text)) if !self.quoted => {
                text.replace('_', "").parse().ok().map(Scalar::Float)
            }
            _ => None,
        }
    }

    pub(super) fn bool(&self, what: &str) -> Result<bool> {
        match self.value {
            Value::Scalar(Scalar::Bool(value)) => Ok(value),
            _ => Err(self.expected(what, "true or false")),
        }
    }
}

/// The entries of a map by name; whatever nobody asked for is an error.
pub(super) struct Fields<'a> {
    what: String,
    place: Place,
    entries: &'a [(Key, Node)],
    known: Vec<&'a str>,
}

impl<'a> Fields<'a> {
    /// The entries of `node`, which may have the keys `known`.
    pub(super) fn new(node: &'a Node, what: &str, known: &[&'a str]) -> Result<Self> {
        let entries = node.map(what)?;
        if let Some((key, _)) = entries.iter().find(|(key, _)| !known.contains(&&*key.text)) {
            return Err(key.place.error(
                Code::RecipeKey,
                format!(
                    "{} is not a key of {what}; its keys are {}{}",
                    key.text,
                    known.join(", "),
                    did_you_mean(&key.text, known.iter().copied())
                ),
            ));
        }
        Ok(Fields {
            what: what.to_owned(),
            place: node.place.clone(),
            entries,
            known: known.to_vec(),
        })
    }

    /// The value of `name`, if there is one that is not null.
    pub(super) fn get(&self, name: &str) -> Option<&'a Node> {
        debug_assert!(self.known.contains(&name), "{name}");
        let found = self.entries.iter().find(|(key, _)| key.text == name);
        found.map(|(_, node)| node).filter(|node| !node.is_null())
    }

    /// The value of `name`, which must be there.
    pub(super) fn require(&self, name: &str) -> Result<&'a Node> {
        self.get(name).ok_or_else(|| {
            self.place
                .error(Code::RecipeKey, format!("{} needs {name}", self.what))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(text: &str) -> Option<Scalar> {
        match plain(text) {
            Value::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    #[test]
    fn plain_scalars_mean_what_they_mean_to_pyyaml() {
        use Scalar::{Bool, Float, Int};
        for (text, expected) in [
            ("yes", Bool(true)),
            ("Off", Bool(false)),
            ("12", Int(12)),
            ("-3", Int(-3)),
            ("1_000", Int(1000)),
            ("010", Int(8)),
            ("0x1F", Int(31)),
            ("0b101", Int(5)),
            ("0.5", Float(0.5)),
            ("1.", Float(1.0)),
            (".5", Float(0.5)),
            ("1.5e-3", Float(0.0015)),
            ("-.inf", Float(f64::NEG_INFINITY)),
        ] {
            assert_eq!(scalar(text), Some(expected), "{text}");
        }
        // Without a point, or a sign behind the e, these are text.
        for text in [
            "1e-4", "1.5e3", "y", "n", "tRuE", "inf", "0o10", "08", "1-2", "--1", "v1.0",
        ] {
            assert_eq!(scalar(text), Some(Scalar::Text(text.to_owned())), "{text}");
        }
        for text in ["", "~", "null"] {
            assert_eq!(scalar(text), None, "{text:?}");
        }
    }
}
