//! The files beside the weights, by their paths: `generation_config.json`, `1_Pooling/config.json`.

use std::ffi::OsStr;
use std::sync::Arc;

use regex::Regex;

use crate::catalog::Catalog;
use crate::error::{Code, Error, Result};
use crate::format::OUTPUT;
use crate::ops::pattern;
use crate::source::{Attributes, AuxEntry, Blob, never_shown};

/// The longest path of a file that is added.
const MOST_PATH_BYTES: usize = 1024;

/// The entry of `aux` at `path`.
pub(super) fn find<'a>(aux: &'a [AuxEntry], path: &str) -> Option<&'a AuxEntry> {
    let (first, rest) = split(path);
    let entry = aux.iter().find(|entry| entry.name() == first)?;
    match (entry, rest) {
        (entry, None) => Some(entry),
        (AuxEntry::Directory { entries, .. }, Some(rest)) => find(entries, rest),
        _ => None,
    }
}

/// Puts a file at `path`, with the directories that it is in, which have `attributes` if they are
/// new. Returns whether there was a file.
///
/// # Errors
/// If a directory is there, or a file where a directory should be.
pub(super) fn put(
    aux: &mut Vec<AuxEntry>,
    path: &str,
    attributes: Attributes,
    file: impl FnOnce(&OsStr) -> AuxEntry,
) -> std::result::Result<bool, String> {
    let (first, rest) = split(path);
    let at = aux.iter().position(|entry| entry.name() == first);
    match (at.map(|at| &mut aux[at]), rest) {
        (None, None) => aux.push(file(first.as_ref())),
        (None, Some(rest)) => {
            let mut entries = Vec::new();
            put(&mut entries, rest, attributes, file)?;
            aux.push(AuxEntry::Directory {
                name: first.into(),
                attributes,
                entries,
            });
        }
        (Some(AuxEntry::Directory { entries, .. }), Some(rest)) => {
            return put(entries, rest, attributes, file);
        }
        (Some(AuxEntry::Directory { .. }), None) => {
            return Err(format!("{first} is a directory of the base"));
        }
        (Some(_), Some(_)) => {
            return Err(format!("{first} is a file of the base, no directory"));
        }
        (Some(entry), None) => {
            *entry = file(first.as_ref());
            return Ok(true);
        }
    }
    aux.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(false)
}

/// Takes away what `glob` matches: files, and directories with all that is in them. Returns their
/// paths.
pub(super) fn take(aux: &mut Vec<AuxEntry>, glob: &Glob) -> Vec<String> {
    let mut taken = Vec::new();
    take_below("", aux, glob, &mut taken);
    taken
}

fn take_below(parent: &str, aux: &mut Vec<AuxEntry>, glob: &Glob, taken: &mut Vec<String>) {
    aux.retain_mut(|entry| {
        let path = format!("{parent}{}", entry.name().to_string_lossy());
        let is_taken = glob.0.is_match(&path);
        match entry {
            AuxEntry::Directory { .. } if is_taken => taken.push(path + "/"),
            AuxEntry::Directory { entries, .. } => {
                take_below(&(path + "/"), entries, glob, taken);
            }
            _ if is_taken => taken.push(path),
            _ => {}
        }
        !is_taken
    });
}

/// The paths of all files.
pub(super) fn paths(aux: &[AuxEntry]) -> Vec<String> {
    let mut paths = Vec::new();
    for entry in aux {
        let name = entry.name().to_string_lossy();
        match entry {
            AuxEntry::Directory { entries, .. } => {
                let below = self::paths(entries).into_iter();
                paths.extend(below.map(|path| format!("{name}/{path}")));
            }
            _ => paths.push(name.into_owned()),
        }
    }
    paths
}

/// Checks that a file can be called `path` in a view.
///
/// # Errors
/// Why it cannot.
pub(super) fn check_path(path: &str) -> std::result::Result<(), String> {
    let (first, rest) = split(path);
    if path.is_empty() {
        return Err("the name is empty".to_owned());
    }
    if path.len() > MOST_PATH_BYTES {
        return Err(format!(
            "the name has {} bytes; at most {MOST_PATH_BYTES} are allowed",
            path.len()
        ));
    }
    if path.contains('\0') {
        return Err("no file has a name with a NUL character".to_owned());
    }
    let leads_out = |part: &str| matches!(part, "" | "." | "..");
    if path.split('/').any(leads_out) {
        return Err("the name must be that of a file inside of the view, such as generation_config.json or 1_Pooling/config.json".to_owned());
    }
    if rest.is_none() && is_of_weights(path) {
        return Err("this is the name of a shard or of an index, which the view makes".to_owned());
    }
    match never_shown(first) {
        Some(reason) => Err(format!("no view shows a file of this name: {reason}")),
        None => Ok(()),
    }
}

