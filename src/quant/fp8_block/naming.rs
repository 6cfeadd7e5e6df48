//! What the scales of an FP8 weight `X` are called: `X_scale_inv`, `X_scale`, or `Y.scale` for a weight `Y.weight`.

use indexmap::IndexMap;

use crate::catalog::Tensor;
use crate::quant::fp8_block::format::{Fp8Block, SCALE_SUFFIX, is_code};
use crate::quant::scheme::Role;
use crate::tensor::{Dtype, Name};

const WEIGHT: &str = ".weight";
const SCALE: &str = "_scale";
const MODULE_SCALE: &str = ".scale";

/// Every name that scales of the weight `name` may have.
pub(super) fn scale_names(name: &str) -> impl Iterator<Item = String> {
    let beside = [SCALE_SUFFIX, SCALE].map(|suffix| [name, suffix].concat());
    let of_module = name.strip_suffix(WEIGHT);
    let of_module = of_module.map(|module| [module, MODULE_SCALE].concat());
    beside.into_iter().chain(of_module)
}

/// The scales of the weight `name`, and what they are called.
pub(super) fn scales<'a>(
    tensors: &'a IndexMap<Name, Tensor>,
    name: &str,
) -> Option<(&'a Name, &'a Tensor)> {
    scale_names(name).find_map(|scales| tensors.get_key_value(&*scales))
}

/// The weight of `tensors` whose scales are called `name`; under other names than block FP8 usually has, a weight that is
/// quantized.
pub(super) fn weight_of(tensors: &IndexMap<Name, Tensor>, name: &str) -> Option<String> {
    if let Some(weight) = name.strip_suffix(SCALE_SUFFIX) {
        return Some(weight.to_owned());
    }
    let of_module = name.strip_suffix(MODULE_SCALE);
    let weights = [
        name.strip_suffix(SCALE).map(str::to_owned),
        of_module.map(|module| [module, WEIGHT].concat()),
    ];
    let mut weights = weights.into_iter().flatten();
    weights.find(|weight| {
        let tensor = tensors.get(&**weight);
        tensor.is_some_and(|tensor| is_code(tensor.dtype) || is_nibbles(tensors, weight, tensor))
    })
}

/// Whether `tensor`, called `name`, is two codes of 4 bits in each byte, with a scale for each 32.
pub(super) fn is_nibbles(tensors: &IndexMap<Name, Tensor>, name: &str, tensor: &Tensor) -> bool {
    let module = name.strip_suffix(WEIGHT);
    let scales = module.and_then(|module| tensors.get(&*[module, MODULE_SCALE].concat()));
    matches!(tensor.dtype, Dtype::I8 | Dtype::U8)
        && scales.is_some_and(|scales| scales.dtype == Dtype::F8_E8M0)
}

/// As [`Scheme::role`](crate::quant::Scheme::role).
pub(super) fn role(
    scheme: &Fp8Block,
    tensors: &IndexMap<Name, Tensor>,
    name: &str,
    tensor: &Tensor,
) -> Role {
    use crate::quant::scheme::Scheme;
    match weight_of(tensors, name) {
        Some(weight) => Role::Companion(weight),
        None if scheme.has_dtype(tensor.dtype) || is_nibbles(tensors, name, tensor) => {
            Role::Codes(name.to_owned())
        }
        None => Role::Plain,
    }
}
