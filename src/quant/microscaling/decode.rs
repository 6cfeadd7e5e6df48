//! Weights given back as numbers: each code times the scale of its block, which is the product or the quotient of what is
//! stored, rounded to f32; the product of both is rounded to f32 and from there to the target.

use std::ops::Range;

use half::{bf16, f16};
use indexmap::IndexMap;

use crate::catalog::{Band, Gather, Kernel, NonFinite, NumberKind, Part, RowBands, Step, Tensor};
use crate::error::setting::{DROP, DTYPE};
use crate::error::{Code, Error, Hint, Result};
use crate::kernels::CpuPath;
use crate::kernels::cast::{E4m3, dequantize_row};
use crate::kernels::float8::{e4m3_to_f32, e8m0_to_f32};
use crate::kernels::lanes::Precision;
use crate::kernels::microscaling::dequantize_e2m1_row;
use crate::quant::microscaling::format::{Form, Scales};
use crate::tensor::{Axis, Dtype, Name, shape_text};

/// The most columns of a weight; at least one row is computed at once.
const MOST_COLUMNS: u64 = 1 << 20;

/// The numbers of the weight called `weight`, whose codes are `codes`, in dtype `to`.
///
/// # Errors
/// If companions are not there, or have other dtypes or shapes.
pub(super) fn decoded(
    form: Form,
    tensors: &IndexMap<Name, Tensor>,
    weight: &str,
    codes: &Tensor,
    to: Precision,
) -> Result<Tensor> {
    let scales = companion(tensors, weight, form.scale(), codes)?;
    let global = match form.global() {
        Some(suffix) => Some(companion(tensors, weight, suffix, codes)?),
        None => None,
    };
    let name = [weight, form.codes()].concat();
    let refuse = |code, problem| Err(Error::of_tensor(code, codes.origin(), &name, problem));
    let shape = match shape(form, header(codes), header(scales), global.map(header)) {
        Ok(shape) => shape,
        Err(problem) => return refuse(Code::BadScales, problem),
    };
    let (leading, &[rows, columns]) = shape.split_last_chunk().expect("two dimensions or more");
    if columns > MOST_COLUMNS && codes.len() > 0 {
        let problem = format!(
            "it has {columns} columns; at most {MOST_COLUMNS} can be dequantized, since a row is computed at once"
        );
        return refuse(Code::OverLimit, problem);
    }
    let kernel = DecodeKernel {
        form,
        groups: if codes.len() == 0 {
            0
        } else {
            leading.iter().product()
        },
        rows,
        columns,
        // One for all matrices, or one for each.
        globals: global.map_or(0, |global| global.len() / 4),
        to,
        path: CpuPath::best(),
    };
    let mut original = codes.clone();
    original.shape = shape.clone().into();
    let mut inputs = vec![codes.clone(), scales.clone()];
    inputs.extend(global.cloned());
    let numbers = Tensor::in_dtype(weight, &original, to.dtype(), inputs, Box::new(kernel))?;
    match form {
        Form::GptOss => transposed(weight, numbers),
        _ => Ok(numbers),
    }
}

/// `tensor`, matrices, each with its rows as columns.
pub(super) fn transposed(name: &str, tensor: Tensor) -> Result<Tensor> {
    let (leading, &[rows, columns]) = tensor.shape.split_last_chunk().expect("matrices");
    let shape = [leading, &[columns, rows]].concat();
    let gather = Gather {
        outer: vec![Axis {
            len: leading.iter().product(),
            stride: rows * columns,
        }],
        rows: columns,
        columns: rows,
        parts: vec![Part {
            start: 0,
            row_stride: 1,
            column_stride: columns,
            first: 0,
            step: 1,
            count: rows,
        }],
    };
    gather.tensor(name, vec![tensor], shape)
}

fn companion<'a>(
    tensors: &'a IndexMap<Name, Tensor>,
    weight: &str,
    suffix: &str,
    codes: &Tensor,
) -> Result<&'a Tensor> {
    let name = [weight, suffix].concat();
    tensors.get(&*name).ok_or_else(|| {
        let problem = format!("it is quantized ({}), and there is no {name}", codes.dtype);
        let error = Error::of_tensor(Code::MissingScales, codes.origin(), weight, problem);
        error.with_hint(Hint::leave_out(DTYPE).or(Hint::give(DROP).to("leave this tensor out")))
    })
}

/// Dtype and shape of a tensor.
pub(super) type Header<'a> = (Dtype, &'a [u64]);

fn header(tensor: &Tensor) -> Header<'_> {
    (tensor.dtype, &tensor.shape)
}

