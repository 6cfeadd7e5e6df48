//! Numbers into block FP8: a kernel with two outputs, codes and scales.
//!
//! A tensor `X` of shape `[rows, cols]` becomes `X` (F8_E4M3, the same shape) and `X_scale_inv`
//! (F32, `[ceil(rows / 128), ceil(cols / 128)]`); of shape `[n, rows, cols]`, the same for each
//! leading index. Blocks at the edges are partial. The numbers are defined in
//! [`crate::kernels::fp8`]; dequantized = code × scale.
//!
//! **Weights that were FP4**, E2M1 codes with a power of two for each group of columns, can be block FP8 with scales that
//! are powers of two, number for number, if the groups of a block are not too far apart. The codes are then
//! [`Codes::Exact`], and that is checked as they are computed.
//!
//! Let 2ᵐ be the largest scale of a group in a block, and S = 2ᵐ/2⁶. An FP4 number times its scale is at most 6 · 2ᵐ = 384 · S,
//! and no code overflows. A number is 0, or 2ⁿ or 1.5 · 2ⁿ, which has an E4M3 code from 2⁻⁹ · S (1.5 · 2⁻⁸ · S) on. The
//! smallest is half the scale of its group, so every number of the block has a code if no scale is less than 2ᵐ⁻¹⁴.
//!
//! The scale here is the smallest power of two s with amax ≤ 448 · s (and at least 2⁻¹²⁶). It is exact whenever S is:
//! - s ≤ S, or s = 2⁻¹²⁶, as amax ≤ 384 · S.
//! - If s ≤ S, the code of x by s is that by S, times S/s: a power of two, by which the exponent of the code is raised. No
//!   digit is lost, and it does not overflow, since |x| ≤ amax ≤ 448 · s.
//! - If s = 2⁻¹²⁶, any number is at least half of the smallest scale, 2⁻¹²⁷: 2⁻² · s, which has a code.
//!
//! It may be exact where S is not: where the group of the largest scale has small numbers only.

use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};

use crate::catalog::{Band, ErrorMeasure, Kernel, Node, NonFinite, RowBands, Step, Tensor};
use crate::error::setting::ALLOW_ROUNDING;
use crate::error::{Code, Error, Hint, Result};
use crate::kernels::CpuPath;
use crate::kernels::fp8::{Element, ScaleFormat, first_inexact, quantize_block_row};
use crate::named::Named;
use crate::quant::fp8_block::format::{BLOCK, SCALE_FORMAT_KEY, is_code, scale_name};
use crate::quant::fp8_block::measure::Measure;
use crate::tensor::{Dtype, Name, Shape, shape_text};

/// The most columns of a tensor that is quantized. A block row of so many takes 512 MiB as F32.
const MOST_COLUMNS: u64 = 1 << 20;

/// A tensor of two or three dimensions, seen as `groups` matrices of `rows` × `cols`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix {
    groups: u64,
    rows: u64,
    cols: u64,
}

impl Matrix {
    /// `scaled` says whether there are scales of `tensor` already.
    pub(super) fn from_tensor(name: &str, tensor: &Tensor, scaled: bool) -> Result<Self> {
        let refuse =
            |code, problem: String| Err(Error::of_tensor(code, tensor.origin(), name, problem));
        if !matches!(tensor.dtype, Dtype::BF16 | Dtype::F16 | Dtype::F32) {
            let scale = if is_code(tensor.dtype) {
                format!(" without a scale {}", scale_name(name))
            } else {
                String::new()
            };
            return refuse(
                Code::UnsupportedTensor,
                format!(
                    "it is selected for FP8, but its dtype is {}{scale}; only BF16, F16 and F32 can be quantized",
                    tensor.dtype
                ),
            );
        }
        if scaled {
            return refuse(
                Code::MissingWeight,
                format!(
                    "it is selected for FP8 and of dtype {}, but there is a {} already",
                    tensor.dtype,
                    scale_name(name)
                ),
            );
        }
        if let Some(&columns) = tensor.shape.last()
            && columns > MOST_COLUMNS
            && tensor.len() > 0
        {
            return refuse(
                Code::OverLimit,
                format!(
                    "it is selected for FP8, but has {columns} columns; at most {MOST_COLUMNS} can be quantized, since a block row is computed at once"
                ),
            );
        }
        match Matrix::from_shape(&tensor.shape) {
            Some(matrix) => Ok(matrix),
            None => refuse(
                Code::UnsupportedTensor,
                format!(
                    "it is selected for FP8, but its shape is {}; only tensors of 2 or 3 dimensions can be quantized",
                    shape_text(&tensor.shape)
                ),
            ),
        }
    }

