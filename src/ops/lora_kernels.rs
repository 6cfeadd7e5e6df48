//! The kernel half of LoRA: factors brought into form once, and the weight's rows band by band.

use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};

use crate::catalog::{Band, Data, Kernel, Node, NonFinite, RowBands, Tensor};
use crate::kernels::fp8::CpuPath;
use crate::kernels::low_rank::{self, Finish, Float, PANEL, Product, Strided};
use crate::tensor::{Dtype, Name, Shape, byte_len};

/// `$body` with `$T` as the type of `$dtype`, which is one of those that [`is_float`] accepts.
macro_rules! with_float {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            Dtype::BF16 => {
                type $T = bf16;
                $body
            }
            Dtype::F16 => {
                type $T = f16;
                $body
            }
            _ => {
                type $T = f32;
                $body
            }
        }
    };
}

/// Whether these kernels read and write `dtype`.
pub(super) fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::BF16 | Dtype::F16 | Dtype::F32)
}

/// Bytes of an f32.
const F32: u64 = 4;
/// Bytes of an f64.
const F64: u64 = 8;

/// A weight seen as `groups` matrices of `rows` × `columns`, all at least 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix {
    pub groups: u64,
    pub rows: u64,
    pub columns: u64,
    pub dtype: Dtype,
}

impl Matrix {
    fn element_bytes(&self) -> u64 {
        self.dtype.bitsize() as u64 / 8
    }

    /// Bands that hold about `bytes` bytes of the weight, and no more of a left factor.
    fn bands(&self, rank: u64, bytes: u64) -> RowBands {
        let row_bytes = (self.columns * self.element_bytes()).max(rank * F32);
        RowBands {
            groups: self.groups,
            rows_per_group: self.rows,
            band_rows: (bytes / row_bytes).max(1),
        }
    }

    /// Bytes of `band`.
    fn bytes(&self, band: &Band) -> Range<u64> {
        let first = band.group * self.rows;
        let row_bytes = self.columns * self.element_bytes();
        (first + band.rows.start) * row_bytes..(first + band.rows.end) * row_bytes
    }
}

/// The two factors, brought into form, and how they join a weight.
#[derive(Debug, Clone)]
pub(super) struct LowRank {
    /// All groups; `None` for a row of ones (of rank 1 only).
    pub left: Option<Tensor>,
    /// All groups.
    pub right: Tensor,
    pub rank: u64,
    pub scale: f32,
    /// Which row of `left` belongs to the first row of the weight.
    pub first_row: u64,
    /// Rows of a group of `left`.
    pub left_rows: u64,
    /// Which group of `right` belongs to the first group of the weight.
    pub first_group: u64,
    pub join: Join,
}

/// How the product joins the weight, as [`Finish`] has it.
#[derive(Debug, Clone)]
pub(super) enum Join {
    Add,
    AddRounded,
    /// DoRA with the norms of rows; the magnitudes as a left factor of one column.
    RowMagnitudes(Tensor),
    /// DoRA with the norms of columns; the magnitudes as they are stored.
    ColumnMagnitudes(Tensor),
}

/// A left factor (see [`low_rank::pack_left`]) of what `shape` sees in `source`.
pub(super) fn left(name: &str, source: Tensor, shape: Strided) -> Tensor {
    factor(name, source, shape, false)
}

/// A right factor (see [`low_rank::pack_right`]) of what `shape` sees in `source`.
pub(super) fn right(name: &str, source: Tensor, shape: Strided) -> Tensor {
    factor(name, source, shape, true)
}

fn factor(name: &str, source: Tensor, shape: Strided, is_right: bool) -> Tensor {
    let elements = match is_right {
        true => shape.packed_elements(),
        false => shape.elements(),
    };
    let kernel = Factor {
        shape,
        is_right,
        dtype: source.dtype,
        input: source.len,
        output: elements as u64 * F32,
    };
    computed(
        name,
        vec![source],
        Dtype::F32,
        [elements as u64].as_slice(),
        Box::new(kernel),
    )
}