/// The shape of the weight that these tensors are, or why they are not one.
pub(super) fn shape(
    form: Form,
    codes: Header,
    scales: Header,
    global: Option<Header>,
) -> std::result::Result<Vec<u64>, String> {
    let wrong = |what: &str, found: Header, expected: String| {
        let shape = shape_text(found.1);
        Err(format!(
            "{what} is {} {shape}; expected {expected}",
            found.0
        ))
    };
    let dtype = form.code_dtype();
    let weight = form.weight_shape(codes.1);
    let shapes = weight
        .as_ref()
        .and_then(|weight| form.shapes(weight))
        .filter(|shapes| codes.0 == dtype && shapes[0] == codes.1);
    let (Some(weight), Some([_, of_scales])) = (weight, shapes) else {
        let expected = match form {
            Form::GptOss => format!("{dtype} [E, rows, cols / 32, 16]"),
            _ => format!("{dtype} of rows of {} numbers", form.group()),
        };
        return wrong("it", codes, expected);
    };
    if !form.scale_dtypes().contains(&scales.0) || of_scales != scales.1 {
        let dtype = form.scale_dtypes()[0];
        let expected = format!("{dtype} {}", shape_text(&of_scales));
        return wrong("its scale", scales, expected);
    }
    if let Some(found) = global {
        let count: u64 = found.1.iter().product();
        let matrices: u64 = weight[..weight.len() - 2].iter().product();
        if found.0 != Dtype::F32 || count != 1 && count != matrices {
            return wrong("its scale for all of it", found, "F32 [1]".to_owned());
        }
    }
    Ok(weight)
}

/// The kernel half: input 0 are the codes, input 1 the scales of blocks, input 2 the numbers for whole
/// matrices, if there are some; output 0 the numbers.
#[derive(Debug)]
struct DecodeKernel {
    form: Form,
    groups: u64,
    rows: u64,
    columns: u64,
    globals: u64,
    to: Precision,
    path: CpuPath,
}

impl DecodeKernel {
    fn scale_columns(&self) -> u64 {
        self.columns / self.form.group()
    }

    /// Rows of `band`, counted over all matrices.
    fn all_rows(&self, band: &Band) -> Range<u64> {
        let first = band.group * self.rows;
        first + band.rows.start..first + band.rows.end
    }

    /// What each byte of a scale stands for in a matrix.
    fn scale_values(&self, global: Option<&[u8]>) -> [f32; 256] {
        let global = global.map_or(1.0, |bytes| {
            f32::from_le_bytes(bytes.try_into().expect("four bytes"))
        });
        std::array::from_fn(|byte| match self.form.scales() {
            Scales::PowersOfTwo => e8m0_to_f32(byte as u8),
            Scales::Divided => e4m3_to_f32(byte as u8) / global,
            Scales::Multiplied => e4m3_to_f32(byte as u8) * global,
        })
    }
}

impl Kernel for DecodeKernel {
    fn identity(&self) -> String {
        let DecodeKernel {
            form,
            groups,
            rows,
            columns,
            globals,
            to,
            ..
        } = self;
        format!("{form:?} as {to:?}, {groups} of {rows} x {columns}, {globals}")
    }

    fn step(&self, _output: usize) -> Option<Step> {
        let step = Step::new("dequantize")
            .with("to", self.to.dtype().to_string())
            .with("form", self.form.name());
        Some(step)
    }

    fn number_kind(&self) -> Option<NumberKind> {
        let is_fp4 = self.form.bits() == 4 && self.form.scales() == Scales::PowersOfTwo;
        Some(if is_fp4 {
            NumberKind::of_fp4_in(self.to.dtype())
        } else {
            NumberKind::Any
        })
    }

    fn bands(&self) -> RowBands {
        const TILE_BYTES: u64 = 1 << 20;
        let row_bytes = (self.columns * self.to.bytes() as u64).max(1);
        RowBands {
            groups: self.groups,
            rows_per_group: self.rows,
            band_rows: (TILE_BYTES / row_bytes).max(1),
        }
    }

    fn input_bytes(&self, input: usize, band: &Band) -> Range<u64> {
        let row_bytes = match input {
            0 => self.columns * self.form.bits() / 8,
            1 => self.scale_columns(),
            _ => {
                let at = if self.globals == 1 { 0 } else { band.group * 4 };
                return at..at + 4;
            }
        };
        let rows = self.all_rows(band);
        rows.start * row_bytes..rows.end * row_bytes
    }

    fn output_bytes(&self, _output: usize, band: &Band) -> Range<u64> {
        let row_bytes = self.columns * self.to.bytes() as u64;
        let rows = self.all_rows(band);
        rows.start * row_bytes..rows.end * row_bytes
    }

    fn compute(
        &self,
        _facts: &[f64],
        _band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> std::result::Result<(), NonFinite> {
        let ([codes, scales, global @ ..], [target]) = (inputs, outputs) else {
            unreachable!("two inputs or three and one output, as declared");
        };
        let values = self.scale_values(global.first().copied());
        let scales: Vec<f32> = scales.iter().map(|s| values[usize::from(*s)]).collect();
        let columns = self.columns as usize;
        let group = self.form.group() as usize;
        let rows = codes
            .chunks_exact(columns * self.form.bits() as usize / 8)
            .zip(scales.chunks_exact(columns / group));
        let targets = target.chunks_exact_mut(columns * self.to.bytes());
        for ((codes, scales), target) in rows.zip(targets) {
            if self.form.bits() == 8 {
                let row = match self.to {
                    Precision::Bf16 => dequantize_row::<E4m3, bf16>,
                    Precision::F16 => dequantize_row::<E4m3, f16>,
                    Precision::F32 => dequantize_row::<E4m3, f32>,
                };
                row(codes, scales, group, target, self.path);
                continue;
            }
            let row = match self.to {
                Precision::Bf16 => dequantize_e2m1_row::<bf16>,
                Precision::F16 => dequantize_e2m1_row::<f16>,
                Precision::F32 => dequantize_e2m1_row::<f32>,
            };
            row(codes, scales, group, target, self.path);
        }
        Ok(())
    }
}
