//! Numbers and lists in sentences.

/// `1 shard`, `2 shards`.
pub fn counted(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

/// `1 shard is`, `2 shards are`.
pub fn are(count: usize, noun: &str) -> String {
    let verb = if count == 1 { "is" } else { "are" };
    format!("{} {verb}", counted(count, noun))
}

/// `1 shard has`, `2 shards have`.
pub fn have(count: usize, noun: &str) -> String {
    let verb = if count == 1 { "has" } else { "have" };
    format!("{} {verb}", counted(count, noun))
}

/// The share that `part` is of `whole`, in whole percent: `0 %` and `100 %` only if it is none and
/// all.
pub fn percent(part: u64, whole: u64) -> String {
    let percent = u128::from(part) * 100 / u128::from(whole.max(1));
    match percent {
        0 if part > 0 => "less than 1 %".to_owned(),
        _ => format!("{percent} %"),
    }
}

/// A few of `names`, for a warning.
pub fn listing<S: AsRef<str>>(names: &[S]) -> String {
    const SHOWN: usize = 4;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    match names.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{}, and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular_and_all_other_numbers_are_plural() {
        let counted: Vec<String> = [0, 1, 2].map(|n| counted(n, "other file")).into();
        assert_eq!(counted, ["0 other files", "1 other file", "2 other files"]);
        let verbs = [
            are(1, "shard"),
            are(2, "shard"),
            have(1, "tensor"),
            have(0, "tensor"),
        ];
        let expected = [
            "1 shard is",
            "2 shards are",
            "1 tensor has",
            "0 tensors have",
        ];
        assert_eq!(verbs, expected);
    }

    #[test]
    fn a_share_is_none_or_all_only_if_it_is() {
        let cases = [
            (0, 10, "0 %"),
            (1, 1000, "less than 1 %"),
            (1, 100, "1 %"),
            (999, 1000, "99 %"),
            (u64::MAX, u64::MAX, "100 %"),
            (0, 0, "0 %"),
        ];
        for (part, whole, expected) in cases {
            assert_eq!(percent(part, whole), expected, "{part} of {whole}");
        }
    }
}
