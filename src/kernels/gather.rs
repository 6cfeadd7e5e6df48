//! Elements of one matrix to the places of another.

/// Where the elements of a matrix lie: how many elements it is from one row to the next, and from one
/// column to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strides {
    pub row: usize,
    pub column: usize,
}

/// Rows and columns that are copied together: those of 8 bytes fit into a processor's first cache, also
/// where rows of one matrix are columns of the other.
const BLOCK: usize = 32;

/// Copies `rows` × `columns` elements of `width` bytes each (1, 2, 4 or 8): element (r, c) from
/// `r · from.row + c · from.column` of `source` to `r · to.row + c · to.column` of `target`.
///
/// # Panics
/// If an element lies outside, or `width` is another one.
pub fn copy(
    width: usize,
    [rows, columns]: [usize; 2],
    source: &[u8],
    from: Strides,
    target: &mut [u8],
    to: Strides,
) {
    if (from.column, to.column) == (1, 1) {
        let len = columns * width;
        for row in 0..rows {
            let (from, to) = (row * from.row * width, row * to.row * width);
            target[to..to + len].copy_from_slice(&source[from..from + len]);
        }
        return;
    }
    match width {
        1 => copy_elements::<1>([rows, columns], source, from, target, to),
        2 => copy_elements::<2>([rows, columns], source, from, target, to),
        4 => copy_elements::<4>([rows, columns], source, from, target, to),
        8 => copy_elements::<8>([rows, columns], source, from, target, to),
        _ => unreachable!("elements take 1, 2, 4 or 8 bytes"),
    }
}

fn copy_elements<const WIDTH: usize>(
    [rows, columns]: [usize; 2],
    source: &[u8],
    from: Strides,
    target: &mut [u8],
    to: Strides,
) {
    let source = source.as_chunks::<WIDTH>().0;
    let target = target.as_chunks_mut::<WIDTH>().0;
    for first_row in (0..rows).step_by(BLOCK) {
        let rows = first_row..rows.min(first_row + BLOCK);
        for first_column in (0..columns).step_by(BLOCK) {
            let columns = first_column..columns.min(first_column + BLOCK);
            for row in rows.clone() {
                for column in columns.clone() {
                    target[row * to.row + column * to.column] =
                        source[row * from.row + column * from.column];
                }
            }
        }
    }
}
