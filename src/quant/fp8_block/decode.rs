//! Which tensors of a checkpoint are block FP8 that can be given back as numbers.

use indexmap::IndexMap;

use crate::catalog::Tensor;
use crate::error::setting::{DROP, DTYPE, PATCH, RENAME};
use crate::error::{Code, Error, Hint, Result};
use crate::kernels::lanes::Precision;
use crate::quant::dequantize;
use crate::quant::fp8_block::format::{BLOCK_SIZE_KEY, SCALE_SUFFIX, scale_name, weight_of};
use crate::tensor::{Dtype, Name, shape_text};

/// The numbers that the codes `weight` and their `scales`, one for each block, stand for, in dtype `to`.
///
/// # Errors
/// If dtypes or shapes are others.
pub(super) fn dequantized(
    name: &str,
    weight: &Tensor,
    scales: &Tensor,
    block: [u64; 2],
    to: Precision,
) -> Result<Tensor> {
    let misfit = || {
        let [rows, columns] = block;
        format!(
            "its shape is {}, and that of {} is {}, which is not a scale for each block of {rows} x {columns}; only FP8 with block scales can be dequantized, with {BLOCK_SIZE_KEY} in config.json, not scales per tensor or per channel",
            shape_text(&weight.shape),
            scale_name(name),
            shape_text(&scales.shape)
        )
    };
    dequantize::dequantized(name, weight, scales, block, to, &misfit)
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
    let weight_name = weight_of(name).unwrap_or(name);
    let refuse =
        |problem: String| Error::of_tensor(Code::MissingWeight, scales.origin(), name, problem);
    match tensors.get(weight_name) {
        Some(weight) if is_code(weight.dtype) => Ok(()),
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

/// The block scales of the quantized `tensor`.
pub(super) fn scales<'a>(
    tensors: &'a IndexMap<Name, Tensor>,
    name: &str,
    tensor: &Tensor,
    block: [u64; 2],
) -> Result<&'a Tensor> {
    let expected = scale_name(name);
    let rename = |scales: &str| {
        Hint::give(RENAME).to(format!(
            "call the scales {scales} after their weight, X{SCALE_SUFFIX}"
        ))
    };
    if tensor.dtype == Dtype::F8_E8M0 {
        let problem = format!(
            "it is F8_E8M0, a dtype of scales, but it is not called X{SCALE_SUFFIX} after an FP8 weight X, whose block scales it could be"
        );
        let error = Error::of_tensor(Code::UnsupportedTensor, tensor.origin(), name, problem);
        return Err(error.with_hint(Hint::leave_out(DTYPE).or(rename(name))));
    }
    if let Some(scales) = tensors.get(&*expected)
        && is_code(tensor.dtype)
    {
        return Ok(scales);
    }
    let others = [
        format!("{name}_scale"),
        format!("{name}_scales"),
        format!("{}.scale", name.strip_suffix(".weight").unwrap_or(name)),
    ];
    let mut others = others.iter();
    let found = others.find_map(|other| Some((other, tensors.get(other.as_str())?)));
    let hint = Hint::leave_out(DTYPE).or(Hint::give(DROP).to("leave this tensor out"));
    let hint = match found {
        Some((other, scales))
            if dequantize::are_block_scales(&tensor.shape, &scales.shape, block) =>
        {
            hint.or(rename(other))
        }
        _ => hint,
    };
    let found = found.map_or_else(String::new, |(other, scales)| {
        let kind = kind_of(&tensor.shape, scales, block);
        format!(
            " ({other} is there, {} of {}: {kind})",
            scales.dtype,
            shape_text(&scales.shape)
        )
    });
    Err(Error::of_tensor(Code::MissingScales, tensor.origin(),
        name,
        format!(
            "it is {}, and dequantizing it needs F8_E4M3 or F8_E5M2 codes with block scales called {expected}{found}",
            tensor.dtype
        ),
    ).with_hint(hint))
}

/// What scales that are called otherwise than block scales are to a weight, for a message.
fn kind_of(weight: &[u64], scales: &Tensor, block: [u64; 2]) -> &'static str {
    let count: u64 = scales.shape.iter().product();
    let rows: u64 = weight.iter().rev().skip(1).product();
    if dequantize::are_block_scales(weight, &scales.shape, block) {
        "block scales under another name"
    } else if scales.dtype != Dtype::F8_E8M0 && (count == 1 || count == rows) {
        "scales per tensor or per channel, which cannot be dequantized"
    } else {
        "scales of another scheme, which cannot be dequantized"
    }
}
