//! Codes given back as numbers: each code times the scale of its block.
//!
//! A weight `[.., rows, cols]` has scales `[.., ceil(rows / block[0]), ceil(cols / block[1])]`;
//! blocks begin again at each leading index and are cut off at the edges. The product of code and
//! scale is rounded to f32, and from there to the target: the value that torch gives.

use std::ops::Range;

use half::{bf16, f16};

use crate::catalog::{Band, Kernel, NonFinite, RowBands, Step, Tensor};
use crate::error::{Code, Error, Result};
use crate::kernels::CpuPath;
use crate::kernels::cast::{self, E4m3, E5m2, Int8, dequantize_row};
use crate::kernels::float8::e8m0_to_f32;
use crate::kernels::lanes::Precision;
use crate::tensor::Dtype;

/// The most columns of a weight; at least one row is computed at once.
const MOST_COLUMNS: u64 = 1 << 20;

/// The numbers that the codes `weight` (F8_E4M3, F8_E5M2 or I8, of two or more dimensions) and `scales`
/// (F32, BF16, F16 or F8_E8M0, one for each block of `block[0]` rows and `block[1]` columns) stand
/// for, in dtype `to`. Messages call the weight `name`; `misfit` says what is wrong if the shape of the
/// scales is another.
///
/// # Errors
/// If dtypes or shapes are others.
pub(super) fn dequantized(
    name: &str,
    weight: &Tensor,
    scales: &Tensor,
    block: [u64; 2],
    to: Precision,
    misfit: &dyn Fn() -> String,
) -> Result<Tensor> {
    let refuse =
        |code, problem: String| Err(Error::of_tensor(code, weight.origin(), name, problem));
    let Some(row) = row_kernel(weight.dtype, to) else {
        return refuse(
            Code::UnsupportedTensor,
            format!(
                "it is {}; only F8_E4M3, F8_E5M2 and I8 can be dequantized",
                weight.dtype
            ),
        );
    };
    let Some(read_scales) = scale_reader(scales.dtype) else {
        return refuse(
            Code::UnsupportedTensor,
            format!(
                "its scales are {}; only F32, BF16, F16 and F8_E8M0 scales are known",
                scales.dtype
            ),
        );
    };
    let Some(grid) = Grid::new(&weight.shape, &scales.shape, block) else {
        return refuse(Code::BadScales, misfit());
    };
    if grid.columns > MOST_COLUMNS && weight.len() > 0 {
        return refuse(
            Code::OverLimit,
            format!(
                "it has {} columns; at most {MOST_COLUMNS} can be dequantized, since a row is computed at once",
                grid.columns
            ),
        );
    }
    let kernel = DequantizeKernel {
        codes: weight.dtype,
        scales: scales.dtype,
        to,
        bands: grid.bands(to.bytes() as u64),
        grid,
        row,
        read_scales,
        scale_bytes: scales.dtype.bitsize() as u64 / 8,
        target_bytes: to.bytes() as u64,
        path: CpuPath::best(),
    };
    let inputs = vec![weight.clone(), scales.clone()];
    Tensor::in_dtype(name, weight, to.dtype(), inputs, Box::new(kernel))
}

/// Whether `scales` is the shape of one scale for each block of a weight of shape `weight`.
pub(super) fn are_block_scales(weight: &[u64], scales: &[u64], block: [u64; 2]) -> bool {
    Grid::new(weight, scales, block).is_some()
}

/// A weight as `groups` matrices of `rows` × `columns` with a scale for each block.
#[derive(Debug, Clone, Copy)]
struct Grid {
    groups: u64,
    rows: u64,
    columns: u64,
    block: [u64; 2],
}

impl Grid {
    /// `None` if scales of this shape are not those of such a weight.
    fn new(weight: &[u64], scales: &[u64], block: [u64; 2]) -> Option<Self> {
        let (leading, &[rows, columns]) = weight.split_last_chunk()?;
        let expected = [rows.div_ceil(block[0]), columns.div_ceil(block[1])];
        if *scales != [leading, &expected].concat() {
            return None;
        }
        let is_empty = weight.contains(&0);
        Some(Grid {
            // Of an empty weight the other dimensions may be any numbers.
            groups: if is_empty {
                0
            } else {
                leading.iter().product()
            },
            rows,
            columns,
            block,
        })
    }

    fn scale_rows(&self) -> u64 {
        self.rows.div_ceil(self.block[0])
    }

    fn scale_columns(&self) -> u64 {
        self.columns.div_ceil(self.block[1])
    }

    /// Bands of about 1 MiB of the result, of whole blocks if they are not larger than that.
    fn bands(&self, target_bytes: u64) -> RowBands {
        const TILE_BYTES: u64 = 1 << 20;
        let row_bytes = self.columns.saturating_mul(target_bytes).max(1);
        let rows = (TILE_BYTES / row_bytes).max(1);
        let block_rows = self.block[0];
        RowBands {
            groups: self.groups,
            rows_per_group: self.rows,
            band_rows: if rows >= block_rows {
                rows / block_rows * block_rows
            } else {
                rows
            },
        }
    }
}

