//! The schemes of compressed-tensors that views can be quantized in.
//!
//! | scheme | what compressed-tensors calls it | weights | activations, while the model runs |
//! |---|---|---|---|
//! | `fp8-block` in this dialect | FP8_BLOCK | E4M3, a scale for 128 × 128 | E4M3, a scale for 128 elements of a token |
//! | `fp8-channel` | FP8_DYNAMIC | E4M3, a scale for a row | E4M3, a scale for a token |
//! | `int8-channel` | W8A8 | 8 bits, a scale for a row | 8 bits, a scale for a token |
//! | `int4` | W4A16, W4A16_ASYM | 4 bits, a scale for 128 columns | as they are |

use indexmap::IndexSet;

use crate::catalog::{Catalog, Tensor};
use crate::error::setting::EXPERTS;
use crate::error::{Code, Error, Hint, Result};
use crate::quant::compressed_tensors::CompressedTensors;
use crate::quant::compressed_tensors::declaration::{self, Activations};
use crate::quant::compressed_tensors::encode::{self, Matrix};
use crate::quant::compressed_tensors::format::{Form, Kind, NIBBLES, Strategy, WEIGHT, Weights};
use crate::quant::fp8_block::{self, ScaleFormat};
use crate::quant::offer::{Dialect, EncodingSettings, Made, Offer};
use crate::quant::scheme::{Encoding, Exactness, Fit, Rounding};
use crate::tensor::{Dtype, Name, shape_text};

/// The most columns of a tensor that is quantized.
const MOST_COLUMNS: u64 = 1 << 20;
/// Rows and columns of the blocks of [`block_fp8`], and the columns of a group of `int4`.
const BLOCK: u64 = 128;

const DIALECTS: &[Dialect] = &[Dialect::CompressedTensors];

pub(in crate::quant) const FP8_CHANNEL: Offer = Offer {
    name: "fp8-channel",
    options: "",
    dialects: DIALECTS,
    has_scale_format: false,
    has_partial_blocks: false,
    make: |options, _| {
        no_options("fp8-channel", options)?;
        Ok(symmetric(
            Kind::Float8,
            Strategy::Channel,
            Activations::Tokens,
        ))
    },
};

pub(in crate::quant) const INT8_CHANNEL: Offer = Offer {
    name: "int8-channel",
    options: "",
    dialects: DIALECTS,
    has_scale_format: false,
    has_partial_blocks: false,
    make: |options, _| {
        no_options("int8-channel", options)?;
        Ok(symmetric(
            Kind::Int8,
            Strategy::Channel,
            Activations::Tokens,
        ))
    },
};

pub(in crate::quant) const INT4: Offer = Offer {
    name: "int4",
    options: "[:group=128|32][,asymmetric]",
    dialects: DIALECTS,
    has_scale_format: false,
    has_partial_blocks: false,
    make: int4,
};

/// Block FP8 in this dialect.
pub(in crate::quant) fn block_fp8(settings: &EncodingSettings) -> Made {
    Ok(Box::new(CompressedTensorsEncoding {
        weights: Weights {
            kind: Kind::Float8,
            strategy: Strategy::Block([BLOCK; 2]),
            symmetric: true,
            reordered: false,
        },
        activations: Activations::Groups(BLOCK),
        allows_rounding: settings.allows_rounding,
    }))
}

fn no_options(name: &str, options: &[&str]) -> std::result::Result<(), String> {
    match options.first() {
        Some(option) => Err(format!("{name} has no options, such as {option}")),
        None => Ok(()),
    }
}

fn symmetric(kind: Kind, strategy: Strategy, activations: Activations) -> Box<dyn Encoding> {
    Box::new(CompressedTensorsEncoding {
        weights: Weights {
            kind,
            strategy,
            symmetric: true,
            reordered: false,
        },
        activations,
        allows_rounding: true,
    })
}

fn int4(options: &[&str], _: &EncodingSettings) -> Made {
    let (mut group, mut symmetric) = (BLOCK, true);
    for option in options {
        match option.split_once('=') {
            None if *option == "asymmetric" => symmetric = false,
            None if *option == "symmetric" => symmetric = true,
            Some(("group", size)) => match size.parse() {
                Ok(size @ (32 | BLOCK)) => group = size,
                _ => return Err(format!("a group of int4 has 128 or 32 columns, not {size}")),
            },
            _ => {
                return Err(format!(
                    "int4 has the options group=128, group=32 and asymmetric, not {option}"
                ));
            }
        }
    }
    Ok(Box::new(CompressedTensorsEncoding {
        weights: Weights {
            kind: Kind::Int4,
            strategy: Strategy::Group(group),
            symmetric,
            reordered: false,
        },
        activations: Activations::None,
        allows_rounding: true,
    }))
}

