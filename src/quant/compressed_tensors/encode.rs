//! Numbers into codes with a scale for each row, or each group of columns of a row: a kernel whose outputs
//! are codes, scales and, if there are some, zero points. The numbers are defined in
//! [`crate::kernels::integer`] and [`crate::kernels::fp8`].

use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};

use crate::catalog::{
    Band, ErrorMeasure, Extents, Kernel, Node, NonFinite, RowBands, Step, Tensor,
};
use crate::kernels::CpuPath;
use crate::kernels::fp8::{self, Element, NonFiniteAt};
use crate::kernels::integer::{self, Int4, Int4Asymmetric, Int8, Integer};
use crate::quant::compressed_tensors::format::{
    Form, Kind, NIBBLES, PACKED, SCALE, SHAPE, Strategy, Weights, ZERO_POINT,
};
use crate::tensor::{Dtype, Name};

/// What is quantized, and to what: a matrix.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix {
    pub rows: u64,
    pub columns: u64,
    /// Rows and columns that share a scale.
    pub block: [u64; 2],
    pub dtype: Dtype,
    pub weights: Weights,
}

impl Matrix {
    pub(super) fn new(shape: [u64; 2], dtype: Dtype, weights: Weights) -> Self {
        let [rows, columns] = shape;
        Matrix {
            rows,
            columns,
            block: match weights.strategy {
                Strategy::Tensor => [rows.max(1), columns.max(1)],
                Strategy::Channel => [1, columns.max(1)],
                Strategy::Group(size) => [1, size],
                Strategy::Block(block) => block,
            },
            dtype,
            weights,
        }
    }

    fn scale_rows(&self) -> u64 {
        self.rows.div_ceil(self.block[0])
    }

    fn scale_columns(&self) -> u64 {
        self.columns.div_ceil(self.block[1])
    }

    fn element_bytes(&self) -> u64 {
        self.dtype.bitsize() as u64 / 8
    }

    /// Bytes of the codes of a row.
    fn code_bytes(&self) -> u64 {
        match self.weights.kind {
            Kind::Float8 | Kind::Int8 => self.columns,
            Kind::Int4 => self.columns.div_ceil(NIBBLES) * 4,
        }
    }
}

/// The tensors that `tensor`, the weight called `name`, becomes.
pub(super) fn encode(name: &Name, tensor: Tensor, matrix: Matrix) -> Vec<(Name, Tensor)> {
    let Matrix {
        rows,
        columns,
        dtype,
        weights,
        ..
    } = matrix;
    let home = tensor.home;
    let kernel = Box::new(EncodeKernel {
        matrix,
        path: CpuPath::best(),
    });
    let node = Arc::new(Node::new(name.clone(), vec![tensor], kernel));
    let output = |suffix: &str, output, dtype, shape: [u64; 2]| {
        let name: Name = [name, suffix].concat().into();
        let shape = shape.to_vec();
        (
            name,
            Tensor::computed(node.clone(), output, dtype, shape, home),
        )
    };
    let groups = [matrix.scale_rows(), matrix.scale_columns()];
    let scale = output(SCALE, 1, dtype, groups);
    let form = weights.form().expect("what is encoded has a form");
    if form == Form::Dense {
        let codes = match weights.kind {
            Kind::Float8 => Dtype::F8_E4M3,
            Kind::Int8 | Kind::Int4 => Dtype::I8,
        };
        return vec![output("", 0, codes, [rows, columns]), scale];
    }
    let mut shape = Vec::from((rows as i64).to_le_bytes());
    shape.extend((columns as i64).to_le_bytes());
    let shape = Tensor {
        dtype: Dtype::I64,
        shape: vec![2].into(),
        extents: Extents::made(shape),
        home,
    };
    let words = columns.div_ceil(NIBBLES);
    let mut tensors = vec![
        output(PACKED, 0, Dtype::I32, [rows, words]),
        scale,
        ([name, SHAPE].concat().into(), shape),
    ];
    if form == Form::PackedAsymmetric {
        let shape = [rows.div_ceil(NIBBLES), groups[1]];
        tensors.push(output(ZERO_POINT, 2, Dtype::I32, shape));
    }
    tensors
}

