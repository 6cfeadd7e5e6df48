//! The types that a whole file can be asked in.

use crate::format::gguf::TensorType;
use crate::named::named;

/// What a file is to be in, as `convert_hf_to_gguf.py --outtype` and `llama-quantize` call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum GgufKind {
    F32,
    F16,
    Bf16,
    /// BF16 or F16, whichever the first matrix of the model is in; F16 if it is in neither.
    Auto,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q2K,
    Q3KS,
    Q3KM,
    Q3KL,
    Q4KS,
    Q4KM,
    Q5KS,
    Q5KM,
    Q6K,
    /// MXFP4 in matrices of experts, Q8_0 in others.
    Mxfp4,
}

named!(GgufKind {
    F32: "f32",
    F16: "f16",
    Bf16: "bf16",
    Auto: "auto",
    Q8_0: "q8_0",
    Q4_0: "q4_0",
    Q4_1: "q4_1",
    Q5_0: "q5_0",
    Q5_1: "q5_1",
    Q2K: "q2_k",
    Q3KS: "q3_k_s",
    Q3KM: "q3_k_m" | "q3_k",
    Q3KL: "q3_k_l",
    Q4KS: "q4_k_s",
    Q4KM: "q4_k_m" | "q4_k",
    Q5KS: "q5_k_s",
    Q5KM: "q5_k_m" | "q5_k",
    Q6K: "q6_k",
    Mxfp4: "mxfp4",
});

impl GgufKind {
    /// `general.file_type`.
    ///
    /// # Panics
    /// Of [`GgufKind::Auto`], which is resolved before.
    pub(super) fn file_type(self) -> u32 {
        match self {
            GgufKind::F32 => 0,
            GgufKind::F16 => 1,
            GgufKind::Q4_0 => 2,
            GgufKind::Q4_1 => 3,
            GgufKind::Q8_0 => 7,
            GgufKind::Q5_0 => 8,
            GgufKind::Q5_1 => 9,
            GgufKind::Q2K => 10,
            GgufKind::Q3KS => 11,
            GgufKind::Q3KM => 12,
            GgufKind::Q3KL => 13,
            GgufKind::Q4KS => 14,
            GgufKind::Q4KM => 15,
            GgufKind::Q5KS => 16,
            GgufKind::Q5KM => 17,
            GgufKind::Q6K => 18,
            GgufKind::Bf16 => 32,
            GgufKind::Mxfp4 => 38,
            GgufKind::Auto => unreachable!("auto is resolved first"),
        }
    }

    /// The type that most matrices have.
    ///
    /// # Panics
    /// Of [`GgufKind::Auto`], which is resolved before.
    pub(super) fn default_type(self) -> TensorType {
        match self {
            GgufKind::F32 => TensorType::F32,
            GgufKind::F16 => TensorType::F16,
            GgufKind::Bf16 => TensorType::BF16,
            GgufKind::Q8_0 => TensorType::Q8_0,
            GgufKind::Q4_0 => TensorType::Q4_0,
            GgufKind::Q4_1 => TensorType::Q4_1,
            GgufKind::Q5_0 => TensorType::Q5_0,
            GgufKind::Q5_1 => TensorType::Q5_1,
            GgufKind::Q2K => TensorType::Q2_K,
            GgufKind::Q3KS | GgufKind::Q3KM | GgufKind::Q3KL => TensorType::Q3_K,
            GgufKind::Q4KS | GgufKind::Q4KM => TensorType::Q4_K,
            GgufKind::Q5KS | GgufKind::Q5KM => TensorType::Q5_K,
            GgufKind::Q6K => TensorType::Q6_K,
            GgufKind::Mxfp4 => TensorType::MXFP4,
            GgufKind::Auto => unreachable!("auto is resolved first"),
        }
    }

    /// Whether `convert_hf_to_gguf.py` writes such files itself; others come of its files by `llama-quantize`,
    /// which has an order and choices of its own.
    pub(super) fn is_of_converter(self) -> bool {
        self.is_plain() || self == GgufKind::Q8_0
    }

    /// Whether nothing is quantized.
    pub(super) fn is_plain(self) -> bool {
        use GgufKind::{Auto, Bf16, F16, F32};
        matches!(self, F32 | F16 | Bf16 | Auto)
    }
}
