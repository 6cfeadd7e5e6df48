//! The header `Range`: which bytes of a file a client asks for (RFC 9110, section 14).

use std::ops::Range;

/// Which bytes to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requested {
    /// The whole file: no range is asked for, or in a way that does not have to be understood.
    Whole,
    /// These bytes, at least one.
    Part(Range<u64>),
    /// None of the bytes asked for are in the file.
    Unsatisfiable,
}

/// The bytes of a file of `len` bytes that the value `header` asks for.
///
/// Another unit, wrong syntax and several ranges at once are answered with the whole file, as the RFC
/// allows.
pub fn requested(header: &[u8], len: u64) -> Requested {
    let Some(set) = ranges_of_bytes(header) else {
        return Requested::Whole;
    };
    let mut ranges = set
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|range| !range.is_empty());
    let (Some(range), None) = (ranges.next(), ranges.next()) else {
        return Requested::Whole;
    };
    let Some(dash) = range.iter().position(|&byte| byte == b'-') else {
        return Requested::Whole;
    };
    match (number(&range[..dash]), number(&range[dash + 1..])) {
        (Number::Is(first), Number::Is(last)) if first > last => Requested::Whole,
        (Number::Is(first), _) if first >= len && range_is_valid(range, dash) => {
            Requested::Unsatisfiable
        }
        (Number::Is(first), Number::Is(last)) => {
            Requested::Part(first..len.min(last.saturating_add(1)))
        }
        (Number::Is(first), Number::None) => Requested::Part(first..len),
        (Number::None, Number::Is(0)) => Requested::Unsatisfiable,
        // Of an empty file, all is sent that it has.
        (Number::None, Number::Is(_)) if len == 0 => Requested::Whole,
        (Number::None, Number::Is(suffix)) => Requested::Part(len.saturating_sub(suffix)..len),
        _ => Requested::Whole,
    }
}

/// What follows `bytes=`.
fn ranges_of_bytes(header: &[u8]) -> Option<&[u8]> {
    let header = header.trim_ascii();
    let equals = header.iter().position(|&byte| byte == b'=')?;
    let unit = &header[..equals];
    unit.eq_ignore_ascii_case(b"bytes")
        .then(|| &header[equals + 1..])
}

#[derive(Debug, PartialEq, Eq)]
enum Number {
    None,
    /// At most `u64::MAX`: a larger one is past the end of any file, too.
    Is(u64),
    Wrong,
}

fn number(digits: &[u8]) -> Number {
    if digits.is_empty() {
        return Number::None;
    }
    if !digits.iter().all(u8::is_ascii_digit) {
        return Number::Wrong;
    }
    let add = |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add((digit - b'0').into());
    Number::Is(digits.iter().fold(0, add))
}

/// Whether what follows the dash is a number or nothing.
fn range_is_valid(range: &[u8], dash: usize) -> bool {
    number(&range[dash + 1..]) != Number::Wrong
}
