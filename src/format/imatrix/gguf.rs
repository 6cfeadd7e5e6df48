//! The form in GGUF.

use std::sync::Arc;

use indexmap::IndexMap;

use super::matrix::{Columns, Imatrix, bad, shard};
use crate::error::Result;
use crate::format::StoredTensor;
use crate::format::gguf::{Array, Keys, TensorInfo, TensorType, Value, read_header};
use crate::memory;
use crate::source::Blob;
use crate::tensor::{Dtype, Name};

/// The most experts that a matrix may have.
const MAX_COUNTS: u64 = 262_144;

const DATASETS: &str = "imatrix.datasets";
const CHUNK_COUNT: &str = "imatrix.chunk_count";
const CHUNK_SIZE: &str = "imatrix.chunk_size";

const SUMS: &str = ".in_sum2";
const PLAIN_SUMS: &str = ".in_sum";
const COUNTS: &str = ".counts";

/// The tensors of a matrix.
#[derive(Default)]
struct Parts {
    /// Sums of the values themselves, which do not matter here, but must be as many.
    plain: Option<TensorInfo>,
    sums: Option<TensorInfo>,
    counts: Option<TensorInfo>,
}

pub(super) fn read(file: Arc<dyn Blob>) -> Result<Imatrix> {
    let header = read_header(&*file)?;
    let (dataset, chunks) = metadata(&*file, &header.keys)?;
    let mut parts: IndexMap<Name, Parts> = IndexMap::new();
    let mut tensors = IndexMap::new();
    for (name, info) in header.tensors {
        if let Some(matrix) = name.strip_suffix(SUMS) {
            let len = info.len;
            let stored = StoredTensor::contiguous(Dtype::F32, info.shape.clone(), info.offset, len);
            parts.entry(matrix.into()).or_default().sums = Some(info);
            tensors.insert(name, stored);
        } else if let Some(matrix) = name.strip_suffix(PLAIN_SUMS) {
            parts.entry(matrix.into()).or_default().plain = Some(info);
        } else if let Some(matrix) = name.strip_suffix(COUNTS) {
            parts.entry(matrix.into()).or_default().counts = Some(info);
        }
    }
    if parts.is_empty() {
        return Err(bad(&*file, "it has no matrices"));
    }
    let mut matrices = IndexMap::with_capacity(parts.len());
    for (name, parts) in parts {
        let sums = Name::from(format!("{name}{SUMS}"));
        let counts = counts(&*file, &name, &parts)?.into();
        matrices.insert(name, Columns { sums, counts });
    }
    Ok(Imatrix {
        shard: shard(file, tensors),
        matrices,
        dataset,
        chunks,
    })
}

/// The first data set, and the number of pieces of it.
fn metadata(file: &dyn Blob, keys: &Keys) -> Result<(Option<String>, Option<u32>)> {
    for key in [DATASETS, CHUNK_COUNT, CHUNK_SIZE] {
        if !keys.contains_key(key) {
            return Err(bad(file, format!("the key {key} is missing")));
        }
    }
    let Some(Value::U32(chunks)) = keys.get(CHUNK_COUNT) else {
        return Err(bad(file, format!("{CHUNK_COUNT} is not of the type u32")));
    };
    let dataset = match keys.get(DATASETS) {
        Some(Value::Array(Array::Strings(names))) => names.iter().next().map(<[u8]>::to_vec),
        _ => None,
    };
    let dataset = dataset.map(|name| String::from_utf8_lossy(&name).into_owned());
    Ok((dataset, Some(*chunks)))
}

/// What the sums of the matrix `name` are divided by.
fn counts(file: &dyn Blob, name: &str, parts: &Parts) -> Result<Vec<f32>> {
    let refuse = |problem: &str| bad(file, problem).about_tensor(name);
    let (Some(sums), Some(counts)) = (&parts.sums, &parts.counts) else {
        let problem = format!("{SUMS} and {COUNTS} go together, and one of them is missing");
        return Err(refuse(&problem));
    };
    if sums.tensor_type != TensorType::F32 || counts.tensor_type != TensorType::F32 {
        return Err(refuse(&format!("{SUMS} and {COUNTS} must be F32")));
    }
    let elements = |info: &TensorInfo| info.shape.iter().product::<u64>();
    let (len, count) = (elements(sums), elements(counts));
    if parts.plain.as_ref().is_some_and(|it| elements(it) != len) {
        return Err(refuse(&format!("{PLAIN_SUMS} and {SUMS} differ in length")));
    }
    if count == 0 || len == 0 || !len.is_multiple_of(count) {
        return Err(refuse(&format!("it has {len} sums and {count} counts")));
    }
    if count > MAX_COUNTS {
        let problem = format!("it has {count} counts; at most {MAX_COUNTS} are read");
        return Err(refuse(&problem));
    }
    let mut bytes = memory::zeros(4 * count)?;
    file.read_at(&mut bytes, counts.offset)?;
    let counts = bytes.as_chunks::<4>().0.iter().map(|bytes| {
        let count = f32::from_le_bytes(*bytes);
        match count.is_finite() {
            true => Ok(count.round().max(0.0)),
            false => Err(refuse("a count is not finite")),
        }
    });
    counts.collect()
}
