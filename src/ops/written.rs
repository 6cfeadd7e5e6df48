//! Values of settings as people write them in one text: on a command line, or in Python.

use std::path::Path;

use crate::ops::params::Value;
use crate::source::Location;

/// The value of a file that `text` names: `NAME=PATH`.
///
/// # Errors
/// What is wrong with it.
pub fn named_file(text: &str) -> Result<Value, String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok(Value::File {
            name: Some(name.to_owned()),
            from: Location::from(path),
        }),
        _ => Err(format!(
            "{text:?} is not NAME=PATH, such as chat_template.jinja=/files/template.jinja"
        )),
    }
}

/// `DIR`, or `DIR:WEIGHT` if the text after the last colon is a number.
///
/// # Errors
/// If the weight is not finite.
pub fn weighted_source(text: &str) -> Result<Value, String> {
    let (path, weight) = match text.rsplit_once(':') {
        Some((path, weight)) => match weight.parse() {
            Ok(weight) => (path, weight),
            Err(_) => (text, 1.0),
        },
        None => (text, 1.0),
    };
    if f64::is_finite(weight) {
        Ok(Value::Source {
            location: path.into(),
            weight,
            names: None,
        })
    } else {
        Err(format!("the weight {weight} is not finite"))
    }
}

/// `DIR`, or `DIR:REGEX`; the path of a directory that is there may have colons.
pub fn selective_source(text: &str) -> Value {
    selective(text, |path| Path::new(path).exists())
}

/// `DIR`, or `DIR:REGEX`: split at the first colon before which there is a path that `exists` (it may
/// have colons itself), or else at the first one. That of `scheme://` is none.
fn selective(text: &str, exists: impl Fn(&str) -> bool) -> Value {
    let source = |path: &str, names: Option<&str>| Value::Source {
        location: path.into(),
        weight: 1.0,
        names: names.map(str::to_owned),
    };
    let colons = text.match_indices(':').map(|(at, _)| at);
    let colons: Vec<usize> = colons
        .filter(|at| !text[*at..].starts_with("://"))
        .collect();
    let of_path = || colons.iter().find(|at| exists(&text[..**at]));
    match of_path().or(colons.first()) {
        Some(at) if !exists(text) => source(&text[..*at], Some(&text[at + 1..])),
        _ => source(text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regular_expression_begins_behind_the_first_colon_that_is_not_of_the_path() {
        let there = ["/m", "/a:b", "/a"];
        for (text, path, names) in [
            ("/m", "/m", None),
            ("/m:x", "/m", Some("x")),
            ("/m:(?:a|b)", "/m", Some("(?:a|b)")),
            ("/a:b", "/a:b", None),
            ("/a:b:c:d", "/a", Some("b:c:d")),
            ("org/model:x:y", "org/model", Some("x:y")),
            ("s3://bucket/m:x", "s3://bucket/m", Some("x")),
            ("s3://bucket/m", "s3://bucket/m", None),
        ] {
            let expected = Value::Source {
                location: path.into(),
                weight: 1.0,
                names: names.map(str::to_owned),
            };
            assert_eq!(selective(text, |path| there.contains(&path)), expected);
        }
    }
}