/// One of these.
#[derive(Debug, Clone, Copy)]
struct CompressedTensorsEncoding {
    weights: Weights,
    activations: Activations,
    /// Whether nothing need be said of weights that were FP4, whose numbers are rounded.
    allows_rounding: bool,
}

impl CompressedTensorsEncoding {
    fn form(&self) -> Form {
        self.weights.form().expect("what is offered has a form")
    }

    /// The rows and columns of `tensor`.
    ///
    /// # Errors
    /// If it is no matrix of numbers that can be quantized.
    fn shape(&self, name: &str, tensor: &Tensor, has_companions: bool) -> Result<[u64; 2]> {
        let refuse = |code, problem: String| {
            let problem = format!("it is selected to be quantized, but {problem}");
            Error::of_tensor(code, tensor.origin(), name, problem)
        };
        if !matches!(tensor.dtype, Dtype::BF16 | Dtype::F16 | Dtype::F32) {
            let problem = format!(
                "its dtype is {}; only BF16, F16 and F32 can be quantized",
                tensor.dtype
            );
            return Err(refuse(Code::UnsupportedTensor, problem));
        }
        if has_companions {
            let problem = format!(
                "of dtype {}, and there are scales of it already",
                tensor.dtype
            );
            return Err(refuse(Code::MissingWeight, problem));
        }
        let [rows, columns] = match *tensor.shape {
            [rows, columns] if name.ends_with(WEIGHT) => [rows, columns],
            _ => {
                let problem = format!(
                    "its shape is {}; compressed-tensors has only weights of modules, X{WEIGHT} of 2 dimensions",
                    shape_text(&tensor.shape)
                );
                let unfuse = Hint::give_value(EXPERTS, "unfuse").to("split fused experts");
                let error = refuse(Code::UnsupportedTensor, problem);
                return Err(error.with_hint(unfuse.or("leave it out of what is selected")));
            }
        };
        if columns > MOST_COLUMNS && tensor.len() > 0 {
            let problem = format!(
                "it has {columns} columns; at most {MOST_COLUMNS} can be quantized, since rows are computed at once"
            );
            return Err(refuse(Code::OverLimit, problem));
        }
        Ok([rows, columns])
    }
}

impl Encoding for CompressedTensorsEncoding {
    fn check_base(&self, catalog: &mut Catalog) -> Result<()> {
        declaration::check_base(catalog)
    }

    fn needs_modules(&self) -> bool {
        true
    }

    fn fit(&self, name: &str, tensor: &Tensor, has_companions: bool) -> Result<Fit> {
        let [rows, columns] = self.shape(name, tensor, has_companions)?;
        let is_multiple = |number: u64, of: u64| number.is_multiple_of(of);
        Ok(match self.weights.strategy {
            Strategy::Group(size) if !is_multiple(columns, size) => Fit::Not(format!(
                "its {columns} columns are not a multiple of the group of {size}"
            )),
            Strategy::Group(_) if !self.weights.symmetric && !is_multiple(rows, NIBBLES) => {
                Fit::Not(format!(
                    "its {rows} rows are not a multiple of {NIBBLES}, by which zero points are packed"
                ))
            }
            Strategy::Block([high, wide])
                if !is_multiple(rows, high) || !is_multiple(columns, wide) =>
            {
                Fit::Partial
            }
            _ => Fit::Whole,
        })
    }

    fn exactness(&self, tensor: &Tensor) -> Exactness {
        let rounded = fp8_block::exactness(tensor, ScaleFormat::Float32);
        match rounded {
            Exactness::Rounded(rounding) if !self.allows_rounding => Exactness::Rounded(Rounding {
                instead: None,
                ..rounding
            }),
            _ => Exactness::NotExpected,
        }
    }

    fn encode(
        &self,
        name: &Name,
        tensor: Tensor,
        _shared: Option<&Tensor>,
    ) -> Result<Vec<(Name, Tensor)>> {
        let [rows, columns] = *tensor.shape else {
            unreachable!("what is encoded was checked");
        };
        let matrix = Matrix::new([rows, columns], tensor.dtype, self.weights);
        Ok(encode::encode(name, tensor, matrix))
    }

    fn declare(
        &self,
        catalog: &mut Catalog,
        quantized: &IndexSet<Name>,
        partial: &[Name],
    ) -> Result<()> {
        let scheme = CompressedTensors::of(self.form(), Some(self.weights));
        if !partial.is_empty() {
            fp8_block::warn_partial_blocks(catalog, partial);
        }
        declaration::declare(catalog, &scheme, quantized, self.weights, self.activations)
    }
}
