//! What a view is called where it is served as a repository of the Hub.

use std::fmt;

/// A repository's name, such as `org/model`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoName(String);

/// The namespace of names that nobody chose.
const NAMESPACE: &str = "ckptfs";

impl RepoName {
    /// The longest that clients take.
    const MAX_BYTES: usize = 96;

    /// The name `text`, which must be one that clients take: `model` or `org/model`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let is_name = |part: &&str| {
            let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            let is_edge = |c: char| c == '-' || c == '.';
            !part.is_empty()
                && part.chars().all(known)
                && !part.starts_with(is_edge)
                && !part.ends_with(is_edge)
                && !part.contains("--")
                && !part.contains("..")
        };
        if parts.len() > 2 || !parts.iter().all(is_name) || text.len() > Self::MAX_BYTES {
            return Err(format!(
                "{text:?} is not a name of a repository, such as org/model: letters, digits, -, _ and ., at most {} in all",
                Self::MAX_BYTES
            ));
        }
        // Paths that begin so are the server's own.
        if parts[0] == "api" || text.ends_with(".git") {
            return Err(format!("{text:?} cannot be a name of a repository"));
        }
        Ok(RepoName(text.to_owned()))
    }

    /// The name for a view of `source`, a file's or directory's name.
    pub fn of_source(source: &str) -> Self {
        let mut name = String::new();
        for c in source.chars() {
            let c = match c {
                c if c.is_ascii_alphanumeric() || c == '_' => c,
                '.' => '.',
                _ => '-',
            };
            let repeats = "-.".contains(c) && name.ends_with(['-', '.']);
            if !repeats && name.len() < 64 {
                name.push(c);
            }
        }
        let name = name.trim_matches(['-', '.']).trim_end_matches(".git");
        let of_source = RepoName::parse(&format!("{NAMESPACE}/{name}"));
        of_source.unwrap_or_else(|_| RepoName(format!("{NAMESPACE}/view")))
    }

    /// Its parts: one or two.
    pub(super) fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
