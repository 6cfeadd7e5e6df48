//! The schemes that views can be quantized in.
//!
//! | scheme | dialect | weights | activations, while the model runs |
//! |---|---|---|---|
//! | `nvfp4` | compressed-tensors (NVFP4A16), modelopt (W4A16_NVFP4) | E2M1, an E4M3 scale for 16 columns, a scale for all | as they are |
//! | `mxfp4` | compressed-tensors (MXFP4A16), modelopt, gpt-oss | E2M1, a power of two for 32 columns | as they are |
//! | `mxfp8` | compressed-tensors (MXFP8), modelopt (MXFP8) | E4M3, a power of two for 32 columns | E4M3, a power of two for 32 elements of a token |

use indexmap::{IndexMap, IndexSet};

use crate::catalog::{Catalog, Tensor};
use crate::error::setting::EXPERTS;
use crate::error::{Code, Error, Hint, Result};
use crate::quant::groups::scaled_with;
use crate::quant::microscaling::declaration::{self, check_base};
use crate::quant::microscaling::encode::{self, Arithmetic};
use crate::quant::microscaling::format::{Form, WEIGHT};
use crate::quant::microscaling::{Microscaling, amax};
use crate::quant::offer::{Dialect, EncodingSettings, Made, Offer};
use crate::quant::scheme::{Encoding, Fit};
use crate::tensor::{Dtype, Name, shape_text};

/// The most columns of a tensor that is quantized.
const MOST_COLUMNS: u64 = 1 << 20;

const BOTH: &[Dialect] = &[Dialect::CompressedTensors, Dialect::Modelopt];

pub(in crate::quant) const MXFP4: Offer = Offer {
    dialects: &[
        Dialect::CompressedTensors,
        Dialect::Modelopt,
        Dialect::GptOss,
    ],
    ..offer("mxfp4", |options, settings| {
        let form = match settings.dialect {
            Some(Dialect::Modelopt) => Form::Mxfp4Modelopt,
            Some(Dialect::GptOss) => Form::GptOss,
            _ => Form::Mxfp4,
        };
        made("mxfp4", options, settings, form)
    })
};

pub(in crate::quant) const MXFP8: Offer = offer("mxfp8", |options, settings| {
    made("mxfp8", options, settings, Form::Mxfp8)
});

pub(in crate::quant) const NVFP4: Offer = offer("nvfp4", |options, settings| {
    let form = match settings.dialect {
        Some(Dialect::Modelopt) => Form::Nvfp4Modelopt,
        _ => Form::Nvfp4,
    };
    made("nvfp4", options, settings, form)
});

const fn offer(name: &'static str, make: fn(&[&str], &EncodingSettings) -> Made) -> Offer {
    Offer {
        name,
        options: "",
        dialects: BOTH,
        has_scale_format: false,
        has_partial_blocks: false,
        make,
    }
}

fn made(name: &str, options: &[&str], settings: &EncodingSettings, form: Form) -> Made {
    if let Some(option) = options.first() {
        return Err(format!("{name} has no options, such as {option}"));
    }
    Ok(Box::new(MicroscalingEncoding {
        form,
        arithmetic: match settings.dialect {
            Some(Dialect::Modelopt) => Arithmetic::Modelopt,
            Some(Dialect::GptOss) => Arithmetic::Triton,
            _ => Arithmetic::CompressedTensors,
        },
    }))
}

/// One of these.
#[derive(Debug, Clone, Copy)]
struct MicroscalingEncoding {
    form: Form,
    arithmetic: Arithmetic,
}

impl MicroscalingEncoding {
    /// The columns of a row that is encoded.
    ///
    /// # Errors
    /// If `tensor` has no numbers that can be quantized, or another number of dimensions.
    fn columns(&self, name: &str, tensor: &Tensor, has_companions: bool) -> Result<u64> {
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
        let shape = shape_text(&tensor.shape);
        let columns = match (self.form, &*tensor.shape) {
            // They are transposed.
            (Form::GptOss, [_, columns, _]) if self.form.is_weight(name) => *columns,
            (Form::GptOss, _) => {
                let problem = format!(
                    "its shape is {shape}; gpt-oss quantizes experts alone, experts.gate_up_proj and experts.down_proj of 3 dimensions"
                );
                let fuse = Hint::give_value(EXPERTS, "fuse").to("fuse single experts");
                let error = refuse(Code::UnsupportedTensor, problem);
                return Err(error.with_hint(fuse.or("leave it out of what is selected")));
            }
            (_, [_, columns]) if name.ends_with(WEIGHT) => *columns,
            _ => {
                let problem = format!(
                    "its shape is {shape}; this scheme has only weights of modules, X{WEIGHT} of 2 dimensions"
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
        Ok(columns)
    }
}

impl Encoding for MicroscalingEncoding {
    fn check_base(&self, catalog: &mut Catalog) -> Result<()> {
        check_base(catalog, self.form)
    }

    fn needs_modules(&self) -> bool {
        self.form != Form::GptOss
    }

    fn is_for(&self, name: &str) -> bool {
        self.form != Form::GptOss || self.form.is_weight(name)
    }

    fn fit(&self, name: &str, tensor: &Tensor, has_companions: bool) -> Result<Fit> {
        let columns = self.columns(name, tensor, has_companions)?;
        let group = self.form.group();
        Ok(if columns.is_multiple_of(group) {
            Fit::Whole
        } else {
            Fit::Not(format!(
                "its {columns} columns are not a multiple of the group of {group}"
            ))
        })
    }

    fn shared(&self, weights: &[(&Name, &Tensor)]) -> IndexMap<Name, Tensor> {
        if self.form.global().is_none() {
            return IndexMap::new();
        }
        let mut groups: IndexMap<(&str, &str), Vec<(&Name, &Tensor)>> = IndexMap::new();
        for weight in weights {
            let group = scaled_with(weight.0).unwrap_or((&**weight.0, ""));
            groups.entry(group).or_default().push(*weight);
        }
        let of_groups = groups.into_values().flat_map(|members| {
            let amax = amax::of_all(&members);
            let names = members.into_iter().map(|(name, _)| name.clone());
            names
                .map(|name| (name, amax.clone()))
                .collect::<Vec<(Name, Tensor)>>()
        });
        of_groups.collect()
    }

    fn encode(
        &self,
        name: &Name,
        tensor: Tensor,
        shared: Option<&Tensor>,
    ) -> Result<Vec<(Name, Tensor)>> {
        encode::encode(self.form, self.arithmetic, name, tensor, shared)
    }

    fn declare(
        &self,
        catalog: &mut Catalog,
        quantized: &IndexSet<Name>,
        _partial: &[Name],
    ) -> Result<()> {
        let scheme = Microscaling::of(self.form);
        declaration::declare(catalog, &scheme, self.form, self.arithmetic, quantized)
    }
}
