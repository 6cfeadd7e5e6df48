//! Sharing a view out to machines: the shards are dealt to parts, each of which can be written by
//! itself, and what is left is written when the parts are put together.

use std::cmp::Reverse;

use crate::error::{Code, Error, Result};

/// Part `number` of `count`, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    number: usize,
    count: usize,
}

impl Part {
    /// The most parts.
    const MOST: usize = 99_999;

    /// # Errors
    /// If there is no such part.
    pub fn new(number: usize, count: usize) -> Result<Self> {
        if number == 0 || number > count || count > Self::MOST {
            return Err(Error::new(
                Code::BadValue,
                format!(
                    "there is no part {number} of {count}: parts count from 1, and there can be {}",
                    Self::MOST
                ),
            ));
        }
        Ok(Part { number, count })
    }

    pub fn number(self) -> usize {
        self.number
    }

    /// The number of parts.
    pub fn count(self) -> usize {
        self.count
    }
}

/// Which part each of the shards is in, given their lengths: the largest first, each goes to the
/// part that has the fewest bytes so far, the first of several. No part then has more than the
/// fair share and one shard.
pub(super) fn deal(lengths: &[u64], parts: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|shard| Reverse(lengths[*shard]));
    let mut bytes = vec![0; parts];
    let mut part_of = vec![0; lengths.len()];
    for shard in order {
        let least = (0..parts).min_by_key(|part| bytes[*part]);
        let part = least.expect("there is a part");
        bytes[part] += lengths[shard];
        part_of[shard] = part + 1;
    }
    part_of
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_of_one_size_are_dealt_evenly() {
        let part_of = deal(&[5; 10], 4);
        let count = |part| part_of.iter().filter(|p| **p == part).count();
        assert_eq!([1, 2, 3, 4].map(count), [3, 3, 2, 2]);
    }

    #[test]
    fn no_part_has_more_than_its_share_and_one_shard() {
        let lengths: Vec<u64> = (0..97).map(|i| i * i * 31 % 1009).collect();
        for parts in 1..120 {
            let part_of = deal(&lengths, parts);
            let share = lengths.iter().sum::<u64>() / parts as u64;
            let largest = *lengths.iter().max().unwrap();
            for part in 1..=parts {
                let shards = lengths.iter().zip(&part_of).filter(|(_, p)| **p == part);
                let bytes: u64 = shards.map(|(length, _)| length).sum();
                assert!(bytes <= share + largest, "part {part} of {parts}");
            }
            assert!(part_of.iter().all(|part| (1..=parts).contains(part)));
        }
    }

    #[test]
    fn parts_that_cannot_be_are_refused() {
        for (number, of) in [(0, 1), (2, 1), (0, 0), (1, 100_000)] {
            assert!(Part::new(number, of).is_err(), "{number}/{of}");
        }
        assert!(Part::new(8, 8).is_ok());
    }
}
