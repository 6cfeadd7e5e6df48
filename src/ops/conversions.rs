//! The dtypes that are asked for, which several operators must know: tensors are rounded once, and
//! adapters are merged into numbers.

use crate::kernels::lanes::Precision;

/// Every dtype that a request asks for.
#[derive(Debug, Clone, Copy)]
pub struct Conversions<'a> {
    /// That of all floating tensors.
    pub dtype: Option<Precision>,
    /// That of tensors whose stored type no view has, where no dtype is asked for.
    pub undecided: Precision,
    /// Those of single tensors, which take precedence.
    pub rules: &'a [CastRule],
    /// Whether a later step quantizes, which then chooses again which weights of a layer are quantized.
    pub quantizes: bool,
}

/// A regular expression for whole names, and the dtype of the tensors that have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CastRule {
    pub names: String,
    pub to: Precision,
}