/// Output 0 of a new node.
fn computed(
    name: &str,
    inputs: Vec<Tensor>,
    dtype: Dtype,
    shape: impl Into<Shape>,
    kernel: Box<dyn Kernel>,
) -> Tensor {
    let shape = shape.into();
    let home = inputs[0].home;
    Tensor {
        len: byte_len(dtype, &shape).expect("sizes were checked when the adapter was opened"),
        dtype,
        shape,
        data: Data::Computed {
            node: Arc::new(Node::new(Name::from(name), inputs, kernel)),
            output: 0,
        },
        home,
    }
}

/// `weight` with `change` merged into it.
pub(super) fn merged(name: &str, weight: Tensor, matrix: Matrix, change: LowRank) -> Tensor {
    let LowRank { left, right, .. } = change.clone();
    let mut inputs = vec![weight.clone(), right];
    let has_left = left.is_some();
    inputs.extend(left);
    let base = Base {
        matrix,
        rank: change.rank,
        scale: change.scale,
        has_left,
        first_row: change.first_row,
        left_rows: change.left_rows,
        first_group: change.first_group,
        path: CpuPath::best(),
    };
    let kind = match change.join {
        Join::Add => Kind::Add,
        Join::AddRounded => Kind::AddRounded,
        Join::RowMagnitudes(magnitudes) => {
            inputs.push(magnitudes);
            Kind::RowLengths
        }
        Join::ColumnMagnitudes(magnitudes) => {
            let squares = column_squares(name, inputs.clone(), base);
            inputs.push(column_factors(name, squares, magnitudes, matrix.columns));
            Kind::ColumnFactors
        }
    };
    let (dtype, shape) = (weight.dtype, weight.shape.clone());
    let bands = matrix.bands(base.rank, Merge::BAND_BYTES);
    let kernel = Merge { base, kind, bands };
    computed(name, inputs, dtype, shape, Box::new(kernel))
}

/// One matrix of sums of squares: a row for each band, a column for each of the weight.
fn column_squares(name: &str, inputs: Vec<Tensor>, base: Base) -> Tensor {
    let bands = base.matrix.bands(base.rank, ColumnSquares::BAND_BYTES);
    let shape = [bands.count(), base.matrix.columns];
    let kernel = ColumnSquares { base, bands };
    computed(name, inputs, Dtype::F64, shape.as_slice(), Box::new(kernel))
}

/// `magnitudes / norms`, where `squares` has partial sums for the norms in each row.
fn column_factors(name: &str, squares: Tensor, magnitudes: Tensor, columns: u64) -> Tensor {
    let kernel = ColumnFactors {
        columns,
        squares: squares.len,
        dtype: magnitudes.dtype,
    };
    let inputs = vec![squares, magnitudes];
    computed(
        name,
        inputs,
        Dtype::F32,
        [columns].as_slice(),
        Box::new(kernel),
    )
}

/// The one band of a kernel that computes everything at once.
const SINGLE_BAND: RowBands = RowBands {
    groups: 1,
    rows_per_group: 1,
    band_rows: 1,
};

/// Brings a factor into form, whole.
#[derive(Debug)]
struct Factor {
    shape: Strided,
    is_right: bool,
    dtype: Dtype,
    input: u64,
    output: u64,
}

impl Kernel for Factor {
    fn bands(&self) -> RowBands {
        SINGLE_BAND
    }

    fn outputs(&self) -> usize {
        1
    }

    fn input_bytes(&self, _input: usize, _band: &Band) -> Range<u64> {
        0..self.input
    }

    fn output_bytes(&self, _output: usize, _band: &Band) -> Range<u64> {
        0..self.output
    }

