//! Rows and columns that GGUF has in another order, or in other tensors, brought back.

use crate::catalog::Tensor;
use crate::error::{Code, Error, Result};
use crate::ops::gather::{chunk, concatenate, interleave, narrow, transpose};
use crate::ops::gguf::source::metadata::Metadata;
use crate::tensor::shape_text;

/// [C, K] as [C, 1, K].
///
/// # Errors
/// If it is no matrix.
pub(super) fn with_middle(hf: &str, tensor: &Tensor) -> Result<Tensor> {
    match tensor.shape[..] {
        [channels, width] => Ok(tensor.slice(0, [channels, 1, width])),
        _ => Err(unfit(hf, tensor, "it is no matrix")),
    }
}

/// Keys [H, R, n] and values [H, v, R] of heads as one projection [H·(n + v), R].
///
/// # Errors
/// If the shapes do not fit together.
pub(super) fn key_value(hf: &str, parts: &[Tensor]) -> Result<Tensor> {
    let [keys, values] = parts else {
        unreachable!("the rule has two names");
    };
    if keys.shape.len() != 3 || values.shape.len() != 3 {
        return Err(unfit(
            hf,
            keys,
            "keys and values must have three dimensions",
        ));
    }
    let both = concatenate(hf, &[transpose(hf, keys)?, values.clone()], 1)?;
    let [heads, rows, rank] = both.shape[..] else {
        unreachable!("what is put together has the dimensions of its parts");
    };
    Ok(both.slice(0, [heads * rows, rank]))
}

fn unfit(hf: &str, tensor: &Tensor, problem: &str) -> Error {
    let shape = shape_text(&tensor.shape);
    let problem = format!("its shape is {shape}: {problem}");
    Error::of_tensor(Code::UnsupportedTensor, tensor.origin(), hf, problem)
}

/// The heads of linear attention: each key head has several value heads.
#[derive(Debug, Clone, Copy)]
pub(super) struct LinearHeads {
    pub key_heads: u64,
    pub key_width: u64,
    pub value_heads: u64,
    pub value_width: u64,
}

impl LinearHeads {
    /// Those that `metadata` says.
    ///
    /// # Errors
    /// If it lacks them, or they cannot be.
    pub(super) fn read(metadata: Metadata) -> Result<Self> {
        /// So that no product of these overflows.
        const MAX: u64 = 1 << 20;
        let number = |key: &str| {
            let number = metadata.number(key)?;
            let problem = format!("is {number}, and should be from 1 to {MAX}");
            let is_possible = (1..=MAX).contains(&number);
            is_possible
                .then_some(number)
                .ok_or_else(|| metadata.bad(key, &problem))
        };
        let key_heads = number(".ssm.group_count")?;
        let value_heads = number(".ssm.time_step_rank")?;
        let inner = number(".ssm.inner_size")?;
        if !value_heads.is_multiple_of(key_heads) {
            let problem = "is no multiple of ssm.group_count";
            return Err(metadata.bad(".ssm.time_step_rank", problem));
        }
        if !inner.is_multiple_of(value_heads) {
            let problem = "is no multiple of ssm.time_step_rank";
            return Err(metadata.bad(".ssm.inner_size", problem));
        }
        Ok(LinearHeads {
            key_heads,
            key_width: number(".ssm.state_size")?,
            value_heads,
            value_width: inner / value_heads,
        })
    }

    fn values_per_key(self) -> u64 {
        self.value_heads / self.key_heads
    }

    /// Rows of all q, all k and all v, and of all z, as the rows of q, k, v and z of each key head.
    ///
    /// # Errors
    /// If they are not as many.
    pub(super) fn by_key_head(self, hf: &str, parts: &[Tensor]) -> Result<Tensor> {
        let [qkv, z] = parts else {
            unreachable!("the rule has two names");
        };
        let keys = self.key_heads * self.key_width;
        let values = self.value_heads * self.value_width;
        let rows = |tensor: &Tensor| (tensor.shape.len() == 2).then(|| tensor.shape[0]);
        if rows(qkv) != Some(2 * keys + values) || rows(z) != Some(values) {
            let problem = "the rows are not those of the heads of linear attention";
            return Err(unfit(hf, qkv, problem));
        }
        let of_key = self.values_per_key() * self.value_width;
        let mut runs = Vec::with_capacity(4 * self.key_heads as usize);
        for head in 0..self.key_heads {
            let widths = [
                (qkv, head * self.key_width, self.key_width),
                (qkv, keys + head * self.key_width, self.key_width),
                (qkv, 2 * keys + head * of_key, of_key),
                (z, head * of_key, of_key),
            ];
            for (tensor, start, count) in widths {
                runs.push(narrow(hf, tensor, 0, start..start + count)?);
            }
        }
        concatenate(hf, &runs, 0)
    }

    /// Rows (or single elements) of value heads, tiled by key heads, in the order in which those of a key head
    /// follow each other. Rows before them, of queries and keys, stay.
    ///
    /// # Errors
    /// If there are not as many.
    pub(super) fn untiled(self, hf: &str, tensor: &Tensor) -> Result<Tensor> {
        let Some((&rows, rest)) = tensor.shape.split_first() else {
            return Err(unfit(hf, tensor, "it has no rows"));
        };
        let values = self.value_heads * self.value_width;
        let keys = 2 * self.key_heads * self.key_width;
        let (before, values) = match rows {
            rows if rows == self.value_heads || rows == values => (0, rows),
            rows if rows == keys + values => (keys, values),
            _ => {
                let problem = "the rows are not those of the heads of linear attention";
                return Err(unfit(hf, tensor, problem));
            }
        };
        let tiled = narrow(hf, tensor, 0, before..rows)?;
        let per_head: u64 = rest.iter().product::<u64>() * (values / self.value_heads);
        let by_head = tiled.slice(0, [self.value_heads, per_head]);
        let tiles = chunk(hf, &by_head, 0, self.values_per_key())?;
        let grouped = interleave(hf, &tiles, 0)?;
        let grouped = grouped.slice(0, [&[values], rest].concat());
        if before == 0 {
            return Ok(grouped);
        }
        let keys = narrow(hf, tensor, 0, 0..before)?;
        concatenate(hf, &[keys, grouped], 0)
    }

    /// The same of columns.
    ///
    /// # Errors
    /// If there are not as many.
    pub(super) fn untiled_columns(self, hf: &str, tensor: &Tensor) -> Result<Tensor> {
        let values = self.value_heads * self.value_width;
        let [rows, columns] = tensor.shape[..] else {
            return Err(unfit(hf, tensor, "it is no matrix"));
        };
        if columns != values {
            let problem = "the columns are not those of the heads of linear attention";
            return Err(unfit(hf, tensor, problem));
        }
        let by_head = tensor.slice(0, [rows, self.value_heads, self.value_width]);
        let tiles = chunk(hf, &by_head, 1, self.values_per_key())?;
        let grouped = interleave(hf, &tiles, 1)?;
        Ok(grouped.slice(0, [rows, columns]))
    }
}
