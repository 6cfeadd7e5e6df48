//! Numbers into block FP8: a kernel with two outputs, codes and scales.
//!
//! A tensor `X` of shape `[rows, cols]` becomes `X` (F8_E4M3, the same shape) and `X_scale_inv`
//! (F32, `[ceil(rows / 128), ceil(cols / 128)]`); of shape `[n, rows, cols]`, the same for each
//! leading index. Blocks at the edges are partial. The numbers are defined in
//! [`crate::kernels::fp8`]; dequantized = code × scale.

use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};

use crate::catalog::{Band, ErrorMeasure, Kernel, Node, NonFinite, RowBands, Step, Tensor};
use crate::error::{Code, Error, Result};
use crate::kernels::CpuPath;
use crate::kernels::fp8::{Element, ScaleFormat, quantize_block_row};
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

/// The codes and scales of `tensor`, to be computed.
///
/// # Panics
/// If it is no [`Matrix`].
pub(super) fn codes_and_scales(
    name: &Name,
    tensor: Tensor,
    format: ScaleFormat,
) -> (Tensor, Tensor) {
    let matrix = Matrix::from_shape(&tensor.shape).expect("what is encoded was checked");
    let shape = tensor.shape.clone();
    let leading = &shape[..shape.len() - 2];
    let scale_shape = [leading, &[matrix.scale_rows(), matrix.scale_cols()]].concat();
    let home = tensor.home;
    let kernel = Box::new(QuantizeKernel::new(matrix, tensor.dtype, format));
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
    path: CpuPath,
    bands: RowBands,
}

impl QuantizeKernel {
    /// The number of source bytes that are worth computing at once.
    const TILE_SOURCE_BYTES: u64 = 1 << 20;
    const SCALE_BYTES: u64 = 4;

    fn new(matrix: Matrix, dtype: Dtype, format: ScaleFormat) -> Self {
        let matrix = matrix.with_elements();
        let element_bytes = dtype.bitsize() as u64 / 8;
        let block_row_bytes = (BLOCK * matrix.cols * element_bytes).max(1);
        let block_rows = (Self::TILE_SOURCE_BYTES / block_row_bytes).max(1);
        QuantizeKernel {
            matrix,
            dtype,
            element_bytes,
            format,
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
            })?;
            for (bytes, scale) in scales.chunks_exact_mut(4).zip(&row_scales) {
                bytes.copy_from_slice(&scale.to_le_bytes());
            }
        }
        Ok(())
    }
}

impl Kernel for QuantizeKernel {
    fn identity(&self) -> String {
        // The path of the CPU is left out: it changes no byte.
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
        Some(step)
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
