//! How the elements of a tensor lie in memory: by strides, as torch and NumPy have them.

/// A dimension: how many indices it has, and how many elements it is from one to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axis {
    pub len: u64,
    pub stride: u64,
}

/// Whether elements at `strides` follow each other in row-major order without holes. Strides of dimensions with
/// one index say nothing, and a tensor without elements is in order.
pub fn is_contiguous(shape: &[u64], strides: &[u64]) -> bool {
    let mut expected = 1u64;
    for (&len, &stride) in shape.iter().zip(strides).rev() {
        match len {
            0 => return true,
            1 => {}
            _ if stride != expected => return shape.contains(&0),
            _ => expected = expected.saturating_mul(len),
        }
    }
    true
}

/// The same elements with as few axes as can be: those of one index are left out, and neighbours that
/// continue each other are one.
pub fn merged_axes(shape: &[u64], strides: &[u64]) -> Vec<Axis> {
    let mut axes: Vec<Axis> = Vec::with_capacity(shape.len());
    for (&len, &stride) in shape.iter().zip(strides) {
        match axes.last_mut() {
            _ if len == 1 => {}
            Some(last) if stride.checked_mul(len) == Some(last.stride) => {
                *last = Axis {
                    len: last.len.saturating_mul(len),
                    stride,
                }
            }
            _ => axes.push(Axis { len, stride }),
        }
    }
    axes
}

/// From the first element to the last, how many there are at these places; `None` if that does not fit in 64
/// bits.
pub fn elements_spanned(shape: &[u64], strides: &[u64]) -> Option<u64> {
    if shape.contains(&0) {
        return Some(0);
    }
    let mut dimensions = shape.iter().zip(strides);
    let last = dimensions.try_fold(0u64, |last, (len, stride)| {
        last.checked_add((len - 1).checked_mul(*stride)?)
    })?;
    last.checked_add(1)
}