/// The kernel half: input 0 is the matrix; outputs are its codes, its scales and its zero points.
#[derive(Debug)]
struct EncodeKernel {
    matrix: Matrix,
    path: CpuPath,
}

impl EncodeKernel {
    fn is_asymmetric(&self) -> bool {
        !self.matrix.weights.symmetric
    }

    /// Encodes the rows of a band.
    fn encode<T: Element>(
        &self,
        source: &[u8],
        codes: &mut [u8],
        scales: &mut [f32],
        zero_points: &mut [i8],
    ) -> std::result::Result<(), NonFiniteAt> {
        let columns = self.matrix.columns as usize;
        match self.matrix.weights.kind {
            Kind::Float8 => self.float8::<T>(source, codes, scales),
            Kind::Int8 => self.integers::<T, Int8>(source, columns, codes, scales, zero_points),
            Kind::Int4 if self.is_asymmetric() => {
                self.integers::<T, Int4Asymmetric>(source, columns, codes, scales, zero_points)
            }
            Kind::Int4 => self.integers::<T, Int4>(source, columns, codes, scales, zero_points),
        }
    }

    fn integers<T: Element, C: Integer>(
        &self,
        source: &[u8],
        columns: usize,
        codes: &mut [u8],
        scales: &mut [f32],
        zero_points: &mut [i8],
    ) -> std::result::Result<(), NonFiniteAt> {
        let group = self.matrix.block[1] as usize;
        let path = self.path;
        integer::quantize_rows::<T, C>(source, columns, group, codes, scales, zero_points, path)
    }

    fn float8<T: Element>(
        &self,
        source: &[u8],
        codes: &mut [u8],
        scales: &mut [f32],
    ) -> std::result::Result<(), NonFiniteAt> {
        let columns = self.matrix.columns as usize;
        let scale = fp8::nearest_scale::<T>;
        if self.matrix.block[0] == 1 {
            return fp8::quantize_rows::<T>(source, columns, codes, scales, scale, self.path);
        }
        let rows = self.matrix.block[0] as usize;
        let block_rows = source
            .chunks(rows * columns * T::BYTES)
            .zip(codes.chunks_mut(rows * columns))
            .zip(scales.chunks_exact_mut(self.matrix.scale_columns() as usize));
        for (i, ((source, codes), scales)) in block_rows.enumerate() {
            let row = i * rows;
            fp8::quantize_blocks::<T>(source, columns, codes, scales, scale, self.path).map_err(
                |at| NonFiniteAt {
                    row: row + at.row,
                    ..at
                },
            )?;
        }
        Ok(())
    }
}

impl Kernel for EncodeKernel {
    fn identity(&self) -> String {
        format!("compressed-tensors, {:?}", self.matrix)
    }

    fn step(&self, output: usize) -> Option<Step> {
        const OUTPUTS: [&str; 3] = ["codes", "scales", "zero points"];
        let Weights {
            kind,
            strategy,
            symmetric,
            ..
        } = self.matrix.weights;
        let scheme = match (kind, strategy) {
            (Kind::Float8, Strategy::Block(_)) => "fp8-block",
            (Kind::Float8, _) => "fp8-channel",
            (Kind::Int8, _) => "int8-channel",
            (Kind::Int4, _) => "int4",
        };
        let step = Step::new("quantize")
            .with("gives", OUTPUTS[output])
            .with("scheme", scheme);
        let step = match strategy {
            Strategy::Group(size) => step.with("group", size),
            Strategy::Block(block) => step.with("block", block.to_vec()),
            Strategy::Channel | Strategy::Tensor => step,
        };
        Some(if symmetric {
            step
        } else {
            step.with("symmetric", false)
        })
    }