    fn from_shape(shape: &[u64]) -> Option<Self> {
        let (groups, rows, cols) = match *shape {
            [rows, cols] => (1, rows, cols),
            [groups, rows, cols] => (groups, rows, cols),
            _ => return None,
        };
        Some(Matrix { groups, rows, cols })
    }

    /// Itself, or a matrix without rows and columns if it has no elements: the other dimensions of
    /// such a tensor may be any numbers, and there is nothing to compute.
    fn with_elements(self) -> Self {
        match self.groups.min(self.rows).min(self.cols) {
            0 => Matrix {
                groups: 0,
                rows: 0,
                cols: 0,
            },
            _ => self,
        }
    }

    pub(super) fn has_whole_blocks(&self) -> bool {
        self.rows.is_multiple_of(BLOCK) && self.cols.is_multiple_of(BLOCK)
    }

    fn scale_rows(&self) -> u64 {
        self.rows.div_ceil(BLOCK)
    }

    fn scale_cols(&self) -> u64 {
        self.cols.div_ceil(BLOCK)
    }
}

/// What codes stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codes {
    /// The numbers nearest to those that are encoded.
    Nearest,
    /// Exactly the numbers that are encoded. Where there is no such code, the codes cannot be read.
    Exact,
}

/// The codes and scales of `tensor`, to be computed.
///
/// # Panics
/// If it is no [`Matrix`].
pub(super) fn codes_and_scales(
    name: &Name,
    tensor: Tensor,
    format: ScaleFormat,
    codes: Codes,
) -> (Tensor, Tensor) {
    let matrix = Matrix::from_shape(&tensor.shape).expect("what is encoded was checked");
    let shape = tensor.shape.clone();
    let leading = &shape[..shape.len() - 2];
    let scale_shape = [leading, &[matrix.scale_rows(), matrix.scale_cols()]].concat();
    let home = tensor.home;
    let kernel = Box::new(QuantizeKernel::new(matrix, tensor.dtype, format, codes));
    let node = Arc::new(Node::new(name.clone(), vec![tensor], kernel));
    let output =
        |output, dtype, shape: Shape| Tensor::computed(node.clone(), output, dtype, shape, home);
    (
        output(0, Dtype::F8_E4M3, shape),
        output(1, Dtype::F32, scale_shape.into()),
    )
}

/// The kernel half: input 0 is the tensor; output 0 its codes, output 1 its scales.
#[derive(Debug)]
struct QuantizeKernel {
    matrix: Matrix,
    dtype: Dtype,
    element_bytes: u64,
    format: ScaleFormat,
    codes: Codes,
    path: CpuPath,
    bands: RowBands,
}

impl QuantizeKernel {
    /// The number of source bytes that are worth computing at once.
    const TILE_SOURCE_BYTES: u64 = 1 << 20;
    const SCALE_BYTES: u64 = 4;

    fn new(matrix: Matrix, dtype: Dtype, format: ScaleFormat, codes: Codes) -> Self {
        let matrix = matrix.with_elements();
        let element_bytes = dtype.bitsize() as u64 / 8;
        let block_row_bytes = (BLOCK * matrix.cols * element_bytes).max(1);
        let block_rows = (Self::TILE_SOURCE_BYTES / block_row_bytes).max(1);
        QuantizeKernel {
            matrix,
            dtype,
            element_bytes,
            format,
            codes,
            path: CpuPath::best(),
            bands: RowBands {
                groups: matrix.groups,
                rows_per_group: matrix.rows,
                band_rows: BLOCK * block_rows,
            },
        }
    }

    /// Flattened elements of `band`, as positions in the tensor.
    fn elements(&self, band: &Band) -> Range<u64> {
        let first = band.group * self.matrix.rows;
        (first + band.rows.start) * self.matrix.cols..(first + band.rows.end) * self.matrix.cols
    }

