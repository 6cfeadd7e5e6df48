//! Fused tensors, taken apart.

use crate::catalog::Tensor;
use crate::error::Result;
use crate::ops::gather::{chunk, narrow};
use crate::ops::training::expected::Expected;

/// Heads of attention.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    pub(super) queries: u64,
    /// Of keys, and of values.
    pub(super) keys: u64,
    /// Rows of each.
    pub(super) rows: u64,
}

impl Heads {
    /// Those that config.json says.
    ///
    /// # Errors
    /// If it does not.
    pub(super) fn read(expected: &Expected) -> Result<Self> {
        let queries = expected.number("num_attention_heads")?;
        let rows = match expected.find_number("head_dim") {
            Some(rows) => rows,
            None => expected.number("hidden_size")? / queries.max(1),
        };
        Ok(Heads {
            queries,
            keys: expected
                .find_number("num_key_value_heads")
                .unwrap_or(queries),
            rows,
        })
    }
}

/// The first and the second half of the rows of `tensor`.
pub(super) fn halves(name: &str, tensor: &Tensor) -> Result<[Tensor; 2]> {
    let halves = chunk(name, tensor, 0, 2)?;
    Ok(halves.try_into().expect("two halves"))
}

/// Queries, keys and values of `tensor`, whose rows are, for each head of keys, those of the heads of queries that read
/// it, its own and those of its values; nothing if it has other rows.
pub(super) fn query_key_value(
    name: &str,
    tensor: &Tensor,
    heads: Heads,
) -> Result<Option<[Tensor; 3]>> {
    let Heads {
        queries,
        keys,
        rows,
    } = heads;
    let [all, inner @ ..] = &tensor.shape[..] else {
        return Ok(None);
    };
    if keys == 0 || !queries.is_multiple_of(keys) {
        return Ok(None);
    }
    let read = (queries / keys).saturating_mul(rows);
    let group = read.saturating_add(rows.saturating_mul(2));
    if keys.checked_mul(group) != Some(*all) {
        return Ok(None);
    }
    let by_group = tensor.slice(0, [&[keys, group], inner].concat());
    let part = |range: std::ops::Range<u64>| -> Result<Tensor> {
        let len = range.end - range.start;
        let part = narrow(name, &by_group, 1, range)?;
        Ok(part.slice(0, [&[keys * len], inner].concat()))
    };
    let parts = [
        part(0..read)?,
        part(read..read + rows)?,
        part(read + rows..group)?,
    ];
    Ok(Some(parts))
}
