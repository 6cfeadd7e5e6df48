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

/// The length of `scheme://host:port` at the start of `text`, whose colons separate nothing here; 0 for a path.
fn authority_len(text: &str) -> usize {
    let Location::Url(url) = Location::from(text) else {
        return 0;
    };
    let host = url.find("://").map_or(0, |at| at + 3);
    url[host..].find('/').map_or(url.len(), |len| host + len)
}

/// `DIR`, or `DIR:WEIGHT` if the text after the last colon is a number.
///
/// # Errors
/// If the weight is not finite.
pub fn weighted_source(text: &str) -> Result<Value, String> {
    let (path, weight) = match text.rsplit_once(':') {
        Some((path, weight)) if path.len() >= authority_len(text) => match weight.parse() {
            Ok(weight) => (path, weight),
            Err(_) => (text, 1.0),
        },
        _ => (text, 1.0),
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
/// have colons itself), or else at the first one. Those of `scheme://host:port` are none.
fn selective(text: &str, exists: impl Fn(&str) -> bool) -> Value {
    let source = |path: &str, names: Option<&str>| Value::Source {
        location: path.into(),
        weight: 1.0,
        names: names.map(str::to_owned),
    };
    let colons = text.match_indices(':').map(|(at, _)| at);
    let authority = authority_len(text);
    let colons: Vec<usize> = colons.filter(|at| *at >= authority).collect();
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
    fn a_weight_begins_behind_the_last_colon_and_a_port_is_none() {
        for (text, path, number) in [
            ("/m", "/m", 1.0),
            ("/m:0.5", "/m", 0.5),
            ("s3://bucket/m:2", "s3://bucket/m", 2.0),
            ("http://host:80", "http://host:80", 1.0),
            ("http://host:80/m:3", "http://host:80/m", 3.0),
        ] {
            let expected = Value::Source {
                location: path.into(),
                weight: number,
                names: None,
            };
            assert_eq!(weighted_source(text), Ok(expected), "{text}");
        }
    }

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
            ("http://host:1/m", "http://host:1/m", None),
            ("http://host:1/m:x:y", "http://host:1/m", Some("x:y")),
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
