//! The types of tensors in GGUF files that can be decoded. What they are called and how long their blocks are is
//! in the table of all types, [`TensorType`].

use crate::format::gguf::TensorType;

/// How the elements of a row are stored, as `ggml.h` lists it.
///
/// A row is cut into blocks of [`Type::block_len`] elements, each of [`Type::block_bytes`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(non_camel_case_types, reason = "the names that llama.cpp has")]
pub enum Type {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    MXFP4,
    IQ4_NL,
    IQ4_XS,
    TQ1_0,
    TQ2_0,
}

use Type::*;

/// Elements of a super-block, which has sub-blocks with scales of their own.
pub(super) const SUPER_BLOCK: usize = 256;

impl Type {
    pub const ALL: [Type; 18] = [
        F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, MXFP4, IQ4_NL,
        IQ4_XS, TQ1_0, TQ2_0,
    ];

    /// What files call it, and its sizes.
    pub fn tensor_type(self) -> TensorType {
        match self {
            F32 => TensorType::F32,
            F16 => TensorType::F16,
            BF16 => TensorType::BF16,
            Q4_0 => TensorType::Q4_0,
            Q4_1 => TensorType::Q4_1,
            Q5_0 => TensorType::Q5_0,
            Q5_1 => TensorType::Q5_1,
            Q8_0 => TensorType::Q8_0,
            Q2_K => TensorType::Q2_K,
            Q3_K => TensorType::Q3_K,
            Q4_K => TensorType::Q4_K,
            Q5_K => TensorType::Q5_K,
            Q6_K => TensorType::Q6_K,
            MXFP4 => TensorType::MXFP4,
            IQ4_NL => TensorType::IQ4_NL,
            IQ4_XS => TensorType::IQ4_XS,
            TQ1_0 => TensorType::TQ1_0,
            TQ2_0 => TensorType::TQ2_0,
        }
    }

    /// Its name in llama.cpp, such as `Q4_K`.
    pub fn name(self) -> &'static str {
        self.tensor_type().name()
    }

    /// Its number in a file.
    pub fn number(self) -> u32 {
        self.tensor_type().id()
    }

    /// Elements of a block.
    pub fn block_len(self) -> usize {
        self.tensor_type().block_elements() as usize
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        self.tensor_type().block_bytes() as usize
    }

    /// The type with a number in a file; `None` if it is not one of these.
    pub fn from_number(number: u32) -> Option<Type> {
        Type::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// The type with a name, in any case; `None` if it is not one of these.
    pub fn from_name(name: &str) -> Option<Type> {
        let mut all = Type::ALL.into_iter();
        all.find(|kind| kind.name().eq_ignore_ascii_case(name))
    }

    /// Bytes of a row of `columns` elements; `None` if `columns` is not a multiple of the block, or
    /// the bytes do not fit in a `usize`.
    pub fn row_bytes(self, columns: usize) -> Option<usize> {
        let bytes = self.tensor_type().row_bytes(columns as u64)?;
        usize::try_from(bytes).ok()
    }

    /// Whether [`encode_row`](super::encode_row) knows it. All are known to
    /// [`decode_row`](super::decode_row).
    pub fn is_encodable(self) -> bool {
        !matches!(self, IQ4_NL | IQ4_XS | TQ1_0 | TQ2_0)
    }
}
