//! What an edit is of: `[FILE:]PATH`.

use std::fmt;

use crate::catalog::CONFIG_FILE;

/// A value in a JSON file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// The path of the file in the checkpoint.
    pub file: String,
    /// At least one step.
    pub path: Path,
}

/// The way to a value, from the top of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path(pub Vec<Step>);

/// A step from an object or list to what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// What is wrong with the text of a target.
type Problem = String;

impl Target {
    /// The target that `text` spells as a whole.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        match Self::parse_start(text)? {
            (target, "") => Ok(target),
            (_, rest) => Err(format!("{rest} is one too many: no value is given here")),
        }
    }

    /// The target that `text` begins with, and the rest: nothing, or a `=` and what follows it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse_start(text: &str) -> Result<(Self, &str), Problem> {
        let mut rest = text;
        let mut file = None;
        let mut steps = Vec::new();
        loop {
            let (step, behind) = next_step(rest)?;
            steps.push(step);
            rest = match behind.chars().next() {
                None | Some('=') => break rest = behind,
                Some('[') => behind,
                Some('.') => &behind[1..],
                Some(':') if file.is_none() => {
                    let name = &text[..text.len() - behind.len()];
                    file = Some(match &mut steps[..] {
                        [Step::Key(name)] => std::mem::take(name),
                        _ => name.to_owned(),
                    });
                    steps.clear();
                    &behind[1..]
                }
                Some(c) => {
                    return Err(format!(
                        "{c} cannot stand here; a key that has it is put in double quotes"
                    ));
                }
            };
        }
        let target = Target {
            file: file.unwrap_or_else(|| CONFIG_FILE.to_owned()),
            path: Path(steps),
        };
        Ok((target, rest))
    }
}

/// The keys that `text` lists, with commas between them; one that has a comma is in double quotes.
///
/// # Errors
/// What is wrong with it.
pub(super) fn keys(text: &str) -> Result<Vec<String>, Problem> {
    let mut keys = Vec::new();
    let mut rest = text;
    loop {
        let (key, behind) = match quoted(rest.trim_start())? {
            Some(found) => found,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                match rest[..end].trim() {
                    "" => return Err("a key is missing between commas".to_owned()),
                    key => (key.to_owned(), &rest[end..]),
                }
            }
        };
        keys.push(key);
        rest = match behind.strip_prefix(',') {
            Some(rest) => rest,
            None if behind.is_empty() => return Ok(keys),
            None => return Err(format!("expected a comma before {behind}")),
        };
    }
}

/// The text that lists `keys`, as [`keys`] reads it.
pub(super) fn list(keys: &[String]) -> String {
    let quoted = keys.iter().map(|key| {
        let is_plain = !key.is_empty() && key.trim() == key && !key.contains(['"', ',']);
        if is_plain {
            key.clone()
        } else {
            serde_json::Value::from(key.as_str()).to_string()
        }
    });
    quoted.collect::<Vec<_>>().join(",")
}

fn next_step(text: &str) -> Result<(Step, &str), Problem> {
    if let Some((key, rest)) = quoted(text)? {
        return Ok((Step::Key(key), rest));
    }
    if let Some(inside) = text.strip_prefix('[') {
        let found = inside.split_once(']');
        let index = found.and_then(|(index, rest)| Some((index.parse().ok()?, rest)));
        return match index {
            Some((index, rest)) => Ok((Step::Index(index), rest)),
            None => Err("an item of a list is [0], [1] and so on".to_owned()),
        };
    }
    let end = text.find(is_special).unwrap_or(text.len());
    match &text[..end] {
        "" => Err("a key is missing; expected keys with points between them".to_owned()),
        key => Ok((Step::Key(key.to_owned()), &text[end..])),
    }
}

/// The text in double quotes that `text` begins with, as JSON has it, and the rest.
fn quoted(text: &str) -> Result<Option<(String, &str)>, Problem> {
    if !text.starts_with('"') {
        return Ok(None);
    }
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<String>();
    match values.next() {
        Some(Ok(key)) => Ok(Some((key, &text[values.byte_offset()..]))),
        _ => Err(format!("the quotes of {text} are not closed")),
    }
}

/// Whether `c` means something in a path, unless it is in quotes.
fn is_special(c: char) -> bool {
    matches!(c, '.' | '[' | ']' | '"' | '=' | ':')
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Target { file, path } = self;
        match &**file {
            CONFIG_FILE => write!(f, "{path}"),
            file if file.chars().all(|c| c == '.' || !is_special(c)) => write!(f, "{file}:{path}"),
            file => write!(f, "{}:{path}", serde_json::Value::from(file)),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    if position > 0 {
                        f.write_str(".")?;
                    }
                    if key.is_empty() || key.contains(is_special) {
                        write!(f, "{}", serde_json::Value::from(key.as_str()))?;
                    } else {
                        f.write_str(key)?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(text: &str) -> Step {
        Step::Key(text.to_owned())
    }

    #[test]
    fn a_path_has_points_between_keys_and_brackets_around_positions() {
        let other = "generation_config.json";
        for (text, file, steps) in [
            ("a", CONFIG_FILE, vec![key("a")]),
            (
                "a.b[2].c",
                CONFIG_FILE,
                vec![key("a"), key("b"), Step::Index(2), key("c")],
            ),
            ("[0][1]", CONFIG_FILE, vec![Step::Index(0), Step::Index(1)]),
            (r#""a.b".c"#, CONFIG_FILE, vec![key("a.b"), key("c")]),
            (r#""a\"=:[".c"#, CONFIG_FILE, vec![key("a\"=:["), key("c")]),
            ("generation_config.json:top_p", other, vec![key("top_p")]),
            (r#""a:b.json":x"#, "a:b.json", vec![key("x")]),
            (
                "1_Pooling/config.json:[0]",
                "1_Pooling/config.json",
                vec![Step::Index(0)],
            ),
        ] {
            let expected = Target {
                file: file.to_owned(),
                path: Path(steps),
            };
            assert_eq!(Target::parse(text).unwrap(), expected, "{text}");
        }
        let (target, rest) = Target::parse_start("a.b={\"x\": [1:2]}").unwrap();
        assert_eq!(target.path.to_string(), "a.b");
        assert_eq!(rest, "={\"x\": [1:2]}");
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in [
            "", ".", "a.", ".a", "a..b", "a[", "a[x]", "a[-1]", "a]", "a\"b", "\"a", "f:", "f:g:h",
            "a=1",
        ] {
            assert!(Target::parse(text).is_err(), "{text}");
        }
        for text in ["", "a,", ",a", "\"a", "\"a\"b"] {
            assert!(keys(text).is_err(), "{text}");
        }
        assert_eq!(keys("a, b,\"c,d\"").unwrap(), ["a", "b", "c,d"]);
    }

    proptest! {
        #[test]
        fn a_path_that_is_shown_is_read_as_the_same(
            steps in prop::collection::vec(
                prop_oneof![any::<String>().prop_map(Step::Key), any::<usize>().prop_map(Step::Index)],
                1..5,
            )
        ) {
            let path = Path(steps);
            prop_assert_eq!(Target::parse(&path.to_string()).unwrap().path, path);
        }

        #[test]
        fn keys_that_are_listed_are_read_as_the_same(
            listed in prop::collection::vec(any::<String>(), 1..4)
        ) {
            prop_assert_eq!(keys(&list(&listed)).unwrap(), listed);
        }
    }
}