    fn bands(&self) -> RowBands {
        /// Source bytes that are worth computing at once.
        const TILE_BYTES: u64 = 1 << 20;
        let row_bytes = (self.matrix.columns * self.matrix.element_bytes()).max(1);
        // Zero points are packed down rows.
        let unit = self.matrix.block[0].max(NIBBLES);
        let units = (TILE_BYTES / (row_bytes * unit)).max(1);
        let is_empty = self.matrix.columns == 0;
        RowBands {
            groups: 1,
            rows_per_group: if is_empty { 0 } else { self.matrix.rows },
            band_rows: units * unit,
        }
    }

    fn outputs(&self) -> usize {
        2 + usize::from(self.is_asymmetric())
    }

    fn input_bytes(&self, _input: usize, band: &Band) -> Range<u64> {
        let row_bytes = self.matrix.columns * self.matrix.element_bytes();
        band.rows.start * row_bytes..band.rows.end * row_bytes
    }

    fn output_bytes(&self, output: usize, band: &Band) -> Range<u64> {
        let Range { start, end } = band.rows;
        let block_rows = self.matrix.block[0];
        let groups = self.matrix.scale_columns();
        let (row_bytes, rows) = match output {
            0 => (self.matrix.code_bytes(), start..end),
            1 => (
                groups * self.matrix.element_bytes(),
                start / block_rows..end.div_ceil(block_rows),
            ),
            _ => (groups * 4, start / NIBBLES..end.div_ceil(NIBBLES)),
        };
        rows.start * row_bytes..rows.end * row_bytes
    }

    fn error_measure(&self) -> Option<&dyn ErrorMeasure> {
        Some(&self.matrix)
    }

    fn compute(
        &self,
        _facts: &[f64],
        band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> std::result::Result<(), NonFinite> {
        let ([source], [codes, scales, zero_points @ ..]) = (inputs, outputs) else {
            unreachable!("one input and two outputs or three, as declared");
        };
        let bytes = self.matrix.element_bytes() as usize;
        let mut row_scales = vec![0.0; scales.len() / bytes];
        let mut zeros = vec![0; row_scales.len()];
        let found = match self.matrix.dtype {
            Dtype::BF16 => self.encode::<bf16>(source, codes, &mut row_scales, &mut zeros),
            Dtype::F16 => self.encode::<f16>(source, codes, &mut row_scales, &mut zeros),
            _ => self.encode::<f32>(source, codes, &mut row_scales, &mut zeros),
        };
        found.map_err(|at| NonFinite {
            row: band.rows.start + at.row as u64,
            column: at.column as u64,
            value: at.value,
            scale: None,
        })?;
        write_scales(self.matrix.dtype, &row_scales, scales);
        if let [zero_points] = zero_points {
            pack_down(&zeros, self.matrix.scale_columns() as usize, zero_points);
        }
        Ok(())
    }
}

/// Writes scales, each of which a `dtype` can hold.
fn write_scales(dtype: Dtype, scales: &[f32], bytes: &mut [u8]) {
    match dtype {
        Dtype::BF16 => {
            for (bytes, scale) in bytes.as_chunks_mut().0.iter_mut().zip(scales) {
                *bytes = bf16::from_f32(*scale).to_le_bytes();
            }
        }
        Dtype::F16 => {
            for (bytes, scale) in bytes.as_chunks_mut().0.iter_mut().zip(scales) {
                *bytes = f16::from_f32(*scale).to_le_bytes();
            }
        }
        _ => {
            for (bytes, scale) in bytes.as_chunks_mut().0.iter_mut().zip(scales) {
                *bytes = scale.to_le_bytes();
            }
        }
    }
}

/// Packs rows of `count` zero points, plus 8: those of 8 rows are in one I32, the first in its lowest bits.
fn pack_down(zeros: &[i8], count: usize, packed: &mut [u8]) {
    packed.fill(0);
    for (row, zeros) in zeros.chunks_exact(count).enumerate() {
        let (word, bit) = (row / NIBBLES as usize * count, row % NIBBLES as usize * 4);
        for (at, zero) in zeros.iter().enumerate() {
            packed[(word + at) * 4 + bit / 8] |= ((zero + 8) as u8) << (bit % 8);
        }
    }
}