/// The products of one row of codes: codes, scales, columns of a block, result.
pub(super) type Row = fn(&[u8], &[f32], usize, &mut [u8], CpuPath);

pub(super) fn row_kernel(codes: Dtype, to: Precision) -> Option<Row> {
    match codes {
        Dtype::F8_E4M3 => Some(row_kernel_of::<E4m3>(to)),
        Dtype::F8_E5M2 => Some(row_kernel_of::<E5m2>(to)),
        Dtype::I8 => Some(row_kernel_of::<Int8>(to)),
        _ => None,
    }
}

pub(super) fn row_kernel_of<C: cast::Code>(to: Precision) -> Row {
    match to {
        Precision::Bf16 => dequantize_row::<C, bf16>,
        Precision::F16 => dequantize_row::<C, f16>,
        Precision::F32 => dequantize_row::<C, f32>,
    }
}

/// Reads little-endian scales.
pub(super) type ReadScales = fn(&[u8]) -> Vec<f32>;

pub(super) fn scale_reader(dtype: Dtype) -> Option<ReadScales> {
    match dtype {
        Dtype::F32 => Some(|bytes| {
            let scales = bytes.as_chunks().0.iter();
            scales.map(|bytes| f32::from_le_bytes(*bytes)).collect()
        }),
        Dtype::BF16 => Some(|bytes| {
            let scales = bytes.as_chunks().0.iter();
            scales
                .map(|bytes| bf16::from_le_bytes(*bytes).to_f32())
                .collect()
        }),
        Dtype::F16 => Some(|bytes| {
            let scales = bytes.as_chunks().0.iter();
            scales
                .map(|bytes| f16::from_le_bytes(*bytes).to_f32())
                .collect()
        }),
        Dtype::F8_E8M0 => Some(|bytes| bytes.iter().map(|code| e8m0_to_f32(*code)).collect()),
        _ => None,
    }
}

/// The kernel half: input 0 are the codes, input 1 the scales; output 0 their products.
#[derive(Debug)]
struct DequantizeKernel {
    codes: Dtype,
    scales: Dtype,
    to: Precision,
    grid: Grid,
    bands: RowBands,
    row: Row,
    read_scales: ReadScales,
    scale_bytes: u64,
    target_bytes: u64,
    path: CpuPath,
}

impl DequantizeKernel {
    /// Flattened elements of `band`, as positions in the weight.
    fn elements(&self, band: &Band) -> Range<u64> {
        let first = band.group * self.grid.rows;
        (first + band.rows.start) * self.grid.columns..(first + band.rows.end) * self.grid.columns
    }
}

impl Kernel for DequantizeKernel {
    fn identity(&self) -> String {
        let DequantizeKernel {
            codes,
            scales,
            to,
            grid,
            ..
        } = self;
        format!("{codes:?} times {scales:?} as {to:?}, {grid:?}")
    }

    fn step(&self, _output: usize) -> Option<Step> {
        let step = Step::new("dequantize")
            .with("to", self.to.dtype().to_string())
            .with("block", self.grid.block.to_vec());
        Some(step)
    }

    fn bands(&self) -> RowBands {
        self.bands
    }

    fn input_bytes(&self, input: usize, band: &Band) -> Range<u64> {
        if input == 0 {
            return self.elements(band);
        }
        let first = band.group * self.grid.scale_rows();
        let row_bytes = self.grid.scale_columns() * self.scale_bytes;
        let block_rows = self.grid.block[0];
        (first + band.rows.start / block_rows) * row_bytes
            ..(first + band.rows.end.div_ceil(block_rows)) * row_bytes
    }

    fn output_bytes(&self, _output: usize, band: &Band) -> Range<u64> {
        let elements = self.elements(band);
        elements.start * self.target_bytes..elements.end * self.target_bytes
    }

    fn compute(
        &self,
        _facts: &[f64],
        band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> std::result::Result<(), NonFinite> {
        let ([codes, scales], [target]) = (inputs, outputs) else {
            unreachable!("two inputs and one output, as declared");
        };
        let columns = self.grid.columns as usize;
        let [block_rows, block_columns] = self.grid.block;
        let block_columns = block_columns.min(self.grid.columns) as usize;
        let scales = (self.read_scales)(scales);
        let mut scale_rows = scales.chunks_exact(self.grid.scale_columns() as usize);
        let mut row_scales: &[f32] = &[];
        let rows = codes.chunks_exact(columns);
        let targets = target.chunks_exact_mut(columns * self.target_bytes as usize);
        for ((row, codes), target) in band.rows.clone().zip(rows).zip(targets) {
            if row == band.rows.start || row.is_multiple_of(block_rows) {
                row_scales = scale_rows.next().expect("a row of scales for its blocks");
            }
            (self.row)(codes, row_scales, block_columns, target, self.path);
        }
        Ok(())
    }
}
