//! What to say of a path that is not what it should be.

use std::fs;
use std::path::Path;

use crate::error::setting::RECIPE;
use crate::error::{Code, Error, Hint, Result};
use crate::shown::Show;

/// Checks that `path` is a directory.
///
/// # Errors
/// If there is none; the message names what is near it.
pub fn check_directory(path: &Path) -> Result<()> {
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(a_file(path)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(missing(path, "directory")),
        Err(e) => Err(Error::io("read the attributes", path, e)),
    }
}

/// The error about `path`, which does not exist and should be a `what` ("directory").
pub fn missing(path: &Path, what: &str) -> Error {
    let error = Error::of_file(Code::NotFound, path, format!("there is no such {what}"));
    match near(path) {
        Some(near) => error.with_hint(near),
        None => error,
    }
}

fn a_file(path: &Path) -> Error {
    let extension = path.extension().unwrap_or_default();
    let hint = match path.parent() {
        _ if extension == "yml" || extension == "yaml" => Hint::give(RECIPE).to("read a recipe"),
        Some(parent) if parent != Path::new("") => Hint::text(format!(
            "give the directory that it is in, {}",
            parent.shown()
        )),
        _ => Hint::text("give the directory that it is in"),
    };
    let problem = "this is a file, and a directory is wanted";
    Error::of_file(Code::WrongFileKind, path, problem).with_hint(hint)
}

/// Names beside the first part of `path` that does not exist.
fn near(path: &Path) -> Option<String> {
    /// Names to choose from.
    const SHOWN: usize = 5;
    /// The share of characters in common from which a name is taken for a misspelling.
    const SIMILAR: f64 = 0.6;
    let path = std::path::absolute(path).ok()?;
    let existing = path.ancestors().skip(1).find(|path| path.is_dir())?;
    let below = path.strip_prefix(existing).expect("it is an ancestor");
    let wanted = below.iter().next().unwrap_or_default().to_string_lossy();
    let wanted = wanted.to_lowercase();
    let entries = fs::read_dir(existing).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    let likeness = |name: &String| {
        let name = name.to_lowercase();
        if name.contains(&wanted) || wanted.contains(&name) {
            1.0
        } else {
            strsim::normalized_damerau_levenshtein(&name, &wanted)
        }
    };
    let mut similar: Vec<(f64, &String)> = names.iter().map(|n| (likeness(n), n)).collect();
    similar.retain(|(likeness, _)| *likeness >= SIMILAR);
    similar.sort_by(|a, b| b.0.total_cmp(&a.0));
    if let Some((_, name)) = similar.first() {
        let first = existing.join(name);
        let rest = below.iter().skip(1);
        let whole = rest.fold(first.clone(), |path, part| path.join(part));
        let meant = if whole.exists() { whole } else { first };
        return Some(format!("did you mean {}?", meant.shown()));
    }
    let shown: Vec<String> = names
        .iter()
        .take(SHOWN)
        .map(|name| name.shown().to_string())
        .collect();
    let more = match names.len() {
        0 => return Some(format!("{} is empty", existing.shown())),
        count if count > SHOWN => format!(" and {} more", count - SHOWN),
        _ => String::new(),
    };
    let shown = shown.join(", ");
    Some(format!("{} holds {shown}{more}", existing.shown()))
}

/// What is wrong with `text`, which `error` says is not JSON.
pub(crate) fn not_json(text: &[u8], error: &serde_json::Error) -> String {
    match text {
        [0xef, 0xbb, 0xbf, ..] => "it begins with a byte order mark (BOM), which JSON does not allow; save it as UTF-8 without one".to_owned(),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "it is UTF-16, and JSON is UTF-8; save it as that".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_a_path_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let here = directory.path().display().to_string();
        let problem = |name: &str| missing(&at(name), "directory").to_string();
        assert_eq!(
            problem("x"),
            format!("{here}/x: there is no such directory; {here} is empty")
        );
        fs::create_dir_all(at("models/Qwen3-8B")).unwrap();
        fs::create_dir_all(at("models/llama")).unwrap();
        for (wrong, right) in [
            ("model/Qwen3-8B", "models/Qwen3-8B"),
            ("models/qwen3-8b", "models/Qwen3-8B"),
            ("models/Qwen3-8", "models/Qwen3-8B"),
            ("modles/none/at/all", "models"),
        ] {
            let meant = format!("; did you mean {here}/{right}?");
            assert!(problem(wrong).ends_with(&meant), "{}", problem(wrong));
        }
        let holds = format!("; {here}/models holds Qwen3-8B, llama");
        assert!(problem("models/zzz").ends_with(&holds));
    }
}
