//! Sharing a view out to machines: the shards are dealt to parts, each of which can be written by
//! itself, and what is left is written when the parts are put together.

use std::cmp::Reverse;
use std::path::Path;

use crate::error::setting::{PART, SHA256};
use crate::error::{Code, Error, Hint, Result};

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

/// Which shards of each part are complete.
#[derive(Debug)]
pub(super) struct Seen {
    /// By the number of the part.
    complete: Vec<usize>,
    all: Vec<usize>,
    unsummed: Vec<usize>,
}

impl Seen {
    /// None of so many parts.
    pub(super) fn new(parts: usize) -> Self {
        Seen {
            complete: vec![0; parts + 1],
            all: vec![0; parts + 1],
            unsummed: Vec::new(),
        }
    }

    /// A shard of `part`. If it is complete, `summed` says whether its checksum is known.
    pub(super) fn add(&mut self, part: usize, summed: Option<bool>) {
        self.all[part] += 1;
        self.complete[part] += usize::from(summed.is_some());
        if summed == Some(false) && !self.unsummed.contains(&part) {
            self.unsummed.push(part);
        }
    }

    /// # Errors
    /// If a part is not complete, or lacks checksums that are wanted; all such parts are named.
    /// `shown` is where they are written, `again` how such checksums are had, and `is_begun` says whether a
    /// part was.
    pub(super) fn check(
        &self,
        shown: &Path,
        sha256: bool,
        again: &'static str,
        is_begun: impl Fn(usize) -> bool,
    ) -> Result<()> {
        let parts = self.all.len() - 1;
        let refuse = |problem: String| Error::of_file(Code::PartsIncomplete, shown, problem);
        let lacking = (1..=parts).filter(|part| self.complete[*part] < self.all[*part]);
        let lacking: Vec<String> = lacking
            .map(|part| {
                if is_begun(part) {
                    let (complete, all) = (self.complete[part], self.all[part]);
                    format!("{part} ({complete} of {all} shards)")
                } else {
                    format!("{part} (not begun)")
                }
            })
            .collect();
        if !lacking.is_empty() {
            let problem = format!(
                "of {parts} parts, these are not complete: {}",
                lacking.join(", ")
            );
            let write = Hint::give(PART).to("write them").and("finish then");
            return Err(refuse(problem).with_hint(write));
        }
        if sha256 && !self.unsummed.is_empty() {
            let numbers: Vec<String> = self.unsummed.iter().map(usize::to_string).collect();
            let problem = format!(
                "these parts were written without checksums: {}",
                numbers.join(", ")
            );
            let again = Hint::give(SHA256).to(again);
            return Err(refuse(problem).with_hint(again));
        }
        Ok(())
    }
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
