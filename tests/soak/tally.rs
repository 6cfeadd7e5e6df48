//! Counts of reads.

use std::fmt::{self, Write};
use std::str::FromStr;

use crate::reads::WAYS;

/// Reads and bytes, by way of reading.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally([Count; WAYS.len()]);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    reads: u64,
    bytes: u64,
}

impl Tally {
    /// Counts a read of `bytes` by the way of number `way`.
    pub(crate) fn count(&mut self, way: usize, bytes: u64) {
        self.0[way].reads += 1;
        self.0[way].bytes += bytes;
    }

    pub(crate) fn add(&mut self, other: &Tally) {
        for (sum, count) in self.0.iter_mut().zip(&other.0) {
            sum.reads += count.reads;
            sum.bytes += count.bytes;
        }
    }

    pub(crate) fn reads(&self) -> u64 {
        self.0.iter().map(|count| count.reads).sum()
    }

    fn bytes(&self) -> u64 {
        self.0.iter().map(|count| count.bytes).sum()
    }

    /// A line for every way.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, reads: u64, bytes: u64| {
            let gigabytes = bytes as f64 / 1e9;
            writeln!(text, "{name:<28} {reads:>12} reads {gigabytes:>10.1} GB").unwrap();
        };
        for (way, count) in WAYS.iter().zip(&self.0) {
            line(way.name, count.reads, count.bytes);
        }
        line("all", self.reads(), self.bytes());
        text
    }

    /// The counts in a line, to be parsed again.
    pub(crate) fn to_line(&self) -> String {
        let counts = self.0.iter().flat_map(|count| [count.reads, count.bytes]);
        let words: Vec<String> = counts.map(|number| number.to_string()).collect();
        words.join(" ")
    }
}

impl FromStr for Tally {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let words = line.split(' ').map(str::parse);
        let numbers: Result<Vec<u64>, _> = words.collect();
        let numbers = numbers.map_err(|e| format!("{line:?}: {e}"))?;
        let counts: Vec<Count> = numbers
            .as_chunks()
            .0
            .iter()
            .map(|&[reads, bytes]| Count { reads, bytes })
            .collect();
        let counts = counts
            .try_into()
            .map_err(|_| format!("{line:?}: other counts"))?;
        Ok(Tally(counts))
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gigabytes = self.bytes() as f64 / 1e9;
        write!(f, "{} reads, {gigabytes:.1} GB", self.reads())
    }
}
