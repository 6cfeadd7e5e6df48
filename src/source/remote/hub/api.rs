//! What the API of the Hub replies.

use serde::Deserialize;

/// A file of a repository.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FileEntry {
    pub(super) path: String,
    pub(super) len: u64,
    /// SHA-256 of a large file; the object name of git of a small one.
    pub(super) hash: String,
}

#[derive(Deserialize)]
struct Revision {
    sha: String,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    oid: String,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

/// The commit of a revision.
pub(super) fn commit(text: &[u8]) -> Option<String> {
    let revision: Revision = serde_json::from_slice(text).ok()?;
    let is_hex = revision.sha.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_hex && revision.sha.len() >= 40).then_some(revision.sha)
}

/// The files of a page of a tree. Names that could not be below a directory are left out.
pub(super) fn files(text: &[u8]) -> Result<Vec<FileEntry>, serde_json::Error> {
    let entries: Vec<Entry> = serde_json::from_slice(text)?;
    let files = entries.into_iter().filter(|entry| entry.kind == "file");
    let files = files.map(|entry| match entry.lfs {
        Some(Lfs { oid, size }) => FileEntry {
            path: entry.path,
            len: size,
            hash: oid,
        },
        None => FileEntry {
            path: entry.path,
            len: entry.size,
            hash: entry.oid,
        },
    });
    Ok(files.collect())
}

/// The URL of the next page, as the header `Link` has it.
pub(super) fn next(link: &str) -> Option<&str> {
    link.split(',').find_map(|part| {
        let (url, rest) = part.trim().strip_prefix('<')?.split_once('>')?;
        rest.contains("rel=\"next\"").then_some(url)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_a_tree_has_files_with_their_true_sizes() {
        let text = br#"[
            {"type": "directory", "oid": "d1", "size": 0, "path": "a"},
            {"type": "file", "oid": "g1", "size": 5, "path": "config.json"},
            {"type": "file", "oid": "g2", "size": 134, "path": "a/m.safetensors",
             "lfs": {"oid": "s256", "size": 9000000000, "pointerSize": 134}, "xetHash": "x"}
        ]"#;
        let file = |path: &str, len, hash: &str| FileEntry {
            path: path.to_owned(),
            len,
            hash: hash.to_owned(),
        };
        let expected = [
            file("config.json", 5, "g1"),
            file("a/m.safetensors", 9_000_000_000, "s256"),
        ];
        assert_eq!(files(text).unwrap(), expected);
        assert!(files(b"{}").is_err());
        assert_eq!(
            next("<https://h/x?c=1>; rel=\"next\""),
            Some("https://h/x?c=1")
        );
        assert_eq!(next("<https://h/x>; rel=\"prev\""), None);
        assert_eq!(commit(b"{\"sha\": \"main\"}"), None);
    }
}
