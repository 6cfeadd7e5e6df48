//! Block FP8: selected tensors become E4M3 codes with one f32 scale per 128 × 128 block.
//!
//! A tensor `X` of shape `[rows, cols]` becomes `X` (F8_E4M3, the same shape) and `X_scale_inv`
//! (F32, `[ceil(rows / 128), ceil(cols / 128)]`); of shape `[n, rows, cols]`, the same for each
//! leading index. Blocks at the edges are partial. The numbers are defined in
//! [`crate::kernels::fp8`]; dequantized = code × scale.

use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};
use indexmap::{IndexMap, IndexSet};

use crate::catalog::{Band, Catalog, Kernel, Node, NonFinite, RowBands, Step, Tensor};
use crate::error::{Error, Result};
use crate::kernels::CpuPath;
use crate::kernels::fp8::{self, Element, ScaleFormat, quantize_block_row};
use crate::ops::fp8_groups::Decision;
use crate::ops::fp8_select::Selection;
use crate::ops::{Operator, fp8_checks, fp8_config, fp8_groups};
use crate::tensor::{Dtype, Name, Shape, is_float8, scale_name, scaled_name, shape_text};

/// Rows and columns of a block.
pub(super) const BLOCK: u64 = fp8::BLOCK as u64;

/// The most columns of a tensor that is quantized. A block row of so many takes 512 MiB as F32.
const MOST_COLUMNS: u64 = 1 << 20;

/// What to do with tensors whose last two dimensions are not multiples of 128.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PartialBlocks {
    /// Quantize them too, with partial blocks at the edges.
    #[default]
    Quantize,
    /// Leave them in their dtype.
    Keep,
}

/// Quantizes the selected tensors of a catalog.
#[derive(Debug)]
pub struct Fp8 {
    pub selection: Selection,
    pub scale_format: ScaleFormat,
    pub partial_blocks: PartialBlocks,
}

impl Operator for Fp8 {
    fn apply(&self, catalog: &mut Catalog) -> Result<()> {
        fp8_config::check_method(catalog)?;
        fp8_checks::note_references(catalog, &self.selection);

        let scaled = scaled(&catalog.tensors);
        let mut decisions = catalog
            .tensors
            .iter()
            .zip(&scaled)
            .map(|((name, tensor), &scaled)| self.decide(name, tensor, scaled))
            .collect::<Result<Vec<_>>>()?;
        fp8_checks::warn_idle(catalog, &self.selection, &decisions);
        let mut report = std::mem::take(&mut catalog.report);
        fp8_groups::close(catalog, &self.selection, &mut decisions, &mut report)?;

        let unquantized = std::mem::take(&mut catalog.tensors);
        let added = decisions.iter().filter(|d| **d == Decision::Quantize);
        let mut tensors = IndexMap::with_capacity(unquantized.len() + added.count());
        let mut quantized = IndexSet::new();
        let mut partial = Vec::new();
        for (((name, tensor), scaled), decision) in
            unquantized.into_iter().zip(scaled).zip(decisions)
        {
            if matches!(decision, Decision::Quantize | Decision::Quantized) {
                quantized.insert(name.clone());
            }
            if decision != Decision::Quantize {
                tensors.insert(name, tensor);
                continue;
            }
            let matrix = Matrix::of(&name, &tensor, scaled)?;
            if !matrix.has_whole_blocks() {
                partial.push(name.clone());
            }
            let (codes, scales) = codes_and_scales(&name, tensor, matrix, self.scale_format);
            tensors.insert(name.clone(), codes);
            tensors.insert(scale_name(&name).into(), scales);
            report.quantized += 1;
        }
        catalog.report = report;
        catalog.tensors = tensors;
        fp8_checks::warn_partial_blocks(catalog, &partial);
        fp8_checks::warn_fused_experts(catalog);
        fp8_config::declare(catalog, &quantized, self.scale_format)
    }
}

impl Fp8 {
    fn decide(&self, name: &str, tensor: &Tensor, scaled: bool) -> Result<Decision> {
        if scaled && is_float8(tensor.dtype) {
            return Ok(Decision::Quantized);
        }
        if !self.selection.selects(name) {
            return Ok(Decision::Keep);
        }
        let whole = Matrix::of(name, tensor, scaled)?.has_whole_blocks();
        match self.partial_blocks {
            PartialBlocks::Keep if !whole => Ok(Decision::KeepPartial),
            _ => Ok(Decision::Quantize),
        }
    }
}

/// For each of `tensors`, whether its scales are among them too.
fn scaled(tensors: &IndexMap<Name, Tensor>) -> Vec<bool> {
    let mut scaled = vec![false; tensors.len()];
    let weights = tensors.keys().filter_map(|name| scaled_name(name));
    for weight in weights.filter_map(|weight| tensors.get_index_of(weight)) {
        scaled[weight] = true;
    }
    scaled
}

/// A tensor of two or three dimensions, seen as `groups` matrices of `rows` × `cols`.
#[derive(Debug, Clone, Copy)]
struct Matrix {
    groups: u64,
    rows: u64,
    cols: u64,
}

impl Matrix {
    /// `scaled` says whether there are scales of `tensor` already.
    fn of(name: &str, tensor: &Tensor, scaled: bool) -> Result<Self> {
        let refuse = |problem: String| Err(Error::tensor(tensor.origin(), name, problem));
        if !matches!(tensor.dtype, Dtype::BF16 | Dtype::F16 | Dtype::F32) {
            let scale = match is_float8(tensor.dtype) {
                true => format!(" without a scale {}", scale_name(name)),
                false => String::new(),
            };
            return refuse(format!(
                "it is selected for FP8, but its dtype is {}{scale}; only BF16, F16 and F32 can be quantized",
                tensor.dtype
            ));
        }
        if scaled {
            return refuse(format!(
                "it is selected for FP8 and of dtype {}, but there is a {} already",
                tensor.dtype,
                scale_name(name)
            ));
        }
        if let Some(&columns) = tensor.shape.last()
            && columns > MOST_COLUMNS
            && tensor.len() > 0
        {
            return refuse(format!(
                "it is selected for FP8, but has {columns} columns; at most {MOST_COLUMNS} can be quantized, since a block row is computed at once"
            ));
        }
        match tensor.shape[..] {
            [rows, cols] => Ok(Matrix {
                groups: 1,
                rows,
                cols,
            }),
            [groups, rows, cols] => Ok(Matrix { groups, rows, cols }),
            _ => refuse(format!(
                "it is selected for FP8, but its shape is {}; only tensors of 2 or 3 dimensions can be quantized",
                shape_text(&tensor.shape)
            )),
        }
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

    fn has_whole_blocks(&self) -> bool {
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
fn codes_and_scales(
    name: &Name,
    tensor: Tensor,
    matrix: Matrix,
    format: ScaleFormat,
) -> (Tensor, Tensor) {
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
            .with(
                "scale_fmt",
                match self.format {
                    ScaleFormat::Ue8m0 => "ue8m0",
                    ScaleFormat::Float32 => "float32",
                },
            );
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
