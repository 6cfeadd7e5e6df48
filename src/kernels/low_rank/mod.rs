//! `W + s · L · R` for rows of a weight `W`, with a left factor `L` of shape `[rows, rank]` and a right
//! factor `R` of shape `[rank, columns]`, both f32.
//!
//! For each element: the sum over the rank from 0 up in f32, every product and every sum rounded
//! (nothing is fused); times `s`; plus the weight; rounded once to the weight's type. There are
//! several implementations ([`CpuPath`]); all do these operations in this order, and so give the
//! same bits.

mod float;
mod pack;
mod panel;
mod tile;

use std::ops::Range;

pub use float::Float;
pub use pack::{Strided, pack_left, pack_right};
pub use panel::PANEL;

use crate::kernels::CpuPath;
use tile::{PanelRow, ROWS, Row, Tile};

/// `scale · left · right`.
#[derive(Debug, Clone, Copy)]
pub struct Product<'a> {
    /// Rows of [`pack_left`], as many as there are of the weight.
    pub left: &'a [u8],
    /// A group of [`pack_right`].
    pub right: &'a [u8],
    /// At least 1.
    pub rank: usize,
    pub scale: f32,
}

/// How the product joins the weight.
#[derive(Debug, Clone, Copy)]
pub enum Finish<'a> {
    /// It is added.
    Add,
    /// It is rounded to the weight's type and added.
    AddRounded,
    /// It is added, and each row is scaled to a length: these, one f32 for each row. The length that
    /// a row had is the square root of the sum of its squares in f64, rounded to f32.
    RowLengths(&'a [u8]),
    /// It is added, and each column is multiplied by one of these f32.
    ColumnFactors(&'a [u8]),
}

/// Writes `weight` (rows of `columns` elements of `T`) joined with `product` to `sums`.
///
/// # Panics
/// If the lengths do not fit together, or this processor cannot run `path`.
pub fn add<T: Float>(
    weight: &[u8],
    columns: usize,
    product: &Product,
    finish: Finish,
    sums: &mut [u8],
    path: CpuPath,
) {
    assert_eq!(weight.len(), sums.len());
    let job = Job::new::<T>(weight, columns, product);
    job.run::<T>(Work::Add(finish, sums), path);
}

/// Adds the squares of `weight + product` to `squares`, one sum for each column, row after row.
///
/// # Panics
/// As [`add`].
pub fn add_column_squares<T: Float>(
    weight: &[u8],
    columns: usize,
    product: &Product,
    squares: &mut [f64],
    path: CpuPath,
) {
    assert_eq!(squares.len(), columns);
    let job = Job::new::<T>(weight, columns, product);
    job.run::<T>(Work::ColumnSquares(squares), path);
}

/// What is added.
struct Job<'a> {
    weight: &'a [u8],
    rows: usize,
    columns: usize,
    scale: f32,
    left: Vec<Row<'a>>,
    /// `rank` rows for each panel.
    right: &'a [PanelRow],
    rank: usize,
}

/// What is wanted of it.
enum Work<'a> {
    Add(Finish<'a>, &'a mut [u8]),
    ColumnSquares(&'a mut [f64]),
}

impl<'a> Job<'a> {
    fn new<T: Float>(weight: &'a [u8], columns: usize, product: &Product<'a>) -> Self {
        let &Product {
            left,
            right,
            rank,
            scale,
        } = product;
        let rows = weight.len() / (columns * T::BYTES).max(1);
        assert_eq!(weight.len(), rows * columns * T::BYTES);
        assert!(rank > 0);
        assert_eq!(left.len(), 4 * rows * rank);
        assert_eq!(right.len(), 4 * rank * columns.next_multiple_of(PANEL));
        Job {
            weight,
            rows,
            columns,
            scale,
            left: left.as_chunks().0.chunks_exact(rank).collect(),
            right: right.as_chunks().0.as_chunks().0,
            rank,
        }
    }