    fn compute(
        &self,
        _band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> Result<(), NonFinite> {
        let (source, packed) = (inputs[0], &mut *outputs[0]);
        with_float!(self.dtype, T => match self.is_right {
            true => low_rank::pack_right::<T>(source, self.shape, packed),
            false => low_rank::pack_left::<T>(source, self.shape, packed),
        });
        Ok(())
    }
}

/// What kernels that add the product to the weight have in common. Input 0 is the weight, input 1
/// the right factor, input 2 the left one if there is one.
#[derive(Debug, Clone, Copy)]
struct Base {
    matrix: Matrix,
    rank: u64,
    scale: f32,
    has_left: bool,
    first_row: u64,
    left_rows: u64,
    first_group: u64,
    path: CpuPath,
}

impl Base {
    fn input_bytes(&self, input: usize, band: &Band) -> Option<Range<u64>> {
        match input {
            0 => Some(self.matrix.bytes(band)),
            1 => {
                let columns = self.matrix.columns.next_multiple_of(PANEL as u64);
                let bytes = self.rank * columns * F32;
                let group = self.first_group + band.group;
                Some(group * bytes..(group + 1) * bytes)
            }
            2 if self.has_left => {
                let first = self.first_row + band.group * self.left_rows;
                let bytes = self.rank * F32;
                Some((first + band.rows.start) * bytes..(first + band.rows.end) * bytes)
            }
            _ => None,
        }
    }

    fn product<'a>(&self, inputs: &[&'a [u8]]) -> Product<'a> {
        const ONE: [u8; 4] = 1.0f32.to_le_bytes();
        Product {
            left: if self.has_left { inputs[2] } else { &ONE },
            right: inputs[1],
            rank: self.rank as usize,
            scale: self.scale,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Add,
    AddRounded,
    RowLengths,
    ColumnFactors,
}

/// The merged weight. A further input, the last one, has the lengths of rows or factors of columns.
#[derive(Debug)]
struct Merge {
    base: Base,
    kind: Kind,
    bands: RowBands,
}

impl Merge {
    /// Bytes of the weight that are worth computing at once.
    const BAND_BYTES: u64 = 1 << 20;
}

impl Kernel for Merge {
    fn bands(&self) -> RowBands {
        self.bands
    }

    fn outputs(&self) -> usize {
        1
    }

    fn input_bytes(&self, input: usize, band: &Band) -> Range<u64> {
        let shared = self.base.input_bytes(input, band);
        shared.unwrap_or_else(|| match self.kind {
            Kind::RowLengths => band.rows.start * F32..band.rows.end * F32,
            _ => 0..self.base.matrix.columns * F32,
        })
    }

    fn keeps(&self, input: usize) -> bool {
        input > 0
    }

    fn output_bytes(&self, _output: usize, band: &Band) -> Range<u64> {
        self.base.matrix.bytes(band)
    }

    fn compute(
        &self,
        _band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> Result<(), NonFinite> {
        let base = &self.base;
        let last = inputs[inputs.len() - 1];
        let finish = match self.kind {
            Kind::Add => Finish::Add,
            Kind::AddRounded => Finish::AddRounded,
            Kind::RowLengths => Finish::RowLengths(last),
            Kind::ColumnFactors => Finish::ColumnFactors(last),
        };
        let columns = base.matrix.columns as usize;
        let product = base.product(inputs);
        let (weight, sums) = (inputs[0], &mut *outputs[0]);
        with_float!(base.matrix.dtype, T => {
            low_rank::add::<T>(weight, columns, &product, finish, sums, base.path);
        });
        Ok(())
    }
}

/// Sums of the squares of the merged weight's columns, before it is scaled, for each band.
#[derive(Debug)]
struct ColumnSquares {
    base: Base,
    bands: RowBands,
}

impl ColumnSquares {
    /// More than a merged tile has, since all sums are held at once.
    const BAND_BYTES: u64 = 4 << 20;
}

impl Kernel for ColumnSquares {
    fn bands(&self) -> RowBands {
        self.bands
    }

    fn outputs(&self) -> usize {
        1
    }

    fn input_bytes(&self, input: usize, band: &Band) -> Range<u64> {
        let shared = self.base.input_bytes(input, band);
        shared.expect("only the weight and its factors")
    }

    fn keeps(&self, input: usize) -> bool {
        input > 0
    }

