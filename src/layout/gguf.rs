//! Files of llama.cpp: one, or split ones of bounded size.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use crate::catalog::{Catalog, Extents, GgufModel, GgufTensor};
use crate::error::setting::GGUF_SPLIT;
use crate::error::{Code, Error, Hint, Result};
use crate::format::Part;
use crate::format::gguf::{Keys, NewTensor, Value, pack, split_name};
use crate::layout::attributes::{attributes, mode_for, newest_source};
use crate::layout::partition::Shards;
use crate::layout::plan::{Encoded, Plan, PlannedShard, PlannedTensor, ShardCost, ShardCosts};
use crate::runs::Runs;
use crate::source::AuxEntry;
use crate::view::{TopFile, View};

/// What names of files can number.
const MAX_FILES: usize = 65_535;

/// Lays `model`, which was made of `catalog`, out in files. The view has no others.
///
/// # Errors
/// If a tensor cannot be in such a file, or there would be too many files.
pub fn gguf(catalog: Catalog, model: GgufModel) -> Result<Plan> {
    let GgufModel {
        stem,
        keys,
        tensors,
        split_bytes,
    } = model;
    let parts = split(&tensors, split_bytes);
    if parts.len() > MAX_FILES {
        let problem = format!(
            "there would be {} files; at most {MAX_FILES} are made",
            parts.len()
        );
        let error = Error::new(Code::ShardLimit, problem).about(GGUF_SPLIT);
        return Err(error.with_hint(Hint::give(GGUF_SPLIT).to("choose larger files")));
    }
    let newest = newest_source(&catalog);
    // Metadata is made of these.
    let readable = catalog.aux.iter().fold(0o777, |mode, entry| match entry {
        AuxEntry::File { file, .. } | AuxEntry::Edited { file, .. } => {
            mode & mode_for(catalog.attributes, file.attributes())
        }
        AuxEntry::Directory { .. } => mode,
    });
    let mut files = Vec::with_capacity(parts.len());
    let mut planned = Vec::with_capacity(parts.len());
    let count = parts.len();
    for (number, range) in parts.into_iter().enumerate() {
        let (name, keys) = match count {
            1 => (format!("{stem}.gguf"), Cow::Borrowed(&keys)),
            _ => {
                let name = split_name(&stem, number as u32 + 1, count as u32);
                let keys = split_keys(&keys, number as u16, count as u16, tensors.len());
                (name, Cow::Owned(keys))
            }
        };
        let (content, listed) = file(&name, &keys, &tensors[range])?;
        let mut attributes = attributes(&content, catalog.attributes, newest);
        attributes.mode &= readable;
        planned.push(PlannedShard {
            name: name.clone(),
            entry: View::ROOT, // set once the view is built
            len: content.len(),
            whole_file: None,
            tensors: listed,
        });
        files.push(TopFile {
            name: name.into(),
            attributes,
            content,
        });
    }
    let view = View::new(catalog.attributes, files, &[]);
    for file in &mut planned {
        let entry = view.lookup(View::ROOT, file.name.as_ref());
        file.entry = entry.expect("the view was built with this file");
    }
    Ok(Plan {
        view: Arc::new(view),
        costs: ShardCosts {
            chosen: if count == 1 {
                Shards::Single
            } else {
                Shards::Repack
            },
            view: ShardCost {
                shards: count,
                whole_files: 0,
                bytes_in_whole_files: 0,
            },
            keep: None,
            renumber: None,
            repack: None,
        },
        shards: planned,
        index: None,
        sources: catalog.sources,
        report: catalog.report,
    })
}

/// The tensors of each file: as many as are at most `bytes`, at least one.
fn split(tensors: &[GgufTensor], bytes: Option<u64>) -> Vec<Range<usize>> {
    let bytes = bytes.unwrap_or(u64::MAX);
    let mut parts = Vec::new();
    let (mut start, mut filled) = (0, 0u64);
    for (i, tensor) in tensors.iter().enumerate() {
        let len = tensor.tensor.len();
        if i > start && filled.saturating_add(len) > bytes {
            parts.push(start..i);
            (start, filled) = (i, 0);
        }
        filled = filled.saturating_add(len);
    }
    parts.push(start..tensors.len());
    parts
}

/// The keys of file `number` (from 0): the model's are in the first one.
fn split_keys(keys: &Keys, number: u16, count: u16, tensors: usize) -> Keys {
    let mut keys = if number == 0 {
        keys.clone()
    } else {
        Keys::new()
    };
    keys.insert("split.no".to_owned(), Value::U16(number));
    keys.insert("split.count".to_owned(), Value::U16(count));
    let tensors = i32::try_from(tensors).unwrap_or(i32::MAX);
    keys.insert("split.tensors.count".to_owned(), Value::I32(tensors));
    keys
}

fn file(name: &str, keys: &Keys, tensors: &[GgufTensor]) -> Result<(Extents, Vec<PlannedTensor>)> {
    let new = tensors.iter().map(|tensor| NewTensor {
        name: &tensor.name,
        tensor_type: tensor.tensor_type,
        shape: &tensor.shape,
    });
    let parts = pack(name, keys, &new.collect::<Vec<_>>())?;
    let mut listed = Vec::with_capacity(tensors.len());
    let mut offset = 0;
    for part in &parts {
        offset += match part {
            Part::Made(bytes) => bytes.len() as u64,
            Part::Tensor(position) => {
                let tensor = &tensors[*position];
                listed.push(planned(tensor, offset));
                tensor.tensor.len()
            }
        };
    }
    let content = parts.into_iter().map(|part| match part {
        Part::Made(bytes) => Cow::Owned(Extents::made(bytes)),
        Part::Tensor(position) => Cow::Borrowed(&tensors[position].tensor.extents),
    });
    Ok((Runs::concat(content), listed))
}

fn planned(tensor: &GgufTensor, offset: u64) -> PlannedTensor {
    let bytes = &tensor.tensor;
    PlannedTensor {
        name: tensor.name.clone(),
        dtype: bytes.dtype,
        shape: bytes.shape.clone(),
        encoded: (tensor.tensor_type.block_elements() > 1).then(|| Encoded {
            tensor_type: tensor.tensor_type.name(),
            shape: tensor.shape.clone(),
        }),
        offset,
        len: bytes.len(),
        from: bytes.origin().clone(),
        computed: bytes.nodes().next().is_some(),
        extents: bytes.extents.clone(),
    }
}
