//! Names that differ only by numbers between dots, seen as one.

use std::collections::BTreeSet;
use std::fmt;

/// A name with its numbers taken out, and which numbers were seen in their places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// The name, with [`HOLE`] for each number.
    shape: String,
    numbers: Vec<BTreeSet<u64>>,
}

/// Stands for a number: as every 0 is taken for one, this stands for nothing else.
const HOLE: &str = "0";

/// What a name is without its numbers.
pub(super) fn shape(name: &str) -> String {
    let mut shape = String::with_capacity(name.len());
    for (i, part) in name.split('.').enumerate() {
        if i > 0 {
            shape.push('.');
        }
        shape.push_str(if number(part).is_some() { HOLE } else { part });
    }
    shape
}

/// The same for people: `model.layers.*.weight`.
pub(super) fn starred(name: &str) -> String {
    let parts = name
        .split('.')
        .map(|part| number(part).map_or(part, |_| "*"));
    parts.collect::<Vec<_>>().join(".")
}

/// A number as layers and experts are counted: digits without a zero in front.
fn number(part: &str) -> Option<u64> {
    let is_plain = part.bytes().all(|byte| byte.is_ascii_digit());
    let is_plain = is_plain && (part == "0" || !part.starts_with('0'));
    part.parse().ok().filter(|_| is_plain)
}

fn numbers(name: &str) -> impl Iterator<Item = u64> {
    name.split('.').filter_map(number)
}

impl Pattern {
    /// The pattern that is the name `name`.
    pub fn from_name(name: &str) -> Self {
        Pattern {
            shape: shape(name),
            numbers: numbers(name)
                .map(|number| BTreeSet::from([number]))
                .collect(),
        }
    }

    /// Adds a name of the same shape.
    pub fn add(&mut self, name: &str) {
        for (seen, number) in self.numbers.iter_mut().zip(numbers(name)) {
            seen.insert(number);
        }
    }

    /// The name without its numbers.
    pub fn shape(&self) -> &str {
        &self.shape
    }
}

/// `model.layers.{0..47}.mlp.weight`; `{0,3,7}` where numbers are few or have gaps.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        const LISTED: usize = 4;
        let mut numbers = self.numbers.iter();
        for (i, part) in self.shape.split('.').enumerate() {
            if i > 0 {
                f.write_str(".")?;
            }
            let seen = match part {
                HOLE => numbers.next(),
                _ => None,
            };
            let Some(seen) = seen else {
                f.write_str(part)?;
                continue;
            };
            let (first, last) = (seen.first().unwrap_or(&0), seen.last().unwrap_or(&0));
            let count = seen.len() as u64;
            match count {
                1 => write!(f, "{first}")?,
                _ if last - first + 1 == count => write!(f, "{{{first}..{last}}}")?,
                _ if seen.len() <= LISTED => {
                    let listed: Vec<String> = seen.iter().map(u64::to_string).collect();
                    write!(f, "{{{}}}", listed.join(","))?;
                }
                _ => write!(f, "{{{count} of {first}..{last}}}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(names: &[&str]) -> String {
        let mut pattern = Pattern::from_name(names[0]);
        for name in &names[1..] {
            assert_eq!(shape(name), pattern.shape());
            pattern.add(name);
        }
        pattern.to_string()
    }

    #[test]
    fn numbers_are_folded_and_nothing_else() {
        assert_eq!(
            pattern(&["a.0.b.3.w", "a.1.b.3.w", "a.2.b.3.w"]),
            "a.{0..2}.b.3.w"
        );
        assert_eq!(pattern(&["a.7", "a.0", "a.2"]), "a.{0,2,7}");
        assert_eq!(
            pattern(&["a.0", "a.2", "a.4", "a.6", "a.8"]),
            "a.{5 of 0..8}"
        );
        assert_eq!(pattern(&["a.00.é.*.b2"]), "a.00.é.*.b2");
        assert_eq!(pattern(&["*.5", "*.6"]), "*.{5..6}");
    }
}
