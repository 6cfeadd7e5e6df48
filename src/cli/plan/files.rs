//! The files of a view, a line each; many shards of one kind in a line.

use std::path::Path;

use indicatif::BinaryBytes;

use ckptfs::catalog::{CONFIG_FILE, Edit, EditedConfig};
use ckptfs::layout::PlannedShard;
use ckptfs::recipe::Plan;
use ckptfs::shown::Show;
use ckptfs::text::counted;

/// Shards of one kind that follow each other have a line each if they are fewer.
const MIN_FOLDED: usize = 5;

/// What a shard is.
#[derive(Debug, PartialEq, Eq)]
enum Kind<'a> {
    /// A whole source file of this directory.
    SourceFile(Option<&'a Path>),
    /// Put together of stored tensors.
    Stored,
    /// Put together, some of it computed.
    Computed,
}

impl<'a> From<&'a PlannedShard> for Kind<'a> {
    fn from(shard: &'a PlannedShard) -> Self {
        match &shard.whole_file {
            Some(file) => Kind::SourceFile(file.parent()),
            None if shard.tensors.iter().any(|tensor| tensor.computed) => Kind::Computed,
            None => Kind::Stored,
        }
    }
}

/// All files of the view of `plan`.
pub(super) fn lines(plan: &Plan) -> String {
    let mut text = String::new();
    for run in plan.shards.chunk_by(|a, b| Kind::from(a) == Kind::from(b)) {
        if run.len() < MIN_FOLDED {
            run.iter().for_each(|shard| text += &line(shard))
        } else {
            text += &folded(run)
        }
    }
    for (path, content) in plan.aux_files() {
        let how = match (content.whole_file(), &plan.report.edited_config) {
            (Some(source), _) => format!("= {}", source.location().shown()),
            (None, Some(config)) if path == Path::new(CONFIG_FILE) => edits(config),
            _ if plan.report.edits_of(&path).next().is_some() => "edited".to_owned(),
            _ => "new".to_owned(),
        };
        let len = BinaryBytes(content.len());
        text += &format!("{}  {len}  {how}\n", path.shown());
    }
    text
}

fn line(shard: &PlannedShard) -> String {
    let computed = shard.tensors.iter().filter(|t| t.computed).count();
    let how = match &shard.whole_file {
        Some(source) => format!("= {}", source.shown()),
        None => format!(
            "{}, {computed} computed",
            counted(shard.tensors.len(), "tensor")
        ),
    };
    format!("{}  {}  {how}\n", shard.name, BinaryBytes(shard.len))
}

/// Many shards of one kind: the first and the last, and how large each is.
fn folded(run: &[PlannedShard]) -> String {
    let lengths = || run.iter().map(|shard| shard.len);
    let smallest = BinaryBytes(lengths().min().unwrap_or(0)).to_string();
    let largest = BinaryBytes(lengths().max().unwrap_or(0)).to_string();
    let each = if smallest == largest {
        largest
    } else {
        format!("{smallest} to {largest}")
    };
    let how = match Kind::from(&run[0]) {
        Kind::SourceFile(Some(directory)) => format!("= files of {}", directory.shown()),
        Kind::SourceFile(None) => "= source files".to_owned(),
        Kind::Stored => "put together".to_owned(),
        Kind::Computed => "computed".to_owned(),
    };
    let names: Vec<&str> = run.iter().map(|shard| &*shard.name).collect();
    format!("{}  {} × {each}  {how}\n", range(&names), run.len())
}

/// `model-{00002..00099}-of-00100.safetensors` if the names count so, else the first and the last.
fn range(names: &[&str]) -> String {
    let (first, last) = (names[0], names[names.len() - 1]);
    numbered(names).unwrap_or_else(|| format!("{first} … {last}"))
}

fn numbered(names: &[&str]) -> Option<String> {
    let first = names[0];
    let start = first.find(|c: char| c.is_ascii_digit())?;
    let digits = &first[start..];
    let width = digits.find(|c: char| !c.is_ascii_digit())?;
    let (prefix, suffix) = (&first[..start], &digits[width..]);
    let number: u64 = digits[..width].parse().ok()?;
    let name = |number: u64| format!("{prefix}{number:0width$}{suffix}");
    let counts = (number..).zip(names).all(|(number, &n)| n == name(number));
    let last = number + names.len() as u64 - 1;
    counts.then(|| format!("{prefix}{{{number:0width$}..{last:0width$}}}{suffix}"))
}

/// What is edited in config.json, in a line.
fn edits(config: &EditedConfig) -> String {
    let edits = config.edits.iter().map(|(key, edit)| match edit {
        Edit::Set => format!("{key} set"),
        Edit::Removed => format!("{key} removed"),
    });
    let edits: Vec<String> = edits.collect();
    format!("edited: {}", edits.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_count_are_a_range_and_others_are_not() {
        let names = |from: u32, to: u32| -> Vec<String> {
            let names = from..=to;
            let names = names.map(|i| format!("model-{i:05}-of-00100.safetensors"));
            names.collect()
        };
        let shown = |names: &[String]| range(&names.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(
            shown(&names(2, 99)),
            "model-{00002..00099}-of-00100.safetensors"
        );
        let mut gap = names(2, 9);
        gap.remove(3);
        let (first, last) = (&gap[0], &gap[6]);
        assert_eq!(shown(&gap), format!("{first} … {last}"));
        assert_eq!(
            shown(&["a.safetensors".to_owned(), "b.safetensors".to_owned()]),
            "a.safetensors … b.safetensors"
        );
    }
}
