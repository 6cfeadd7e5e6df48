//! Which tensors of a checkpoint are block FP8 that can be given back as numbers.

use indexmap::IndexMap;

use crate::catalog::Tensor;
use crate::error::setting::{DROP, DTYPE, PATCH, RENAME};
use crate::error::{Code, Error, Hint, Result};
use crate::kernels::lanes::Precision;
use crate::quant::dequantize;
use crate::quant::fp8_block::format::{BLOCK_SIZE_KEY, Fp8Block, SCALE_SUFFIX};
use crate::quant::fp8_block::naming::{self, is_nibbles};
use crate::quant::fp8_block::nibbles;
use crate::tensor::{Dtype, Name, shape_text};
use crate::text::listing;

/// The numbers that the codes `weight` and their scales among `tensors` stand for, in dtype `to`.
///
/// # Errors
/// If there are no scales, or dtypes or shapes are others.
pub(super) fn decoded(
    scheme: &Fp8Block,
    tensors: &IndexMap<Name, Tensor>,
    name: &str,
    weight: &Tensor,
    to: Precision,
) -> Result<Tensor> {
    let block = scheme.block;
    if is_nibbles(tensors, name, weight) {
        return nibbles::decoded(tensors, name, weight, to);
    }
    let (scale_name, scales) = scales(tensors, name, weight)?;
    let misfit = || {
        let [rows, columns] = block;
        format!(
            "its shape is {}, and that of {scale_name} is {}, which is neither a scale for each block of {rows} x {columns} ({BLOCK_SIZE_KEY} in config.json), nor one for each row, column or tensor",
            shape_text(&weight.shape),
            shape_text(&scales.shape)
        )
    };
    let Some((shape, scale_shape, block)) = spread(&weight.shape, &scales.shape, block) else {
        return Err(Error::of_tensor(
            Code::BadScales,
            weight.origin(),
            name,
            misfit(),
        ));
    };
    let (mut codes, mut scales) = (weight.clone(), scales.clone());
    (codes.shape, scales.shape) = (shape.into(), scale_shape.into());
    let mut numbers = dequantize::dequantized(name, &codes, &scales, block, to, &misfit)?;
    numbers.shape = weight.shape.clone();
    Ok(numbers)
}

/// How scales of shape `scales` spread over a weight of shape `weight`: the shapes by which both are read, and the rows
/// and columns that share a scale. Scales for each of the blocks `declared`, or one for each row, column or tensor.
fn spread(
    weight: &[u64],
    scales: &[u64],
    declared: [u64; 2],
) -> Option<(Vec<u64>, Vec<u64>, [u64; 2])> {
    let (leading, &[rows, columns]) = weight.split_last_chunk()?;
    if dequantize::are_block_scales(weight, scales, declared) {
        return Some((weight.to_vec(), scales.to_vec(), declared));
    }
    // Blocks of ModelOpt have dimensions of length 1 between them.
    if let [high, 1, wide, 1] = *scales
        && dequantize::are_block_scales(weight, &[high, wide], declared)
    {
        return Some((weight.to_vec(), vec![high, wide], declared));
    }
    if scales.iter().all(|length| *length == 1) {
        let all = leading
            .iter()
            .try_fold(rows, |rows, n| rows.checked_mul(*n))?;
        let block = [all.max(1), columns.max(1)];
        return Some((vec![all, columns], vec![1, 1], block));
    }
    let with_columns = match scales.strip_prefix(leading)? {
        [_] => [scales, &[1]].concat(),
        _ => scales.to_vec(),
    };
    let (_, &[high, wide]) = with_columns.split_last_chunk()?;
    let is_spread = |count: u64, of: u64| count == 1 || count == of;
    let fits =
        with_columns.len() == weight.len() && is_spread(high, rows) && is_spread(wide, columns);
    let share = |count: u64, of: u64| if count == 1 { of.max(1) } else { 1 };
    fits.then(|| {
        (
            weight.to_vec(),
            with_columns.clone(),
            [share(high, rows), share(wide, columns)],
        )
    })
}

/// Whether codes of `dtype` can be dequantized.
fn is_code(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F8_E4M3 | Dtype::F8_E5M2)
}

/// Checks that the scales called `name` are those of a weight that can be dequantized.
pub(super) fn check_scales(
    tensors: &IndexMap<Name, Tensor>,
    name: &str,
    scales: &Tensor,
) -> Result<()> {
    let weight_name = naming::weight_of(tensors, name);
    let weight_name = weight_name.as_deref().unwrap_or(name);
    let refuse =
        |problem: String| Error::of_tensor(Code::MissingWeight, scales.origin(), name, problem);
    match tensors.get(weight_name) {
        Some(weight) if is_code(weight.dtype) || is_nibbles(tensors, weight_name, weight) => Ok(()),
        Some(weight) => {
            let problem = format!(
                "these are the scales of {weight_name}, which is {}; only F8_E4M3 and F8_E5M2 weights can be dequantized",
                weight.dtype
            );
            let hint = Hint::text("take weight and scales from the same checkpoint");
            Err(refuse(problem).with_hint(hint.or(Hint::leave_out(DTYPE))))
        }
        None => {
            let problem = format!("these are scales, but there is no {weight_name} in this view");
            let hint = Hint::give(PATCH).to("add it");
            Err(refuse(problem).with_hint(hint.or(Hint::give(DROP).to("leave them out"))))
        }
    }
}

/// The scales of the quantized `tensor`, and what they are called.
fn scales<'a>(
    tensors: &'a IndexMap<Name, Tensor>,
    name: &str,
    tensor: &Tensor,
) -> Result<(&'a Name, &'a Tensor)> {
    if is_code(tensor.dtype)
        && let Some(found) = naming::scales(tensors, name)
    {
        return Ok(found);
    }
    let expected = listing(&naming::scale_names(name).collect::<Vec<_>>());
    if tensor.dtype == Dtype::F8_E8M0 {
        let problem = format!(
            "it is F8_E8M0, a dtype of scales, but it is not called X{SCALE_SUFFIX}, X_scale or X.scale after an FP8 weight, whose scales it could be"
        );
        let error = Error::of_tensor(Code::UnsupportedTensor, tensor.origin(), name, problem);
        let rename = Hint::give(RENAME).to("call it after its weight");
        return Err(error.with_hint(Hint::leave_out(DTYPE).or(rename)));
    }
    let problem = format!(
        "it is {}, and dequantizing it needs F8_E4M3 or F8_E5M2 codes with scales called {expected}",
        tensor.dtype
    );
    let error = Error::of_tensor(Code::MissingScales, tensor.origin(), name, problem);
    Err(error.with_hint(Hint::leave_out(DTYPE).or(Hint::give(DROP).to("leave this tensor out"))))
}
