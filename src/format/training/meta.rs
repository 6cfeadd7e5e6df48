//! `consolidated.NN.pth`, as Meta publishes Llama: each file has the part of a rank of tensor parallelism.
//!
//! | tensor | is cut along |
//! |---|---|
//! | `wq`, `wk`, `wv`, `w1`, `w3`, `output` | dimension 0 |
//! | `wo`, `w2` | dimension 1 |
//! | `tok_embeddings` | 1 in Llama 1 and 2, 0 in Llama 3 |
//! | vectors | none: every rank has the whole |
//!
//! Source: `llama/model.py` of Meta's releases, and transformers' `convert_llama_weights_to_hf.py`.

use std::ffi::OsString;
use std::sync::LazyLock;

use indexmap::IndexMap;
use regex::Regex;

use crate::error::{Code, Error, Result};
use crate::format::checkpoint::{Container, Piece, StoredTensor};
use crate::format::torch;
use crate::format::training::files::{Files, unfinished};
use crate::jobs;
use crate::source::{Blob, Directory};
use crate::tensor::{Name, Shape, shape_text};

static FILE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^consolidated\.([0-9]{2,4})\.pth$").expect("a valid expression"));

/// Frequencies of rotary embeddings, which are computed from config.json.
const FREQUENCIES: &str = "rope.freqs";

/// A vector of as many elements as the model has dimensions.
const NORM: &str = "norm.weight";

/// Whether `name` is one by which such a checkpoint is known.
pub(super) fn is_file(name: &str) -> bool {
    FILE.is_match(name)
}

/// The checkpoint in `directory`, which has these `names`.
///
/// # Errors
/// If a file is missing, or a tensor is not one of Llama.
pub(super) fn read(directory: &dyn Directory, names: &[OsString]) -> Result<Files> {
    let names = names.iter().filter_map(|name| name.to_str());
    let mut found: Vec<(u64, &str)> = names
        .filter_map(|name| Some((FILE.captures(name)?[1].parse().ok()?, name)))
        .collect();
    found.sort_unstable();
    let mut numbers = found.iter().map(|&(number, _)| number);
    if let Some(missing) = (0..found.len() as u64).find(|&i| numbers.next() != Some(i)) {
        let problem = format!("consolidated.{missing:02}.pth is missing");
        return Err(unfinished(directory.location(), problem));
    }
    let read = jobs::map(&found, jobs::processors(), |(_, name)| {
        let blob = directory.weights(name)?;
        let tensors = tensors(&*blob)?;
        Ok((blob, tensors))
    })?;
    let (first, tensors) = &read[0];
    let norm = tensors.get(NORM).filter(|norm| norm.shape.len() == 1);
    let dim = norm.map(|norm| norm.shape[0]).ok_or_else(|| {
        let problem = format!("it has no vector {NORM}: it is no model of Meta's Llama");
        Error::of_file(Code::UnsupportedTorch, first.location(), problem)
    })?;
    let ranks = read.len() as u64;
    let mut files = Files::new(Container::Torch);
    for ((rank, name), (blob, tensors)) in found.iter().zip(&read) {
        let shard = files.file(name, blob.clone());
        for (name, stored) in tensors {
            if &**name == FREQUENCIES {
                if *rank == 0 {
                    files.leave_out(format!("{name}: it is computed from config.json"));
                }
                continue;
            }
            let axis = axis(name, stored, dim, ranks);
            let axis = axis.map_err(|problem| {
                Error::of_tensor(Code::UnsupportedTorch, blob.location(), &**name, problem)
            })?;
            let mut shape = stored.shape.to_vec();
            let mut offsets = vec![0; shape.len()];
            if let Some(axis) = axis {
                offsets[axis] = shape[axis].saturating_mul(*rank);
                shape[axis] = shape[axis].saturating_mul(ranks);
            }
            let piece = Piece {
                shard,
                offsets: offsets.into(),
                stored: stored.clone(),
            };
            files.own_piece(name, (stored.dtype, &Shape::from(shape)), piece)?;
        }
    }
    Ok(files)
}

fn tensors(file: &dyn Blob) -> Result<IndexMap<Name, StoredTensor>> {
    let saved = torch::open(file)?;
    let mut tensors = saved.tensors();
    let mut found = IndexMap::new();
    for (name, id) in torch::entries(&saved)?.named {
        if let Some(stored) = tensors.find(name, id)? {
            found.insert(name.into(), stored);
        }
    }
    Ok(found)
}

/// The dimension along which `ranks` ranks of a model of `dim` dimensions have parts of the tensor `name`, of which one
/// is `stored`.
fn axis(
    name: &str,
    stored: &StoredTensor,
    dim: u64,
    ranks: u64,
) -> std::result::Result<Option<usize>, String> {
    let [rows, columns] = stored.shape[..] else {
        return match stored.shape.len() {
            1 => Ok(None),
            _ => Err("it is neither a matrix nor a vector, and Llama has no others".to_owned()),
        };
    };
    if ranks == 1 {
        return Ok(None);
    }
    let module = name.strip_suffix(".weight").unwrap_or(name);
    let module = module.rsplit('.').next().unwrap_or(module);
    let (axis, other) = match module {
        "wq" | "wk" | "wv" | "w1" | "w3" | "output" => (0, columns),
        "wo" | "w2" => (1, rows),
        "tok_embeddings" if columns == dim => (0, columns),
        "tok_embeddings" => (1, columns.saturating_mul(ranks)),
        _ => return Err("it is not known how ranks share it".to_owned()),
    };
    if other != dim {
        let shape = shape_text(&stored.shape);
        return Err(format!(
            "one of {ranks} parts of it is {shape}, and the model has {dim} dimensions"
        ));
    }
    Ok(Some(axis))
}
