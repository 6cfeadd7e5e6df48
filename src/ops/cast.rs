//! One dtype for every floating tensor: numbers are rounded to it, and block FP8 weights are
//! multiplied by their scales ([`dequantized`]).
//!
//! | tensor | becomes |
//! |---|---|
//! | BF16, F16, F32, F64 | the target; as it is if it has that dtype |
//! | `X` in F8_E4M3 or F8_E5M2 with block scales `X_scale_inv` | `X` in the target, without scales |
//! | integers, booleans | as they are |
//!
//! The numbers are defined in [`crate::kernels::cast`].

use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};
use indexmap::IndexMap;

use crate::catalog::{Band, Catalog, Kernel, Node, NonFinite, RowBands, Step, Tensor};
use crate::error::{Error, Result};
use crate::kernels::CpuPath;
use crate::kernels::cast::{F64ToF32, F64ToOdd, Source, convert};
use crate::kernels::lanes::Precision;
use crate::ops::{Operator, cast_config, dequantized};
use crate::tensor::{Dtype, Name, byte_len, is_float8, scale_name, scaled_name, shape_text};

/// Gives every floating tensor of a catalog in one dtype.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cast {
    pub to: Precision,
    /// Leave tensors that are not quantized as they are.
    pub only_quantized: bool,
}

impl Operator for Cast {
    fn apply(&self, catalog: &mut Catalog) -> Result<()> {
        let block = cast_config::block(catalog)?;
        let old = std::mem::take(&mut catalog.tensors);
        let mut tensors = IndexMap::with_capacity(old.len());
        let (mut cast_count, mut dequantized_count) = (0, 0);
        for (name, tensor) in &old {
            if scaled_name(name).is_some() {
                check_scales(&old, name, tensor)?;
                continue;
            }
            let new = if is_castable(tensor.dtype) && !self.only_quantized {
                let new = cast(name, tensor, self.to)?;
                cast_count += usize::from(tensor.dtype != new.dtype);
                new
            } else if is_scaled_float(tensor.dtype) {
                let scales = scales(&old, name, tensor)?;
                dequantized_count += 1;
                dequantized(name, tensor, scales, block, self.to)?
            } else {
                tensor.clone()
            };
            tensors.insert(name.clone(), new);
        }
        catalog.tensors = tensors;
        catalog.report.cast += cast_count;
        catalog.report.dequantized += dequantized_count;
        if self.only_quantized {
            if dequantized_count > 0 {
                cast_config::undeclare_quantization(catalog)?;
            }
            return Ok(());
        }
        // Adapters are merged into what was dequantized before.
        if catalog.report.cast + catalog.report.dequantized == 0 {
            catalog.report.warnings.push(format!(
                "--dtype finds nothing to do: every floating tensor of this view is {} already",
                self.to.dtype()
            ));
        }
        cast_config::declare(catalog, self.to)
    }
}

/// Checks that the scales called `name` are those of a weight that can be dequantized.
fn check_scales(tensors: &IndexMap<Name, Tensor>, name: &str, scales: &Tensor) -> Result<()> {
    let weight_name = scaled_name(name).unwrap_or(name);
    let problem = match tensors.get(weight_name) {
        Some(weight) if matches!(weight.dtype, Dtype::F8_E4M3 | Dtype::F8_E5M2) => return Ok(()),
        Some(weight) => format!(
            "these are the scales of {weight_name}, which is {}; only F8_E4M3 and F8_E5M2 weights can be dequantized; take weight and scales from the same checkpoint, or leave --dtype out",
            weight.dtype
        ),
        None => format!(
            "these are scales, but there is no {weight_name} in this view; add it with --extra, or leave them out with --drop"
        ),
    };
    Err(Error::tensor(scales.origin(), name, problem))
}

/// Whether elements of `dtype` mean something only together with scales.
fn is_scaled_float(dtype: Dtype) -> bool {
    is_float8(dtype)
        || matches!(
            dtype,
            Dtype::F8_E8M0 | Dtype::F6_E2M3 | Dtype::F6_E3M2 | Dtype::F4
        )
}

/// The block scales of the quantized `tensor`.
fn scales<'a>(
    tensors: &'a IndexMap<Name, Tensor>,
    name: &str,
    tensor: &Tensor,
) -> Result<&'a Tensor> {
    let expected = scale_name(name);
    if let Some(scales) = tensors.get(&*expected)
        && matches!(tensor.dtype, Dtype::F8_E4M3 | Dtype::F8_E5M2)
    {
        return Ok(scales);
    }
    let others = [
        format!("{name}_scale"),
        format!("{name}_scales"),
        format!("{}.scale", name.strip_suffix(".weight").unwrap_or(name)),
    ];
    let other = others.iter().find(|other| tensors.contains_key(&***other));
    let found = match other {
        Some(other) => {
            format!("; {other} is there, but scales per tensor or per channel are not block scales")
        }
        None => String::new(),
    };
    Err(Error::tensor(
        tensor.origin(),
        name,
        format!(
            "it is {}, and to give its values takes block scales called {expected} of F8_E4M3 or F8_E5M2 codes{found}; leave --dtype out, or this tensor (--drop)",
            tensor.dtype
        ),
    ))
}

