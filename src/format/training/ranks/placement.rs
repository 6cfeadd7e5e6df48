//! Which part of a tensor a rank has, as torch's DTensor defines it.

/// Where the part of the rank at `coordinates` of a mesh with these `sizes` begins, and how long it is, for each
/// dimension of `shape`. Each axis of the mesh cuts what those before it leave along a dimension, or nothing.
///
/// A dimension of n is cut as by `torch.chunk`: ⌈n/W⌉ for each, of which the last ones have fewer, or none.
pub(super) fn part(
    shape: &[u64],
    placements: &[Option<usize>],
    coordinates: &[u64],
    sizes: &[u64],
) -> (Vec<u64>, Vec<u64>) {
    let mut offsets = vec![0; shape.len()];
    let mut lens = shape.to_vec();
    for ((placement, &at), &size) in placements.iter().zip(coordinates).zip(sizes) {
        let Some(axis) = *placement else { continue };
        let share = lens[axis].div_ceil(size);
        let start = share.saturating_mul(at).min(lens[axis]);
        offsets[axis] += start;
        lens[axis] = share.min(lens[axis] - start);
    }
    (offsets, lens)
}

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn the_last_ranks_have_fewer_rows_or_none() {
        let of = |rank| part(&[5, 2], &[Some(0)], &[rank], &[4]);
        assert_eq!(of(0), (vec![0, 0], vec![2, 2]));
        assert_eq!(of(2), (vec![4, 0], vec![1, 2]));
        assert_eq!(of(3), (vec![5, 0], vec![0, 2]));
    }

    #[test]
    fn axes_cut_what_those_before_leave() {
        let of = |at: [u64; 2]| part(&[10], &[Some(0), Some(0)], &at, &[2, 3]);
        assert_eq!(of([0, 2]), (vec![4], vec![1]));
        assert_eq!(of([1, 0]), (vec![5], vec![2]));
        let replicated = part(&[6, 4], &[None, Some(1)], &[1, 1], &[2, 2]);
        assert_eq!(replicated, (vec![0, 2], vec![6, 2]));
    }
}
