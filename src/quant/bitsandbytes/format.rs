//! Names of the tensors of bitsandbytes.

use crate::catalog::Tensor;
use crate::error::setting::DTYPE;
use crate::error::{Code, Error, Hint};

pub(super) const WEIGHT: &str = ".weight";
pub(super) const ABSMAX: &str = ".absmax";
/// What names of companions end with, after that of the weight.
pub(super) const OF_FOUR_BITS: [&str; 6] = [
    ABSMAX,
    ".quant_map",
    ".nested_absmax",
    ".nested_quant_map",
    ".quant_state.bitsandbytes__nf4",
    ".quant_state.bitsandbytes__fp4",
];
pub(super) const SCALES: &str = ".SCB";
pub(super) const FORMAT: &str = ".weight_format";

/// That the weight `name` cannot be read, for `problem`.
pub(super) fn refuse(code: Code, name: &str, codes: &Tensor, problem: String) -> Error {
    let error = Error::of_tensor(code, codes.origin(), name, problem);
    error.with_hint(Hint::leave_out(DTYPE))
}
