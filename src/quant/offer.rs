//! What an encoding says of itself where people choose one, and what can be chosen besides its name.

use crate::kernels::fp8::ScaleFormat;
use crate::named::named;
use crate::quant::scheme::Encoding;

/// How config.json declares a scheme, and what its tensors are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `quant_method: "fp8"`, as DeepSeek's and Qwen's releases have it.
    Fp8,
    /// `quant_method: "compressed-tensors"`.
    CompressedTensors,
    /// `quant_method: "modelopt"`, as NVIDIA's releases have it.
    Modelopt,
    /// `quant_method: "mxfp4"`, as OpenAI's gpt-oss has it.
    GptOss,
}

named!(Dialect {
    Fp8: "fp8",
    CompressedTensors: "compressed-tensors",
    Modelopt: "modelopt",
    GptOss: "gpt-oss",
});

/// An encoding, or what is wrong with the options that are asked for.
pub(super) type Made = Result<Box<dyn Encoding>, String>;

/// A scheme that views can be quantized in.
pub(super) struct Offer {
    /// What people call it.
    pub name: &'static str,
    /// The options that may follow its name, for messages.
    pub options: &'static str,
    /// The first is the one that is meant if none is given.
    pub dialects: &'static [Dialect],
    /// Whether its scales have a format to choose.
    pub has_scale_format: bool,
    /// Whether it takes blocks that are cut off at an edge.
    pub has_partial_blocks: bool,
    pub make: fn(&[&str], &EncodingSettings) -> Made,
}

/// What is asked of an encoding besides its name and options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EncodingSettings {
    /// `None` is the usual one of the scheme.
    pub dialect: Option<Dialect>,
    /// `None` is the default.
    pub scale_format: Option<ScaleFormat>,
    /// Whether it is said what becomes of tensors with partial blocks.
    pub says_partial_blocks: bool,
    /// Whether numbers of weights that were FP4 may be rounded.
    pub allows_rounding: bool,
}
