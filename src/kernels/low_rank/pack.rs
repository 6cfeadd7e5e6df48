//! Factors in the form that the product reads: f32, transposed where they are stored so.

use crate::kernels::low_rank::float::Float;
use crate::kernels::low_rank::panel::PANEL;

/// A stored matrix, or several of the same shape (groups), seen through strides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strided {
    pub groups: usize,
    pub rows: usize,
    pub columns: usize,
    /// Elements from one group, row and column to the next.
    pub strides: [usize; 3],
}

impl Strided {
    /// Elements of all groups.
    pub fn elements(&self) -> usize {
        self.groups * self.rows * self.columns
    }

    /// Elements that [`pack_right`] writes: every row filled up to whole panels.
    pub fn packed_elements(&self) -> usize {
        self.groups * self.rows * self.columns.next_multiple_of(PANEL)
    }

    #[inline(always)]
    fn at<T: Float>(&self, source: &[u8], [group, row, column]: [usize; 3]) -> f32 {
        let [g, r, c] = self.strides;
        let at = (group * g + row * r + column * c) * T::BYTES;
        T::read(&source[at..at + T::BYTES])
    }
}

/// Rows and columns of a block that is copied at once, so that neither side of a transposition
/// leaves the processor's caches.
const BLOCK: usize = 64;

/// Writes a left factor: group after group, row after row, as f32.
///
/// # Panics
/// If the lengths do not fit.
pub fn pack_left<T: Float>(source: &[u8], shape: Strided, packed: &mut [u8]) {
    assert_eq!(packed.len(), 4 * shape.elements());
    copy::<T>(source, shape, packed, |row, column| {
        row * shape.columns + column
    });
}

/// Writes a right factor: group after group, panel after panel of [`PANEL`] columns, and in a panel
/// row after row, as f32. Columns that the last panel has too many are zeros.
///
/// # Panics
/// If the lengths do not fit.
pub fn pack_right<T: Float>(source: &[u8], shape: Strided, packed: &mut [u8]) {
    assert_eq!(packed.len(), 4 * shape.packed_elements());
    if !shape.columns.is_multiple_of(PANEL) {
        packed.fill(0);
    }
    copy::<T>(source, shape, packed, |row, column| {
        (column / PANEL * shape.rows + row) * PANEL + column % PANEL
    });
}

fn copy<T: Float>(
    source: &[u8],
    shape: Strided,
    packed: &mut [u8],
    place: impl Fn(usize, usize) -> usize,
) {
    let group_elements = packed.len() / 4 / shape.groups.max(1);
    let groups = packed.as_chunks_mut::<4>().0;
    let groups = groups.chunks_exact_mut(group_elements.max(1));
    for (group, packed) in groups.enumerate() {
        for rows in (0..shape.rows).step_by(BLOCK) {
            for columns in (0..shape.columns).step_by(BLOCK) {
                for row in rows..shape.rows.min(rows + BLOCK) {
                    for column in columns..shape.columns.min(columns + BLOCK) {
                        let value = shape.at::<T>(source, [group, row, column]);
                        packed[place(row, column)] = value.to_le_bytes();
                    }
                }
            }
        }
    }
}
