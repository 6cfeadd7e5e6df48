//! Numbers of bytes as people write them.

/// Units, in lower case. Like other programs, a letter alone is a power of 1024.
const UNITS: [(&str, u64); 14] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("t", 1 << 40),
    ("b", 1),
    ("", 1),
];

/// A number of bytes: `536870912`, `512MiB`, `1.5GiB`, `5GB`.
///
/// # Errors
/// What it is not, for a message.
pub fn parse_size(text: &str) -> Result<u64, String> {
    parse(text, 1)
}

/// The size of a shard: as [`parse_size`], but a number without a unit is GiB.
///
/// # Errors
/// What it is not, for a message.
pub fn parse_shard_size(text: &str) -> Result<u64, String> {
    match parse(text, 1 << 30)? {
        0 => Err("a shard size must be more than 0".to_owned()),
        bytes => Ok(bytes),
    }
}

fn parse(text: &str, without_unit: u64) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let (number, unit, bytes) = UNITS
        .iter()
        .find_map(|(unit, bytes)| Some((lower.strip_suffix(unit)?, *unit, *bytes)))
        .expect("every text ends with nothing");
    let bytes = if unit.is_empty() { without_unit } else { bytes };
    scaled(number.trim(), bytes)
        .ok_or_else(|| format!("{text:?} is not a size; write for example 512MiB, 1.5GiB or 5GB"))
}

/// `number` times `unit`; fractions are allowed.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    // Not "inf", "nan" or "1e9": only digits and a point.
    if !number.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit);
    }
    let bytes = number.parse::<f64>().ok()? * unit as f64;
    (bytes >= 0.0 && bytes < u64::MAX as f64).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_any_usual_unit() {
        for (text, bytes) in [
            ("5", 5),
            ("5B", 5),
            ("5GB", 5_000_000_000),
            ("5gb", 5_000_000_000),
            ("5GiB", 5 << 30),
            ("5G", 5 << 30),
            ("1.5 MiB", 3 << 19),
            ("2TB", 2_000_000_000_000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "GiB",
            "-1",
            "1e9",
            "inf",
            "nanGiB",
            "5 x",
            "99999999TiB",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_shard_size_without_a_unit_is_in_gib() {
        for (text, bytes) in [("5", 5 << 30), ("0.5", 1 << 29), ("5GB", 5_000_000_000)] {
            assert_eq!(parse_shard_size(text), Ok(bytes), "{text}");
        }
        assert!(parse_shard_size("0").is_err());
    }
}
