//! Files beside the weights of two views, by path.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::catalog::{CONFIG_FILE, Config};
use crate::diff::what::What;
use crate::error::Result;
use crate::jobs::{Progress, check_going_on};
use crate::read::Reader;
use crate::recipe::Plan;
use crate::view::EntryId;

/// A file that is not the same in both views.
#[derive(Debug, Clone, Serialize)]
pub struct FileDiff {
    pub path: PathBuf,
    pub what: What,
    /// Of config.json, the keys that are different; empty if it cannot be read as JSON.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyDiff>,
}

/// A key of a JSON file that has not the same value in both.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KeyDiff {
    /// `outer.inner` inside of objects.
    pub key: String,
    /// The value in the first file; null if there is none.
    pub a: Option<Value>,
    /// The value in the second file; null if there is none.
    pub b: Option<Value>,
}

/// The files of `plan`'s view but for shards and index, which follow from the tensors.
fn files(plan: &Plan) -> BTreeMap<PathBuf, EntryId> {
    let shards: HashSet<EntryId> = plan.shards.iter().map(|shard| shard.entry).collect();
    let files = plan.view.files();
    files
        .filter(|(id, ..)| !shards.contains(id) && Some(*id) != plan.index)
        .map(|(id, path, _)| (path, id))
        .collect()
}

/// Gives how many files are the same, and all others.
pub(super) fn compare(
    plans: [&Plan; 2],
    readers: [&Reader; 2],
    progress: &dyn Progress,
) -> Result<(usize, Vec<FileDiff>)> {
    let [a, b] = plans.map(files);
    let paths: std::collections::BTreeSet<&PathBuf> = a.keys().chain(b.keys()).collect();
    let both = paths
        .iter()
        .filter_map(|path| Some([*a.get(*path)?, *b.get(*path)?]));
    progress.start(both.map(|entries| bytes_to_read(plans, entries)).sum());
    let mut different = Vec::new();
    let count = paths.len();
    for path in paths {
        let what = match (a.get(path), b.get(path)) {
            (Some(_), None) => What::Removed,
            (None, _) => What::Added,
            (Some(&in_a), Some(&in_b)) => {
                progress.file(path);
                if is_same(plans, readers, [in_a, in_b], progress)? {
                    continue;
                }
                What::Changed
            }
        };
        let mut keys = Vec::new();
        if what == What::Changed && path == Path::new(CONFIG_FILE) {
            let [a, b] = [json(readers[0], a[path])?, json(readers[1], b[path])?];
            if let (Some(a), Some(b)) = (a, b) {
                key_diffs("", Some(&a), Some(&b), &mut keys);
            }
        }
        different.push(FileDiff {
            path: path.clone(),
            what,
            keys,
        });
    }
    Ok((count - different.len(), different))
}

/// Bytes that comparing two files reads.
fn bytes_to_read(plans: [&Plan; 2], [in_a, in_b]: [EntryId; 2]) -> u64 {
    let lengths = [(plans[0], in_a), (plans[1], in_b)]
        .map(|(plan, id)| plan.view.file(id).map_or(0, |file| file.len()));
    if lengths[0] == lengths[1] {
        lengths[0] + lengths[1]
    } else {
        0
    }
}

fn is_same(
    plans: [&Plan; 2],
    [a, b]: [&Reader; 2],
    [in_a, in_b]: [EntryId; 2],
    progress: &dyn Progress,
) -> Result<bool> {
    const CHUNK_BYTES: usize = 1 << 20;
    let contents = (plans[0].view.file(in_a), plans[1].view.file(in_b));
    let (Some(of_a), Some(of_b)) = contents else {
        return Ok(false);
    };
    if of_a.len() != of_b.len() {
        return Ok(false);
    }
    let mut buffers = [(); 2].map(|()| vec![0; CHUNK_BYTES.min(of_a.len() as usize)]);
    let mut at = 0;
    while at < of_a.len() {
        check_going_on(progress)?;
        let [for_a, for_b] = &mut buffers;
        let count = a.read_at(in_a, at, for_a)?;
        let other = b.read_at(in_b, at, for_b)?;
        if for_a[..count] != for_b[..other] {
            progress.advance(2 * (of_a.len() - at));
            return Ok(false);
        }
        progress.advance(2 * count as u64);
        at += count as u64;
    }
    Ok(true)
}

/// The file as JSON, if it is that and not too long.
fn json(reader: &Reader, entry: EntryId) -> Result<Option<Value>> {
    let len = reader.view().file(entry).map_or(0, |file| file.len());
    if len > Config::MAX_BYTES {
        return Ok(None);
    }
    let mut text = vec![0; len as usize];
    reader.read_at(entry, 0, &mut text)?;
    Ok(serde_json::from_slice(&text).ok())
}

/// Adds what is different from `a` to `b`, the values of `key`.
fn key_diffs(key: &str, a: Option<&Value>, b: Option<&Value>, keys: &mut Vec<KeyDiff>) {
    match (a, b) {
        (a, b) if a == b => {}
        (Some(Value::Object(of_a)), Some(Value::Object(of_b))) => {
            let more = of_b.keys().filter(|inner| !of_a.contains_key(*inner));
            for inner in of_a.keys().chain(more) {
                let path = match key {
                    "" => inner.clone(),
                    outer => format!("{outer}.{inner}"),
                };
                key_diffs(&path, of_a.get(inner), of_b.get(inner), keys);
            }
        }
        (a, b) => keys.push(KeyDiff {
            key: key.to_owned(),
            a: a.cloned(),
            b: b.cloned(),
        }),
    }
}
