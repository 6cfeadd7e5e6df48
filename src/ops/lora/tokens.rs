//! Rows of an embedding that were trained by themselves (`trainable_token_indices`).
//!
//! `trainable_tokens_delta` has the rows as they are after training, not what is added to them; the name is
//! PEFT's. adapter_config.json says which rows they are.

use crate::catalog::Tensor;
use crate::error::{Code, Result};
use crate::ops::lora::merging::Merging;
use crate::ops::lora::token_indices::SETTING;
use crate::ops::{Precision, convert};
use crate::tensor::{Name, shape_text};

/// `base`, which is called `name`, with the rows that `key` of the adapter has for the module at `path`.
pub(super) fn with_rows(
    merging: &Merging,
    name: &str,
    base: &Tensor,
    path: &str,
    key: &Name,
) -> Result<Tensor> {
    let adapter = merging.adapter;
    let Some(rows) = adapter.settings.tokens.of_module(path) else {
        return Err(adapter.error(
            Code::BadAdapter,
            key,
            format!("{SETTING} in adapter_config.json does not say which rows these are"),
        ));
    };
    let given = merging.stored(key)?;
    let (&[count, columns], &[given_rows, given_columns]) = (&base.shape[..], &given.shape[..])
    else {
        return Err(merging.unfit(key, &given, name, base));
    };
    if given_columns != columns {
        return Err(merging.unfit(key, &given, name, base));
    }
    if given_rows != rows.len() as u64 {
        return Err(adapter.error(
            Code::BadAdapter,
            key,
            format!(
                "its shape is {}, but {SETTING} in adapter_config.json has {} rows",
                shape_text(&given.shape),
                rows.len()
            ),
        ));
    }
    if let Some(row) = rows.iter().find(|&&row| row >= count) {
        return Err(adapter.error(
            Code::AdapterMismatch,
            key,
            format!("it has row {row}, but {name} of the base has {count} rows"),
        ));
    }
    let given = match Precision::from_dtype(base.dtype) {
        Some(to) => convert(name, &given, to)?,
        None => given,
    };
    let row_bytes = columns * (base.dtype.bitsize() as u64 / 8);
    let run = |tensor: &Tensor, first: u64, count: u64| {
        tensor.slice(first * row_bytes, [count, columns].as_slice())
    };
    let mut order: Vec<(u64, u64)> = rows.iter().copied().zip(0..).collect();
    order.sort_unstable();
    let mut pieces = Vec::new();
    let mut end = 0;
    for (row, position) in order {
        if end < row {
            pieces.push(run(base, end, row - end));
        }
        pieces.push(run(&given, position, 1));
        end = row + 1;
    }
    if end < count {
        pieces.push(run(base, end, count - end));
    }
    let pieces: Vec<&Tensor> = pieces.iter().collect();
    let joined = Tensor::joined(&pieces, base.shape.clone());
    Ok(Tensor {
        home: base.home,
        ..joined
    })
}
