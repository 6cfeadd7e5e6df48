//! The types of tensors in GGUF files: names, numbers and block sizes.

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

    /// Its name in llama.cpp, such as `Q4_K`.
    pub fn name(self) -> &'static str {
        self.facts().0
    }

    /// Its number in a file.
    pub fn number(self) -> u32 {
        self.facts().1
    }

    /// Elements of a block.
    pub fn block_len(self) -> usize {
        self.facts().2
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        self.facts().3
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
        let is_whole = columns.is_multiple_of(self.block_len());
        let blocks = is_whole.then(|| columns / self.block_len())?;
        blocks.checked_mul(self.block_bytes())
    }

    /// Whether [`encode_row`](super::encode_row) knows it. All are known to
    /// [`decode_row`](super::decode_row).
    pub fn is_encodable(self) -> bool {
        !matches!(self, IQ4_NL | IQ4_XS | TQ1_0 | TQ2_0)
    }

    /// Name, number, elements and bytes of a block.
    fn facts(self) -> (&'static str, u32, usize, usize) {
        match self {
            F32 => ("F32", 0, 1, 4),
            F16 => ("F16", 1, 1, 2),
            BF16 => ("BF16", 30, 1, 2),
            Q4_0 => ("Q4_0", 2, 32, 18),
            Q4_1 => ("Q4_1", 3, 32, 20),
            Q5_0 => ("Q5_0", 6, 32, 22),
            Q5_1 => ("Q5_1", 7, 32, 24),
            Q8_0 => ("Q8_0", 8, 32, 34),
            Q2_K => ("Q2_K", 10, SUPER_BLOCK, 84),
            Q3_K => ("Q3_K", 11, SUPER_BLOCK, 110),
            Q4_K => ("Q4_K", 12, SUPER_BLOCK, 144),
            Q5_K => ("Q5_K", 13, SUPER_BLOCK, 176),
            Q6_K => ("Q6_K", 14, SUPER_BLOCK, 210),
            MXFP4 => ("MXFP4", 39, 32, 17),
            IQ4_NL => ("IQ4_NL", 20, 32, 18),
            IQ4_XS => ("IQ4_XS", 23, SUPER_BLOCK, 136),
            TQ1_0 => ("TQ1_0", 34, SUPER_BLOCK, 54),
            TQ2_0 => ("TQ2_0", 35, SUPER_BLOCK, 66),
        }
    }
}