/// Whether a file called `path` holds tensors, or is an index of them.
pub(super) fn is_of_weights(path: &str) -> bool {
    OUTPUT.is_shard(path.as_ref()) || path == OUTPUT.index_file()
}

/// The names of the shards of `catalog`, and of the index.
pub(super) fn of_weights(catalog: &Catalog) -> Vec<&str> {
    let mut names: Vec<&str> = catalog.homes.iter().map(|shard| &*shard.name).collect();
    names.push(OUTPUT.index_file());
    names
}

/// The entry of a file that is read from `file`, or has this `text` in its place.
pub(super) fn entry(name: &OsStr, file: Arc<dyn Blob>, text: Option<Vec<u8>>) -> AuxEntry {
    let name = name.to_owned();
    match text {
        Some(text) => AuxEntry::Edited {
            name,
            file,
            text: Arc::new(text),
        },
        None => AuxEntry::File { name, file },
    }
}

/// The first part of a path, and what is below it.
fn split(path: &str) -> (&str, Option<&str>) {
    match path.split_once('/') {
        Some((first, rest)) => (first, Some(rest)),
        None => (path, None),
    }
}

/// A pattern of paths: `*` and `?` are any characters of a name, `**` also goes through directories,
/// and `[…]` is one of these characters.
#[derive(Debug)]
pub(super) struct Glob(Regex);

impl Glob {
    /// The pattern that `text` is, which `setting` has.
    ///
    /// # Errors
    /// If it is too long, or a bracket is not closed.
    pub(super) fn new(setting: &'static str, text: &str) -> Result<Self> {
        let mut regex = String::from("^(?s:");
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let mut taken = c.len_utf8();
            match c {
                '*' if rest.starts_with("**/") => {
                    regex += "(?:.*/)?";
                    taken = 3;
                }
                '*' if rest.starts_with("**") => {
                    regex += ".*";
                    taken = 2;
                }
                '*' => regex += "[^/]*",
                '?' => regex += "[^/]",
                '[' => {
                    let inside = &rest[1..];
                    let (not, inside) = match inside.strip_prefix(['!', '^']) {
                        Some(inside) => ("^", inside),
                        None => ("", inside),
                    };
                    // The first character may be a bracket.
                    let first = inside.chars().next().map_or(0, char::len_utf8);
                    let Some(end) = inside[first..].find(']').map(|end| first + end) else {
                        let error = Error::new(Code::BadPattern, "a bracket is not closed");
                        return Err(error.about_value(setting, text));
                    };
                    regex += &format!("[{not}{}]", in_class(&inside[..end]));
                    taken = rest.len() - inside.len() + end + 1;
                }
                c => regex += &regex::escape(c.encode_utf8(&mut [0; 4])),
            }
            rest = &rest[taken..];
        }
        Ok(Glob(pattern::compile(setting, &(regex + ")$"))?))
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        self.0.is_match(path)
    }
}

/// The characters between brackets as those of a regular expression have them.
fn in_class(characters: &str) -> String {
    let mut class = String::new();
    for c in characters.chars() {
        if matches!(c, '\\' | '[' | ']' | '&' | '~' | '^') {
            class.push('\\');
        }
        class.push(c);
    }
    class
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_matches_whole_paths_and_only_two_stars_go_through_directories() {
        let matches = |glob: &str, path: &str| Glob::new("drop_file", glob).unwrap().matches(path);
        for (glob, path) in [
            ("*.md", "README.md"),
            ("*", "a"),
            ("**/*.md", "README.md"),
            ("**/*.md", "a/b/c.md"),
            ("a/**", "a/b/c.md"),
            ("a?.txt", "aé.txt"),
            ("[ab].txt", "b.txt"),
            ("[!ab].txt", "c.txt"),
            ("[]x].txt", "].txt"),
            ("a.b", "a.b"),
            ("[a-c]+", "b+"),
        ] {
            assert!(matches(glob, path), "{glob} {path}");
        }
        for (glob, path) in [
            ("*.md", "a/README.md"),
            ("*.md", "README.md.bak"),
            ("a.b", "axb"),
            ("?", "/"),
            ("[!ab].txt", "a.txt"),
            ("", "a"),
        ] {
            assert!(!matches(glob, path), "{glob} {path}");
        }
        assert!(Glob::new("drop_file", "[a").is_err());
    }
}
