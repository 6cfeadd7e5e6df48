//! Weights that are stored under names of their own, `X.qweight` for a weight `X.weight`, as AWQ and GPTQ have them.

use indexmap::IndexMap;

use crate::catalog::Tensor;
use crate::error::setting::DTYPE;
use crate::error::{Code, Error, Hint, Result};
use crate::quant::only_read::companion;
use crate::quant::packed_words::Parts;
use crate::quant::scheme::Role;
use crate::tensor::{Dtype, Name, shape_text};

const WEIGHT: &str = ".weight";
pub(super) const CODES: &str = ".qweight";
const SCALES: &str = ".scales";
const ZERO_POINTS: &str = ".qzeros";
const INDEX: &str = ".g_idx";

/// What the tensor called `name` is among `tensors`.
pub(super) fn role(tensors: &IndexMap<Name, Tensor>, name: &str) -> Role {
    if let Some(module) = name.strip_suffix(CODES) {
        return Role::Codes([module, WEIGHT].concat());
    }
    let mut suffixes = [SCALES, ZERO_POINTS, INDEX].into_iter();
    match suffixes.find_map(|suffix| name.strip_suffix(suffix)) {
        Some(module) if tensors.contains_key(&*[module, CODES].concat()) => {
            Role::Companion([module, WEIGHT].concat())
        }
        _ => Role::Plain,
    }
}

/// The tensors of the weight `weight`, whose codes are `codes`, all of the dtypes that they have.
///
/// # Errors
/// If some are not there, or of other dtypes.
pub(super) fn parts<'a>(
    tensors: &'a IndexMap<Name, Tensor>,
    weight: &str,
    codes: &'a Tensor,
) -> Result<Parts<'a>> {
    let module = weight.strip_suffix(WEIGHT).unwrap_or(weight);
    let named = |suffix: &str| [module, suffix].concat();
    let index = tensors.get(&*named(INDEX));
    let parts = Parts {
        codes,
        scales: companion(tensors, weight, &named(SCALES), codes)?,
        zero_points: companion(tensors, weight, &named(ZERO_POINTS), codes)?,
        index,
    };
    let integers = [(CODES, codes), (ZERO_POINTS, parts.zero_points)];
    let integers = integers
        .into_iter()
        .chain(index.map(|index| (INDEX, index)));
    for (suffix, tensor) in integers {
        if tensor.dtype != Dtype::I32 {
            let problem = format!("it is {}; packed codes are I32", tensor.dtype);
            let name = named(suffix);
            return Err(Error::of_tensor(
                Code::UnsupportedTensor,
                tensor.origin(),
                name,
                problem,
            ));
        }
    }
    Ok(parts)
}

/// That `parts` of the weight `weight` do not have the shapes that `expected` describes.
pub(super) fn misfit(weight: &str, parts: Parts, expected: &str) -> Error {
    let mut shapes = vec![
        format!("{} (codes)", shape_text(&parts.codes.shape)),
        format!("{} (scales)", shape_text(&parts.scales.shape)),
        format!("{} (zero points)", shape_text(&parts.zero_points.shape)),
    ];
    let index = parts.index.iter();
    shapes.extend(index.map(|index| format!("{} (groups of columns)", shape_text(&index.shape))));
    let problem = format!("its tensors are {}; {expected}", shapes.join(", "));
    let error = Error::of_tensor(Code::BadScales, parts.codes.origin(), weight, problem);
    error.with_hint(Hint::leave_out(DTYPE))
}
