//! `--imatrix`: how much the columns of matrices count when they are quantized.
//!
//! A matrix is found by its name in GGUF. Of several experts each has columns of its own. Source:
//! `tools/quantize` and `src/llama-quant.cpp` of llama.cpp b11434.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use crate::catalog::Tensor;
use crate::error::setting::IMATRIX;
use crate::error::{Code, Error, Result};
use crate::format::Shard;
use crate::format::gguf::{Keys, Value};
use crate::format::imatrix::{self, Columns, Imatrix};
use crate::kernels::ggml::WEIGHT_LIMIT;
use crate::memory;
use crate::source::Location;

/// Bytes of a text that llama-quantize writes down.
const MAX_TEXT: usize = 127;

/// Bytes that are checked at once.
const PIECE: u64 = 1 << 20;

/// An importance matrix, and how many of its matrices were asked for.
#[derive(Debug)]
pub(super) struct Importance {
    matrix: Imatrix,
    used: Cell<usize>,
}

/// The weights of the columns of a matrix: sums, and what they are divided by.
#[derive(Debug, Clone)]
pub(super) struct Weights {
    /// [experts, columns] in F32.
    pub sums: Tensor,
    /// For equal parts of the sums; where it is 0, weights are 1.
    pub counts: Arc<[f32]>,
}

impl Weights {
    /// Writes those of `sums`, the bytes of the sums from number `first` on, to `weights`.
    pub(super) fn write(counts: &[f32], total: u64, first: u64, sums: &[u8], weights: &mut [f32]) {
        let part = (total / counts.len() as u64).max(1);
        let sums = sums.as_chunks::<4>().0;
        for (i, (sum, weight)) in (first..).zip(sums.iter().zip(weights)) {
            let count = counts[(i / part) as usize];
            *weight = match count > 0.0 {
                true => f32::from_le_bytes(*sum) / count,
                false => 1.0,
            };
        }
    }
}

impl Importance {
    /// Reads the file at `location`.
    ///
    /// # Errors
    /// If there is none, or it is no importance matrix.
    pub(super) fn open(location: &Location) -> Result<Self> {
        let about = |error: Error| error.about(IMATRIX);
        let file = location.file().map_err(about)?;
        Ok(Importance {
            matrix: imatrix::read(file).map_err(about)?,
            used: Cell::new(0),
        })
    }

    /// The file as tensors come from it.
    pub(super) fn shard(&self) -> &Arc<Shard> {
        &self.matrix.shard
    }

    /// How many matrices it has, and how many of them were found in the model.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.matrix.matrices.len(), self.used.get())
    }

    /// Adds the keys that llama-quantize writes of it.
    pub(super) fn add_keys(&self, keys: &mut Keys) {
        let Imatrix {
            shard,
            matrices,
            dataset,
            chunks,
        } = &self.matrix;
        let mut set = |key: &str, value: Value| {
            keys.insert(format!("quantize.imatrix.{key}"), value);
        };
        set("file", Value::String(shortened(&shard.name)));
        if let Some(dataset) = dataset {
            set("dataset", Value::String(shortened(dataset)));
        }
        let count = u32::try_from(matrices.len()).unwrap_or(u32::MAX);
        set("entries_count", Value::U32(count));
        if let Some(chunks) = chunks.filter(|chunks| (1..=i32::MAX as u32).contains(chunks)) {
            set("chunks_count", Value::U32(chunks));
        }
    }

    /// The weights of the columns of the matrix called `name` in GGUF, of `shape`; nothing if the file has none.
    ///
    /// # Errors
    /// If it has another number of them, or some are not numbers by which a column can count.
    pub(super) fn of(&self, name: &str, shape: &[u64]) -> Result<Option<Weights>> {
        let Some(Columns { sums, counts }) = self.matrix.matrices.get(name) else {
            return Ok(None);
        };
        let (_, sums) = Tensor::stored(sums, &self.matrix.shard, None);
        let columns = *shape.last().unwrap_or(&1);
        let experts = shape.iter().rev().nth(2).copied().unwrap_or(1);
        let found = sums.len() / 4;
        if Some(found) != columns.checked_mul(experts) {
            // llama-imatrix does not see the embedding used as a matrix is; what it has is of something else.
            if name == "token_embd.weight" {
                return Ok(None);
            }
            let problem = format!(
                "the importance matrix has {found} weights for it; its {columns} columns{} need {}",
                match experts {
                    1 => String::new(),
                    experts => format!(" of {experts} experts"),
                },
                columns.saturating_mul(experts)
            );
            let error = Error::of_tensor(Code::ImatrixMismatch, self.path(), name, problem);
            return Err(error.with_hint("make one of this model (llama-imatrix)"));
        }
        let weights = Weights {
            sums: Tensor {
                shape: [experts, columns].into(),
                ..sums
            },
            counts: counts.clone(),
        };
        self.check(name, &weights)?;
        self.used.set(self.used.get() + 1);
        Ok(Some(weights))
    }

    fn path(&self) -> &Path {
        self.matrix.shard.blob.location()
    }

    /// Checks that all of `weights` are numbers by which a column can count.
    fn check(&self, name: &str, weights: &Weights) -> Result<()> {
        let (blob, start) = weights.sums.as_stored().expect("sums are in one place");
        let len = weights.sums.len();
        let mut bytes = memory::zeros(len.min(PIECE))?;
        let mut values = vec![0.0; bytes.len() / 4];
        let mut at = 0;
        while at < len {
            let here = (len - at).min(PIECE) as usize;
            blob.read_at(&mut bytes[..here], start + at)?;
            let values = &mut values[..here / 4];
            Weights::write(&weights.counts, len / 4, at / 4, &bytes[..here], values);
            let mut numbered = (at / 4..).zip(&*values);
            if let Some((i, value)) =
                numbered.find(|(_, value)| !(0.0..WEIGHT_LIMIT).contains(*value))
            {
                let problem = format!(
                    "its column {} weighs {value}; weights are from 0 to below {WEIGHT_LIMIT:e}",
                    i % weights.sums.shape[1]
                );
                let error = Error::of_tensor(Code::BadImatrix, self.path(), name, problem);
                return Err(error.about(IMATRIX));
            }
            at += here as u64;
        }
        Ok(())
    }

    /// Checks that the file is of this model.
    ///
    /// # Errors
    /// If none of its matrices was found in it.
    pub(super) fn check_used(&self) -> Result<()> {
        let (first, _) = self.matrix.matrices.first().expect("it has matrices");
        if self.used.get() > 0 {
            return Ok(());
        }
        let problem = format!("none of its matrices, such as {first}, is quantized in this view");
        let error = Error::of_file(Code::ImatrixMismatch, self.path(), problem);
        Err(error.about(IMATRIX))
    }
}

/// The start of `text`, as long as llama-quantize writes it down.
fn shortened(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT)].to_owned()
}