    fn output_bytes(&self, _output: usize, band: &Band) -> Range<u64> {
        let bytes = self.base.matrix.columns * F64;
        band.index * bytes..(band.index + 1) * bytes
    }

    fn compute(
        &self,
        _band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> Result<(), NonFinite> {
        let base = &self.base;
        let columns = base.matrix.columns as usize;
        let mut squares = vec![0.0f64; columns];
        let (weight, product) = (inputs[0], base.product(inputs));
        with_float!(base.matrix.dtype, T => {
            low_rank::add_column_squares::<T>(weight, columns, &product, &mut squares, base.path);
        });
        for (bytes, square) in outputs[0].as_chunks_mut().0.iter_mut().zip(squares) {
            *bytes = square.to_le_bytes();
        }
        Ok(())
    }
}

/// What DoRA multiplies each column by. Input 0 has the sums of squares, input 1 the magnitudes.
#[derive(Debug)]
struct ColumnFactors {
    columns: u64,
    squares: u64,
    dtype: Dtype,
}

impl Kernel for ColumnFactors {
    fn bands(&self) -> RowBands {
        SINGLE_BAND
    }

    fn outputs(&self) -> usize {
        1
    }

    fn input_bytes(&self, input: usize, _band: &Band) -> Range<u64> {
        match input {
            0 => 0..self.squares,
            _ => 0..self.columns * (self.dtype.bitsize() as u64 / 8),
        }
    }

    fn output_bytes(&self, _output: usize, _band: &Band) -> Range<u64> {
        0..self.columns * F32
    }

    fn compute(
        &self,
        _band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> Result<(), NonFinite> {
        let mut sums = vec![0.0f64; self.columns as usize];
        let squares = inputs[0].as_chunks().0;
        for row in squares.chunks_exact(sums.len()) {
            for (sum, square) in sums.iter_mut().zip(row) {
                *sum += f64::from_le_bytes(*square);
            }
        }
        let factors = outputs[0].as_chunks_mut().0;
        let width = self.dtype.bitsize() / 8;
        let magnitudes = inputs[1].chunks_exact(width);
        for ((factor, magnitude), sum) in factors.iter_mut().zip(magnitudes).zip(sums) {
            let magnitude = with_float!(self.dtype, T => T::read(magnitude));
            *factor = (magnitude / sum.sqrt() as f32).to_le_bytes();
        }
        Ok(())
    }
}

/// `source` with its elements rounded to `dtype`.
pub(super) fn cast(name: &str, source: Tensor, dtype: Dtype) -> Tensor {
    let kernel = Cast {
        from: source.dtype,
        to: dtype,
        elements: source.len / (source.dtype.bitsize() as u64 / 8),
    };
    let shape = source.shape.clone();
    computed(name, vec![source], dtype, shape, Box::new(kernel))
}

/// Elements of one type as another one.
#[derive(Debug)]
struct Cast {
    from: Dtype,
    to: Dtype,
    elements: u64,
}

impl Kernel for Cast {
    fn bands(&self) -> RowBands {
        RowBands {
            groups: 1,
            rows_per_group: self.elements,
            band_rows: 1 << 18,
        }
    }

    fn outputs(&self) -> usize {
        1
    }

    fn input_bytes(&self, _input: usize, band: &Band) -> Range<u64> {
        let bytes = self.from.bitsize() as u64 / 8;
        band.rows.start * bytes..band.rows.end * bytes
    }

    fn output_bytes(&self, _output: usize, band: &Band) -> Range<u64> {
        let bytes = self.to.bitsize() as u64 / 8;
        band.rows.start * bytes..band.rows.end * bytes
    }

    fn compute(
        &self,
        _band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> Result<(), NonFinite> {
        let sources = inputs[0].chunks_exact(self.from.bitsize() / 8);
        let targets = outputs[0].chunks_exact_mut(self.to.bitsize() / 8);
        for (source, target) in sources.zip(targets) {
            let value = with_float!(self.from, T => T::read(source));
            with_float!(self.to, T => T::write(value, target));
        }
        Ok(())
    }
}