/// Whether [`cast`] takes a tensor of `dtype`.
pub fn is_castable(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::BF16 | Dtype::F16 | Dtype::F32 | Dtype::F64)
}

/// `tensor` in dtype `to`: itself if that is its dtype, else computed, and called `name` in
/// messages.
///
/// # Errors
/// If its dtype is not BF16, F16, F32 or F64.
pub fn cast(name: &str, tensor: &Tensor, to: Precision) -> Result<Tensor> {
    if tensor.dtype == to.dtype() {
        return Ok(tensor.clone());
    }
    let Some(convert) = conversion(tensor.dtype, to) else {
        return Err(Error::tensor(
            tensor.origin(),
            name,
            format!(
                "it is {}; only BF16, F16, F32 and F64 can be given as {}",
                tensor.dtype,
                to.dtype()
            ),
        ));
    };
    let source_bytes = tensor.dtype.bitsize() as u64 / 8;
    let kernel = CastKernel {
        from: tensor.dtype,
        to,
        convert,
        source_bytes,
        target_bytes: to.bytes() as u64,
        elements: tensor.len() / source_bytes,
        path: CpuPath::best(),
    };
    computed(name, tensor, to, vec![tensor.clone()], Box::new(kernel))
}

/// The tensor that `kernel` computes from `inputs`: `original` in dtype `to`.
pub(super) fn computed(
    name: &str,
    original: &Tensor,
    to: Precision,
    inputs: Vec<Tensor>,
    kernel: Box<dyn Kernel>,
) -> Result<Tensor> {
    if byte_len(to.dtype(), &original.shape).is_none() {
        return Err(Error::tensor(
            original.origin(),
            name,
            format!(
                "its shape is {}: as {} it would have 2^61 bytes or more",
                shape_text(&original.shape),
                to.dtype()
            ),
        ));
    }
    let node = Arc::new(Node::new(name, inputs, kernel));
    let shape = original.shape.clone();
    Ok(Tensor::computed(node, 0, to.dtype(), shape, original.home))
}

/// A conversion of elements, from and to little-endian bytes.
type Convert = fn(&[u8], &mut [u8], CpuPath);

fn conversion(from: Dtype, to: Precision) -> Option<Convert> {
    match from {
        Dtype::BF16 => Some(conversion_from::<bf16>(to)),
        Dtype::F16 => Some(conversion_from::<f16>(to)),
        Dtype::F32 => Some(conversion_from::<f32>(to)),
        Dtype::F64 if to == Precision::F32 => Some(convert::<F64ToF32, f32>),
        Dtype::F64 => Some(conversion_from::<F64ToOdd>(to)),
        _ => None,
    }
}

fn conversion_from<S: Source>(to: Precision) -> Convert {
    match to {
        Precision::Bf16 => convert::<S, bf16>,
        Precision::F16 => convert::<S, f16>,
        Precision::F32 => convert::<S, f32>,
    }
}

/// The kernel half: input 0 is the tensor, seen as one long column; output 0 the same in another
/// dtype.
#[derive(Debug)]
struct CastKernel {
    from: Dtype,
    to: Precision,
    convert: Convert,
    source_bytes: u64,
    target_bytes: u64,
    elements: u64,
    path: CpuPath,
}

impl Kernel for CastKernel {
    fn identity(&self) -> String {
        format!(
            "{:?} as {:?}, {} elements",
            self.from, self.to, self.elements
        )
    }

    fn step(&self, _output: usize) -> Option<Step> {
        Some(Step::new("cast").with("to", self.to.dtype().to_string()))
    }

    fn bands(&self) -> RowBands {
        const TILE_ELEMENTS: u64 = 1 << 19;
        RowBands {
            groups: 1,
            rows_per_group: self.elements,
            band_rows: TILE_ELEMENTS,
        }
    }

    fn outputs(&self) -> usize {
        1
    }

    fn input_bytes(&self, _input: usize, band: &Band) -> Range<u64> {
        band.rows.start * self.source_bytes..band.rows.end * self.source_bytes
    }

    fn output_bytes(&self, _output: usize, band: &Band) -> Range<u64> {
        band.rows.start * self.target_bytes..band.rows.end * self.target_bytes
    }

    fn compute(
        &self,
        _facts: &[f64],
        _band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> std::result::Result<(), NonFinite> {
        (self.convert)(inputs[0], outputs[0], self.path);
        Ok(())
    }
}