    fn run<T: Float>(&self, work: Work, path: CpuPath) {
        assert!(CpuPath::available().contains(&path));
        match path {
            CpuPath::Scalar => self.run_with::<T>(work, tile::scalar),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the processor has what this path needs; it is among the available ones.
            CpuPath::Avx2 => unsafe { run_avx2::<T>(self, work) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            CpuPath::Avx512 => unsafe { run_avx512::<T>(self, work) },
            #[cfg(target_arch = "aarch64")]
            CpuPath::Neon => self.run_with::<T>(work, tile::scalar),
        }
    }

    #[inline(always)]
    fn run_with<T: Float>(&self, work: Work, tile: impl Fn([Row; ROWS], &[PanelRow], &mut Tile)) {
        let all = 0..self.rows;
        match work {
            Work::Add(Finish::Add, sums) => self.for_each_run(all, tile, |row, first, values| {
                let place = self.place::<T>(row, first, values.len());
                let (weight, sums) = (&self.weight[place.clone()], &mut sums[place]);
                for ((weight, sum), value) in elements::<T>(weight, sums).zip(values) {
                    T::write(T::read(weight) + value * self.scale, sum);
                }
            }),
            Work::Add(Finish::AddRounded, sums) => {
                self.for_each_run(all, tile, |row, first, values| {
                    let place = self.place::<T>(row, first, values.len());
                    let (weight, sums) = (&self.weight[place.clone()], &mut sums[place]);
                    for ((weight, sum), value) in elements::<T>(weight, sums).zip(values) {
                        T::write(T::read(weight) + T::round(value * self.scale), sum);
                    }
                })
            }
            Work::Add(Finish::ColumnFactors(factors), sums) => {
                let factors = factors.as_chunks::<4>().0;
                self.for_each_run(all, tile, |row, first, values| {
                    let place = self.place::<T>(row, first, values.len());
                    let (weight, sums) = (&self.weight[place.clone()], &mut sums[place]);
                    let columns = elements::<T>(weight, sums).zip(values);
                    for (((weight, sum), value), factor) in columns.zip(&factors[first..]) {
                        let moved = T::read(weight) + value * self.scale;
                        T::write(f32::from_le_bytes(*factor) * moved, sum);
                    }
                })
            }
            Work::Add(Finish::RowLengths(lengths), sums) => {
                let lengths = lengths.as_chunks::<4>().0;
                self.for_each_row::<T>(tile, |row, moved| {
                    let factor = f32::from_le_bytes(lengths[row]) / length(moved);
                    let sums = &mut sums[self.place::<T>(row, 0, self.columns)];
                    for (sum, moved) in sums.chunks_exact_mut(T::BYTES).zip(moved) {
                        T::write(factor * moved, sum);
                    }
                });
            }
            Work::ColumnSquares(squares) => self.for_each_row::<T>(tile, |_, moved| {
                for (square, &moved) in squares.iter_mut().zip(moved) {
                    *square += f64::from(moved) * f64::from(moved);
                }
            }),
        }
    }

    /// Calls `visit` with every row and its elements after the addition, as f32.
    #[inline(always)]
    fn for_each_row<T: Float>(
        &self,
        tile: impl Fn([Row; ROWS], &[PanelRow], &mut Tile),
        mut visit: impl FnMut(usize, &[f32]),
    ) {
        const TOGETHER: usize = 4 * ROWS;
        let mut moved = vec![0.0; TOGETHER * self.columns];
        for start in (0..self.rows).step_by(TOGETHER) {
            let rows = start..self.rows.min(start + TOGETHER);
            self.for_each_run(rows.clone(), &tile, |row, first, values| {
                let weight = &self.weight[self.place::<T>(row, first, values.len())];
                let moved = &mut moved[(row - start) * self.columns + first..];
                let weight = weight.chunks_exact(T::BYTES).zip(moved);
                for ((weight, moved), value) in weight.zip(values) {
                    *moved = T::read(weight) + value * self.scale;
                }
            });
            let all = moved.chunks_exact(self.columns.max(1));
            for (row, moved) in rows.zip(all) {
                visit(row, moved);
            }
        }
    }

    /// Calls `visit` with runs of elements of the product before it is scaled: the row, the first
    /// column, and the values.
    #[inline(always)]
    fn for_each_run(
        &self,
        rows: Range<usize>,
        tile: impl Fn([Row; ROWS], &[PanelRow], &mut Tile),
        mut visit: impl FnMut(usize, usize, &[f32]),
    ) {
        /// Bytes of panels that are gone through for all rows before the next are.
        const RESIDENT: usize = 16 << 10;
        let panels_at_once = (RESIDENT / (4 * PANEL * self.rank)).max(1);
        let panels = self.columns.div_ceil(PANEL);
        let mut values = [[0.0; PANEL]; ROWS];
        for chunk in (0..panels).step_by(panels_at_once) {
            for start in rows.clone().step_by(ROWS) {
                let last = rows.end - 1;
                let left = std::array::from_fn(|i| self.left[last.min(start + i)]);
                for panel in chunk..panels.min(chunk + panels_at_once) {
                    let right = &self.right[panel * self.rank..][..self.rank];
                    tile(left, right, &mut values);
                    let first = panel * PANEL;
                    let width = PANEL.min(self.columns - first);
                    for (row, values) in (start..rows.end).zip(&values) {
                        visit(row, first, &values[..width]);
                    }
                }
            }
        }
    }

    /// Where `count` elements of a row lie.
    #[inline(always)]
    fn place<T: Float>(&self, row: usize, first: usize, count: usize) -> Range<usize> {
        let start = (row * self.columns + first) * T::BYTES;
        start..start + count * T::BYTES
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
fn run_avx2<T: Float>(job: &Job, work: Work) {
    job.run_with::<T>(work, |left, panel, tile| tile::avx2(left, panel, tile));
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
fn run_avx512<T: Float>(job: &Job, work: Work) {
    job.run_with::<T>(work, |left, panel, tile| tile::avx512(left, panel, tile));
}

#[inline(always)]
fn elements<'a, T: Float>(
    weight: &'a [u8],
    sums: &'a mut [u8],
) -> impl Iterator<Item = (&'a [u8], &'a mut [u8])> {
    weight
        .chunks_exact(T::BYTES)
        .zip(sums.chunks_exact_mut(T::BYTES))
}

/// The length of a vector. The sum has as many parts as there are lanes, whatever the processor has.
#[inline(always)]
fn length(vector: &[f32]) -> f32 {
    const LANES: usize = 8;
    let mut parts = [0.0f64; LANES];
    let (whole, rest) = vector.as_chunks::<LANES>();
    for lanes in whole {
        for (part, &x) in parts.iter_mut().zip(lanes) {
            *part += f64::from(x) * f64::from(x);
        }
    }
    for (part, &x) in parts.iter_mut().zip(rest) {
        *part += f64::from(x) * f64::from(x);
    }
    parts.iter().sum::<f64>().sqrt() as f32
}
