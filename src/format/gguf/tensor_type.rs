//! Types of tensors: how elements are stored, in blocks of a row.

use std::fmt;

/// How the elements of a tensor are stored. A row is a whole number of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TensorType(&'static Described);

#[derive(Debug, PartialEq, Eq, Hash)]
struct Described {
    id: u32,
    name: &'static str,
    /// Elements of a block, and its bytes.
    block: (u64, u64),
}

/// Declares the types: name, number in files, elements of a block, bytes of a block.
macro_rules! types {
    ($($name:ident = $id:literal: $elements:literal in $bytes:literal,)+) => {
        impl TensorType {
            $(
                #[allow(missing_docs)]
                pub const $name: TensorType = TensorType(&Described {
                    id: $id,
                    name: stringify!($name),
                    block: ($elements, $bytes),
                });
            )+

            /// Every type that a file may have.
            pub const ALL: &'static [TensorType] = &[$(TensorType::$name),+];
        }
    };
}

types! {
    F32 = 0: 1 in 4,
    F16 = 1: 1 in 2,
    Q4_0 = 2: 32 in 18,
    Q4_1 = 3: 32 in 20,
    Q5_0 = 6: 32 in 22,
    Q5_1 = 7: 32 in 24,
    Q8_0 = 8: 32 in 34,
    Q8_1 = 9: 32 in 36,
    Q2_K = 10: 256 in 84,
    Q3_K = 11: 256 in 110,
    Q4_K = 12: 256 in 144,
    Q5_K = 13: 256 in 176,
    Q6_K = 14: 256 in 210,
    Q8_K = 15: 256 in 292,
    IQ2_XXS = 16: 256 in 66,
    IQ2_XS = 17: 256 in 74,
    IQ3_XXS = 18: 256 in 98,
    IQ1_S = 19: 256 in 50,
    IQ4_NL = 20: 32 in 18,
    IQ3_S = 21: 256 in 110,
    IQ2_S = 22: 256 in 82,
    IQ4_XS = 23: 256 in 136,
    I8 = 24: 1 in 1,
    I16 = 25: 1 in 2,
    I32 = 26: 1 in 4,
    I64 = 27: 1 in 8,
    F64 = 28: 1 in 8,
    IQ1_M = 29: 256 in 56,
    BF16 = 30: 1 in 2,
    TQ1_0 = 34: 256 in 54,
    TQ2_0 = 35: 256 in 66,
    MXFP4 = 39: 32 in 17,
}

impl TensorType {
    /// The type with this number in files.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.id() == id)
    }

    /// The type called `name`, in any case.
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.iter().copied();
        all.find(|known| known.name().eq_ignore_ascii_case(name))
    }

    /// Its number in files.
    pub fn id(self) -> u32 {
        self.0.id
    }

    /// Its name, such as `Q4_K`.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Elements of a block; 1 of plain numbers.
    pub fn block_elements(self) -> u64 {
        self.0.block.0
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> u64 {
        self.0.block.1
    }

    /// Bytes of a row of `columns` elements; `None` if that is no whole number of blocks, or the
    /// bytes are 2^64 or more.
    pub fn row_bytes(self, columns: u64) -> Option<u64> {
        let (elements, bytes) = self.0.block;
        let blocks = columns
            .is_multiple_of(elements)
            .then_some(columns / elements);
        blocks?.checked_mul(bytes)
    }

    /// Bytes of a tensor of `shape` (slowest dimension first); `None` as for
    /// [`row_bytes`](Self::row_bytes).
    pub fn byte_len(self, shape: &[u64]) -> Option<u64> {
        let (&columns, outer) = shape.split_last().unwrap_or((&1, &[]));
        let rows = outer.iter().try_fold(1u64, |n, &d| n.checked_mul(d))?;
        // An empty tensor has dimensions that multiply to something, too.
        rows.checked_mul(columns)?;
        self.row_bytes(columns)?.checked_mul(rows)
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
