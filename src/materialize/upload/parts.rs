//! How an object is cut into the parts that it is sent in.

use std::ops::Range;

/// Parts have at least as many bytes, but the last. Ranges of this size, from its multiples on, are also
/// what stores are read by fastest.
pub(super) const MIN_PART: u64 = 8 << 20;

/// The most parts of an object.
const MAX_PARTS: u64 = 10_000;

/// The bytes that each part of an object of `len` bytes has, but the last: some stores want all the same.
pub(super) fn part_len(len: u64) -> u64 {
    const MIB: u64 = 1 << 20;
    MIN_PART.max(len.div_ceil(MAX_PARTS).next_multiple_of(MIB))
}

/// The number of parts, at least one.
pub(super) fn count(len: u64) -> usize {
    len.div_ceil(part_len(len)).max(1) as usize
}

/// The bytes of part number `index`.
pub(super) fn range(len: u64, index: usize) -> Range<u64> {
    let start = index as u64 * part_len(len);
    start..len.min(start + part_len(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_equal_but_the_last_and_no_more_than_stores_take() {
        for len in [
            0,
            1,
            MIN_PART,
            MIN_PART + 1,
            5 << 30,
            MIN_PART * MAX_PARTS,
            MIN_PART * MAX_PARTS + 1,
            48 << 40,
        ] {
            let count = count(len);
            assert!((1..=MAX_PARTS).contains(&(count as u64)), "{len}");
            let ranges: Vec<Range<u64>> = (0..count).map(|index| range(len, index)).collect();
            assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert_eq!(ranges.last().unwrap().end, len);
            let (last, others) = ranges.split_last().unwrap();
            let is_whole = |range: &Range<u64>| range.end - range.start == part_len(len);
            assert!(others.iter().all(is_whole) && last.end - last.start <= part_len(len));
        }
    }
}