    fn quantize<T: Element>(
        &self,
        band: &Band,
        source: &[u8],
        codes: &mut [u8],
        scales: &mut [u8],
    ) -> std::result::Result<(), NonFinite> {
        let columns = self.matrix.cols as usize;
        let block_row = BLOCK as usize * columns;
        let mut row_scales = vec![0.0; self.matrix.scale_cols() as usize];
        let sources = source.chunks((block_row * T::BYTES).max(1));
        let scale_rows = scales.chunks_exact_mut((4 * row_scales.len()).max(1));
        for (i, ((source, codes), scales)) in sources
            .zip(codes.chunks_mut(block_row.max(1)))
            .zip(scale_rows)
            .enumerate()
        {
            quantize_block_row::<T>(
                source,
                columns,
                codes,
                &mut row_scales,
                self.format,
                self.path,
            )
            .map_err(|at| NonFinite {
                row: band.rows.start + i as u64 * BLOCK + at.row as u64,
                column: at.column as u64,
                value: at.value,
                scale: None,
            })?;
            if self.codes == Codes::Exact
                && let Some([row, column]) =
                    first_inexact::<T>(source, columns, codes, &row_scales, self.path)
            {
                let element = (row * columns + column) * T::BYTES;
                return Err(NonFinite {
                    row: band.rows.start + i as u64 * BLOCK + row as u64,
                    column: column as u64,
                    value: T::read(&source[element..element + T::BYTES]),
                    scale: Some(row_scales[column / BLOCK as usize]),
                });
            }
            for (bytes, scale) in scales.chunks_exact_mut(4).zip(&row_scales) {
                bytes.copy_from_slice(&scale.to_le_bytes());
            }
        }
        Ok(())
    }
}

impl Kernel for QuantizeKernel {
    fn identity(&self) -> String {
        // The path of the CPU is left out: it changes no byte. Neither does a check.
        let QuantizeKernel {
            matrix,
            dtype,
            format,
            ..
        } = self;
        format!("block FP8 of {dtype:?}, {matrix:?}, scales {format:?}")
    }

    fn step(&self, output: usize) -> Option<Step> {
        const OUTPUTS: [&str; 2] = ["codes", "scales"];
        let step = Step::new("fp8")
            .with("gives", OUTPUTS[output])
            .with("block", vec![BLOCK, BLOCK])
            .with(SCALE_FORMAT_KEY, self.format.name());
        Some(match self.codes {
            Codes::Nearest => step,
            Codes::Exact => step.with("exact", true),
        })
    }

    fn bands(&self) -> RowBands {
        self.bands
    }

    fn outputs(&self) -> usize {
        2
    }

    fn input_bytes(&self, _input: usize, band: &Band) -> Range<u64> {
        let elements = self.elements(band);
        elements.start * self.element_bytes..elements.end * self.element_bytes
    }

    fn output_bytes(&self, output: usize, band: &Band) -> Range<u64> {
        if output == 0 {
            return self.elements(band);
        }
        let first = band.group * self.matrix.scale_rows();
        let row_bytes = self.matrix.scale_cols() * Self::SCALE_BYTES;
        (first + band.rows.start / BLOCK) * row_bytes
            ..(first + band.rows.end.div_ceil(BLOCK)) * row_bytes
    }

    fn describe_fault(&self, band: &Band, fault: &NonFinite) -> Option<Error> {
        let scale = fault.scale?;
        let [row, column] = [fault.row, fault.column].map(|at| at / BLOCK);
        let block = match self.matrix.groups {
            1 => format!("[{row}, {column}]"),
            _ => format!("[{}, {row}, {column}]", band.group),
        };
        let problem = format!(
            "block {block} of {BLOCK} x {BLOCK} has {:e} at row {}, column {}, which FP8 does not have with the scale of the block, {scale:e}: the scales of the source are too far apart there for an exact conversion from FP4",
            fault.value, fault.row, fault.column
        );
        let hint = Hint::give(ALLOW_ROUNDING).to("round such numbers");
        Some(Error::new(Code::Inexact, problem).with_hint(hint))
    }

    fn error_measure(&self) -> Option<&dyn ErrorMeasure> {
        Some(&Measure)
    }

    fn compute(
        &self,
        _facts: &[f64],
        band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> std::result::Result<(), NonFinite> {
        let ([source], [codes, scales]) = (inputs, outputs) else {
            unreachable!("one input and two outputs, as declared");
        };
        match self.dtype {
            Dtype::BF16 => self.quantize::<bf16>(band, source, codes, scales),
            Dtype::F16 => self.quantize::<f16>(band, source, codes, scales),
            _ => self.quantize::<f32>(band, source, codes, scales),
        }
    }
}
