//! What weights are made of whose codes are floating-point numbers with scales of 8 bits: names, dtypes,
//! shapes.

use crate::tensor::Dtype;

/// What the names of weights of modules end with.
pub(super) const WEIGHT: &str = ".weight";

/// How the tensors of a weight `X` of shape `[.., rows, cols]` are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// NVFP4 of compressed-tensors.
    Nvfp4,
    /// NVFP4 of ModelOpt.
    Nvfp4Modelopt,
    /// MXFP4 of compressed-tensors.
    Mxfp4,
    /// MXFP4 of ModelOpt.
    Mxfp4Modelopt,
    /// MXFP8, which both have in one form.
    Mxfp8,
    /// MXFP4 of gpt-oss: experts `[E, rows, cols]`, which are the transposed ones of the unquantized form.
    GptOss,
}

/// How scales of a block are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scales {
    /// The exponent of two, plus 127.
    PowersOfTwo,
    /// E4M3, to be divided by one number for the whole weight.
    Divided,
    /// E4M3, to be multiplied by one number for the whole weight.
    Multiplied,
}

impl Form {
    /// What messages call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Form::Nvfp4 => "NVFP4 of compressed-tensors",
            Form::Nvfp4Modelopt => "NVFP4 of ModelOpt",
            Form::Mxfp4 => "MXFP4 of compressed-tensors",
            Form::Mxfp4Modelopt => "MXFP4 of ModelOpt",
            Form::Mxfp8 => "MXFP8",
            Form::GptOss => "MXFP4 of gpt-oss",
        }
    }

    /// What the name of the codes has after that of the weight.
    pub(super) fn codes(self) -> &'static str {
        match self {
            Form::Nvfp4 | Form::Mxfp4 => "_packed",
            Form::GptOss => "_blocks",
            Form::Nvfp4Modelopt | Form::Mxfp4Modelopt | Form::Mxfp8 => "",
        }
    }

    /// The same of the scales of blocks.
    pub(super) fn scale(self) -> &'static str {
        match self {
            Form::GptOss => "_scales",
            _ => "_scale",
        }
    }

    /// The same of the number for the whole weight, if there is one.
    pub(super) fn global(self) -> Option<&'static str> {
        match self {
            Form::Nvfp4 => Some("_global_scale"),
            Form::Nvfp4Modelopt => Some("_scale_2"),
            _ => None,
        }
    }

    /// What the names of companions end with, after that of the weight.
    pub(super) fn suffixes(self) -> impl Iterator<Item = &'static str> {
        let codes = Some(self.codes()).filter(|codes| !codes.is_empty());
        codes.into_iter().chain([self.scale()]).chain(self.global())
    }

    /// The weight that the companion `name` belongs to.
    pub(super) fn weight_of(self, name: &str) -> Option<&str> {
        // One suffix may be the end of another.
        let mut suffixes = self.suffixes();
        suffixes.find_map(|suffix| {
            let weight = name.strip_suffix(suffix);
            weight.filter(|weight| self.is_weight(weight))
        })
    }

    /// Whether a weight may be called so.
    pub(super) fn is_weight(self, name: &str) -> bool {
        match self {
            Form::GptOss => [".gate_up_proj", ".down_proj"]
                .iter()
                .any(|projection| name.ends_with(projection)),
            _ => name.ends_with(WEIGHT),
        }
    }

    /// Columns that share a scale.
    pub(super) fn group(self) -> u64 {
        match self {
            Form::Nvfp4 | Form::Nvfp4Modelopt => 16,
            _ => 32,
        }
    }

    /// Bits of a code.
    pub(super) fn bits(self) -> u64 {
        match self {
            Form::Mxfp8 => 8,
            _ => 4,
        }
    }

    pub(super) fn code_dtype(self) -> Dtype {
        match self {
            Form::Mxfp8 => Dtype::F8_E4M3,
            _ => Dtype::U8,
        }
    }

    pub(super) fn scales(self) -> Scales {
        match self {
            Form::Nvfp4 => Scales::Divided,
            Form::Nvfp4Modelopt => Scales::Multiplied,
            _ => Scales::PowersOfTwo,
        }
    }

    /// The dtype that views give scales, and that of sources which have them in another.
    pub(super) fn scale_dtypes(self) -> &'static [Dtype] {
        match self.scales() {
            // safetensors' binding for torch cannot make tensors of E8M0 of bytes.
            Scales::PowersOfTwo => &[Dtype::U8, Dtype::F8_E8M0],
            Scales::Divided | Scales::Multiplied => &[Dtype::F8_E4M3],
        }
    }

    /// The shapes of codes and of scales of a weight of shape `[.., rows, cols]`, whose columns are whole
    /// groups.
    pub(super) fn shapes(self, weight: &[u64]) -> Option<[Vec<u64>; 2]> {
        let (&columns, leading) = weight.split_last()?;
        if !columns.is_multiple_of(self.group()) {
            return None;
        }
        let groups = columns / self.group();
        let codes: &[u64] = match self {
            Form::GptOss => &[groups, self.group() / 2],
            _ => &[columns * self.bits() / 8],
        };
        Some([[leading, codes].concat(), [leading, &[groups]].concat()])
    }

    /// The shape of the weight whose codes have shape `codes`.
    pub(super) fn weight_shape(self, codes: &[u64]) -> Option<Vec<u64>> {
        let mut shape = codes.to_vec();
        let mut last = shape.pop()?;
        if self == Form::GptOss {
            last = last.checked_mul(shape.pop()?)?;
        }
        shape.push(last.checked_mul(8 / self.bits())?);
        (shape.len() >= 2).then_some(shape)
    }
}
