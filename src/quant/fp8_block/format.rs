//! What block FP8 is made of: its names, its dtypes and the geometry of its blocks.

use crate::kernels::fp8;
use crate::tensor::Dtype;

/// Rows and columns of the blocks of what is encoded.
pub(super) const BLOCK: u64 = fp8::BLOCK as u64;
pub(super) const SCALE_SUFFIX: &str = "_scale_inv";
/// `quant_method` of config.json.
pub(super) const METHOD: &str = "fp8";
pub(super) const BLOCK_SIZE_KEY: &str = "weight_block_size";
pub(super) const SCALE_FORMAT_KEY: &str = "scale_fmt";
/// What [`SCALE_FORMAT_KEY`] is if all scales are powers of two.
pub(super) const POWERS_OF_TWO: &str = "ue8m0";

/// Block FP8 as a checkpoint has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fp8Block {
    /// Rows and columns that a scale is for.
    pub(super) block: [u64; 2],
}

impl Fp8Block {
    /// What it is if config.json does not say.
    pub(crate) const USUAL: Self = Fp8Block { block: [BLOCK; 2] };

    /// The shape of a weight's scales: the last two dimensions in blocks, the leading ones as they
    /// are.
    pub(super) fn scale_shape(&self, weight: &[u64]) -> Option<Vec<u64>> {
        let (leading, &[rows, columns]) = weight.split_last_chunk()?;
        let blocks = [
            rows.div_ceil(self.block[0]),
            columns.div_ceil(self.block[1]),
        ];
        Some([leading, &blocks].concat())
    }
}

/// The name of the scales of the weight `name`.
pub(super) fn scale_name(name: &str) -> String {
    [name, SCALE_SUFFIX].concat()
}

/// The weight whose scales are called `name`.
pub(super) fn weight_of(name: &str) -> Option<&str> {
    name.strip_suffix(SCALE_SUFFIX)
}

/// Whether `dtype` is one of the 8-bit floating point types that hold weights (not scales).
pub(super) fn is_code(dtype: Dtype) -> bool {
    matches!(
        dtype,
        Dtype::F8_E4M3 | Dtype::F8_E5M2 | Dtype::F8_E4M3FNUZ | Dtype::F8_E5M2FNUZ
    )
}
