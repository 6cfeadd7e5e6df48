//! A JSON text that is edited where it stands: what no edit is of keeps every byte.

use std::ops::Range;

use serde_json::value::RawValue;

use crate::ops::edits::target::{Path, Step};
use crate::source::not_json;
use crate::spelling::did_you_mean;

const BYTE_ORDER_MARK: &str = "\u{feff}";

/// A JSON text. Where an object has a key several times, the last one counts, as for all that reads
/// such a file into a map.
#[derive(Debug, Clone)]
pub(super) struct Document {
    has_mark: bool,
    text: String,
}

/// What is wrong with an edit.
type Problem = String;

/// A member of an object, or an item of a list.
#[derive(Debug, Clone)]
struct Entry {
    /// The key with its quotes; nothing at the start of an item.
    key: Range<usize>,
    value: Range<usize>,
}

impl Document {
    /// The document of this text.
    ///
    /// # Errors
    /// What is wrong with it, if it is not JSON.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        let bare = bytes.strip_prefix(BYTE_ORDER_MARK.as_bytes());
        let text = bare.unwrap_or(bytes);
        let not_json = |e: serde_json::Error| format!("it is not JSON: {}", not_json(text, &e));
        serde_json::from_slice::<&RawValue>(text).map_err(not_json)?;
        let text = std::str::from_utf8(text).map_err(|e| format!("it is not UTF-8: {e}"))?;
        Ok(Document {
            has_mark: bare.is_some(),
            text: text.to_owned(),
        })
    }

    pub(super) fn into_text(self) -> String {
        match self.has_mark {
            true => BYTE_ORDER_MARK.to_owned() + &self.text,
            false => self.text,
        }
    }

    /// The text of the value at `path`, if there is one.
    pub(super) fn get(&self, path: &[Step]) -> Option<&str> {
        let found = self.find(path).ok()?;
        Some(&self.text[found])
    }

    /// Gives `path` the value of the JSON text `value`. Only the last key may be new. Returns the text
    /// of the value that was there.
    ///
    /// # Errors
    /// If what it is in is not there, or is no object or list.
    pub(super) fn set(&mut self, path: &Path, value: &str) -> Result<Option<String>, Problem> {
        let (last, parent) = path.0.split_last().expect("a path has a step");
        let container = self.find(parent)?;
        match (self.step(&container, path, parent.len()), last) {
            (Ok(entry), _) => Ok(Some(self.replace(entry.value, value))),
            (Err(_), Step::Key(key)) if self.is_object(&container) => {
                let key = serde_json::Value::from(key.as_str()).to_string();
                self.add(&container, &key, value);
                Ok(None)
            }
            (Err(problem), _) => Err(problem),
        }
    }

    /// Takes away what is at `path`, and returns its text.
    ///
    /// # Errors
    /// If there is nothing.
    pub(super) fn unset(&mut self, path: &Path) -> Result<String, Problem> {
        let parent = path.0.len() - 1;
        let container = self.find(&path.0[..parent])?;
        let last = self.step(&container, path, parent)?;
        let old = self.text[last.value].to_owned();
        // Else one that stood before it would count.
        loop {
            let container = self.find(&path.0[..parent])?;
            let Ok(entry) = self.step(&container, path, parent) else {
                return Ok(old);
            };
            self.take(&container, &entry);
            if matches!(path.0[parent], Step::Index(_)) {
                return Ok(old);
            }
        }
    }

    /// Makes the object at `path` the top level, with the members `keep` of the old one behind its
    /// own, or in their places.
    ///
    /// # Errors
    /// If there is no such object, or a key is not there.
    pub(super) fn promote(&mut self, path: &Path, keep: &[String]) -> Result<(), Problem> {
        let inner = self.find(&path.0)?;
        if !self.is_object(&inner) {
            return Err(format!("{path} is {}, no object", self.kind(&inner)));
        }
        let top = self.top();
        let mut kept = Vec::new();
        for key in keep {
            let path = Path(vec![Step::Key(key.clone())]);
            let entry = self.step(&top, &path, 0)?;
            kept.push((path, self.text[entry.value].to_owned()));
        }
        let line = self.text[..inner.start].rfind('\n').map_or(0, |at| at + 1);
        let indent = &self.text[line..inner.start];
        let indent = &indent[..indent.len() - indent.trim_start().len()];
        // No string has a line break, so that only white space between tokens is taken away.
        let inner = self.text[inner].replace(&format!("\n{indent}"), "\n");
        self.text.replace_range(top, &inner);
        for (path, value) in kept {
            self.set(&path, &value)?;
        }
        Ok(())
    }

    /// The keys of the object at `path`; none if it is no object.
    pub(super) fn keys(&self, path: &[Step]) -> Vec<String> {
        match self.find(path) {
            Ok(found) if self.is_object(&found) => {
                let entries = self.entries(&found).into_iter();
                entries.filter_map(|entry| self.key(&entry)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn top(&self) -> Range<usize> {
        let start = after_space(&self.text, 0);
        start..after_value(&self.text, start)
    }

    /// Where the value at `steps` is.
    fn find(&self, steps: &[Step]) -> Result<Range<usize>, Problem> {
        let path = Path(steps.to_vec());
        let mut found = self.top();
        for position in 0..steps.len() {
            found = self.step(&found, &path, position)?.value;
        }
        Ok(found)
    }

    /// The entry of `container` that the step of `path` at `position` leads to.
    fn step(
        &self,
        container: &Range<usize>,
        path: &Path,
        position: usize,
    ) -> Result<Entry, Problem> {
        let here = || match position {
            0 => "the top level".to_owned(),
            _ => Path(path.0[..position].to_vec()).to_string(),
        };
        match &path.0[position] {
            Step::Key(key) if self.is_object(container) => {
                let entries = self.entries(container);
                let mut latest = entries.iter().rev();
                let found = latest.find(|entry| self.key(entry).as_ref() == Some(key));
                found.cloned().ok_or_else(|| {
                    let keys: Vec<String> = entries.iter().filter_map(|e| self.key(e)).collect();
                    let near = did_you_mean(key, keys.iter().map(String::as_str));
                    format!("{} has no key {key}{near}", here())
                })
            }
            Step::Index(index) if self.text[container.start..].starts_with('[') => {
                let mut entries = self.entries(container);
                match entries.len() {
                    count if *index < count => Ok(entries.swap_remove(*index)),
                    0 => Err(format!("{} is an empty list, without [{index}]", here())),
                    count => Err(format!(
                        "{} has no [{index}]: its last item is [{}]",
                        here(),
                        count - 1
                    )),
                }
            }
            Step::Key(key) => Err(format!(
                "{} is {}, no object with a key {key}",
                here(),
                self.kind(container)
            )),
            Step::Index(index) => Err(format!(
                "{} is {}, no list with an item [{index}]",
                here(),
                self.kind(container)
            )),
        }
    }

    fn is_object(&self, value: &Range<usize>) -> bool {
        self.text[value.start..].starts_with('{')
    }

    /// What a value is, for messages.
    fn kind(&self, value: &Range<usize>) -> &'static str {
        match self.text.as_bytes()[value.start] {
            b'{' => "an object",
            b'[' => "a list",
            b'"' => "text",
            b't' | b'f' => "true or false",
            b'n' => "null",
            _ => "a number",
        }
    }

    /// The key of a member; none of an item, or if it is no text that Unicode has.
    fn key(&self, entry: &Entry) -> Option<String> {
        serde_json::from_str(&self.text[entry.key.clone()]).ok()
    }

    /// What is in an object or a list.
    fn entries(&self, container: &Range<usize>) -> Vec<Entry> {
        let text = &self.text;
        let is_object = self.is_object(container);
        let mut entries = Vec::new();
        let mut at = after_space(text, container.start + 1);
        while at < container.end - 1 {
            let mut key = at..at;
            if is_object {
                key.end = after_value(text, at);
                let colon = after_space(text, key.end);
                at = after_space(text, colon + 1);
            }
            let value = at..after_value(text, at);
            at = after_space(text, value.end);
            if text[at..].starts_with(',') {
                at = after_space(text, at + 1);
            }
            entries.push(Entry { key, value });
        }
        entries
    }

    fn replace(&mut self, place: Range<usize>, value: &str) -> String {
        let old = self.text[place.clone()].to_owned();
        self.text.replace_range(place, value);
        old
    }

    /// Adds a member at the end of an object, in the manner of the one before it.
    fn add(&mut self, object: &Range<usize>, key: &str, value: &str) {
        let entries = self.entries(object);
        let Some(last) = entries.last() else {
            let member = match self.line_break() {
                None => format!("{{{key}: {value}}}"),
                Some(line_break) => {
                    let (outer, inner) = self.indents(object.start);
                    format!("{{{line_break}{inner}{key}: {value}{line_break}{outer}}}")
                }
            };
            self.text.replace_range(object.clone(), &member);
            return;
        };
        let before = &self.text[..last.key.start];
        let colon = &self.text[last.key.end..last.value.start];
        let space = match &before[before.trim_end_matches(is_space).len()..] {
            // The first one does not show what stands behind a comma.
            "" if entries.len() == 1 && colon.ends_with(' ') => " ",
            space => space,
        };
        let member = format!(",{space}{key}{colon}{value}");
        self.text.insert_str(last.value.end, &member);
    }

    /// Takes away an entry with the comma before it, or of the first one the comma behind it.
    fn take(&mut self, container: &Range<usize>, entry: &Entry) {
        let entries = self.entries(container);
        let position = entries.iter().position(|e| e.value == entry.value);
        let position = position.expect("it is an entry of it");
        let place = match (position.checked_sub(1), entries.get(position + 1)) {
            (Some(before), _) => entries[before].value.end..entry.value.end,
            (None, Some(next)) => entry.key.start..next.key.start,
            (None, None) => container.start + 1..container.end - 1,
        };
        self.text.replace_range(place, "");
    }

    /// How lines end, if there are several.
    fn line_break(&self) -> Option<&'static str> {
        let at = self.text.trim_end().find('\n')?;
        let is_crlf = self.text[..at].ends_with('\r');
        Some(if is_crlf { "\r\n" } else { "\n" })
    }

    /// How far the line of the value at `start` is indented, and how far what is inside of it.
    fn indents(&self, start: usize) -> (String, String) {
        let of_line = |at: usize| {
            let line = self.text[..at].rfind('\n').map_or(0, |at| at + 1);
            let line = &self.text[line..];
            &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
        };
        let outer = of_line(start);
        let first = self
            .entries(&self.top())
            .first()
            .map(|entry| entry.key.start);
        let unit = match first.map_or("", of_line) {
            "" => "  ",
            unit => unit,
        };
        (outer.to_owned(), format!("{outer}{unit}"))
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

fn after_space(text: &str, at: usize) -> usize {
    text.len() - text[at..].trim_start_matches(is_space).len()
}

/// The end of the JSON value that begins at `at`.
fn after_value(text: &str, at: usize) -> usize {
    let bytes = text.as_bytes();
    let mut depth = 0usize;
    let mut at = at;
    loop {
        match bytes[at] {
            b'"' => at = after_string(bytes, at),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth -= 1;
                at += 1;
            }
            _ if depth > 0 => at += 1,
            _ => {
                let ends = |c: &u8| matches!(c, b',' | b']' | b'}' | b':') || is_space(*c as char);
                return bytes[at..]
                    .iter()
                    .position(ends)
                    .map_or(text.len(), |n| at + n);
            }
        }
        if depth == 0 {
            return at;
        }
    }
}

fn after_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    loop {
        match bytes[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}
