//! Paths and ranges against naive accounts of them, for any input.

use std::sync::LazyLock;

use ckptfs::serve::RepoName;
use ckptfs::serve::ranges::{Requested, requested};
use ckptfs::serve::routes::{Api, Route, decoded, route};
use proptest::prelude::*;
use regex::Regex;

use crate::fixture::NAME;

/// What RFC 9110 says of a header `Range` with one range, in 128 bits and regular expressions.
fn naive_range(header: &str, len: u64) -> Requested {
    static GRAMMAR: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^(?i:bytes)=[ \t,]*(?:([0-9]+)-([0-9]*)|-([0-9]+))[ \t,]*$").unwrap()
    });
    let Some(found) = GRAMMAR.captures(header.trim_matches([' ', '\t'])) else {
        return Requested::Whole;
    };
    let past_all = u128::from(u64::MAX);
    let number = |group: usize| {
        let digits = found.get(group)?.as_str();
        let digits = digits.trim_start_matches('0');
        match digits.len() {
            0 if found.get(group)?.as_str().is_empty() => None,
            0 => Some(0),
            1..=30 => Some(digits.parse::<u128>().unwrap().min(past_all)),
            _ => Some(past_all),
        }
    };
    let len = u128::from(len);
    let (first, last) = match (number(1), number(2), number(3)) {
        (Some(first), Some(last), _) if first > last => return Requested::Whole,
        (Some(first), last, _) => (first, last.unwrap_or(len).min(len.saturating_sub(1))),
        (None, _, Some(0)) => return Requested::Unsatisfiable,
        (None, _, Some(_)) if len == 0 => return Requested::Whole,
        (None, _, Some(suffix)) => (len.saturating_sub(suffix), len - 1),
        (None, ..) => unreachable!("the grammar has one of them"),
    };
    match first < len {
        true => Requested::Part(first as u64..last as u64 + 1),
        false => Requested::Unsatisfiable,
    }
}

fn header() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        Just(String::new()),
        (0..40_u64).prop_map(|n| n.to_string()),
        any::<u64>().prop_map(|n| n.to_string()),
        "[0-9]{1,40}",
    ];
    let range = (number.clone(), number).prop_map(|(first, last)| format!("{first}-{last}"));
    prop_oneof![
        8 => range.clone().prop_map(|range| format!("bytes={range}")),
        2 => (range, "[ \t,]{0,3}", "[ \t,]{0,3}").prop_map(|(r, a, b)| format!("Bytes={a}{r}{b}")),
        1 => "bytes=[-0-9, a=]{0,12}",
        1 => "[ -~]{0,20}",
    ]
}

/// The bytes that `text` encodes, found by looking at each position for itself.
fn naive_decoded(text: &str) -> Option<Vec<u8>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let bytes = text.as_bytes();
    let (first, used) = match bytes[0] {
        b'%' => {
            let digits = bytes.get(1..3)?;
            if !digits.iter().all(u8::is_ascii_hexdigit) {
                return None;
            }
            let digits = std::str::from_utf8(digits).unwrap();
            (u8::from_str_radix(digits, 16).unwrap(), 3)
        }
        byte => (byte, 1),
    };
    let mut decoded = vec![first];
    // What is left begins at a border of characters: an encoding is of ASCII.
    let rest = String::from_utf8_lossy(&bytes[used..]);
    decoded.extend(naive_decoded(&rest)?);
    Some(decoded)
}

fn path() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        4 => "[a-c]{1,3}",
        1 => Just("..".to_owned()),
        1 => Just(".".to_owned()),
        1 => Just(String::new()),
        1 => Just("%2e%2E".to_owned()),
        1 => Just("a%2Fb".to_owned()),
        1 => Just("%00".to_owned()),
        1 => "[ -~&&[^/?#]]{0,8}",
        1 => "(%[0-9a-f]{2}){1,4}",
    ];
    let start = prop_oneof![
        Just("/".to_owned()),
        Just("/org/model/resolve/main/".to_owned()),
        Just("/api/models/org/model/tree/main/".to_owned()),
        Just(String::new()),
    ];
    let segments = prop::collection::vec(segment, 0..6);
    (start, segments).prop_map(|(start, segments)| start + &segments.join("/"))
}

proptest! {
    #[test]
    fn a_range_is_what_the_rfc_says(header in header(), len in prop_oneof![0..50_u64, any::<u64>()]) {
        prop_assert_eq!(requested(header.as_bytes(), len), naive_range(&header, len));
    }

    #[test]
    fn any_bytes_are_a_range_inside_of_the_file_or_none(header in any::<Vec<u8>>(), len in any::<u64>()) {
        if let Requested::Part(range) = requested(&header, len) {
            prop_assert!(range.start < range.end && range.end <= len);
        }
    }

    #[test]
    fn encodings_are_decoded_byte_by_byte(text in "([a%/]|%[0-9a-fA-F]{2}|%[g-z]|%)*") {
        prop_assert_eq!(decoded(&text), naive_decoded(&text));
    }

    #[test]
    fn a_path_that_names_something_of_the_view_has_only_plain_names(raw in path()) {
        let name = RepoName::parse(NAME).unwrap();
        let path = match route(&raw, &name) {
            Route::Entry { path, .. } | Route::Api(Api::Tree { path, .. }) => path,
            _ => return Ok(()),
        };
        if !path.is_empty() {
            for part in path.split(|&byte| byte == b'/') {
                prop_assert!(!matches!(part, b"" | b"." | b".."), "{raw:?}");
                prop_assert!(!part.contains(&0), "{raw:?}");
            }
        }
        // It is what the URL says, and nothing was resolved.
        let mut whole = naive_decoded(&raw).unwrap();
        if whole.ends_with(b"/") {
            whole.pop();
        }
        prop_assert!(whole.ends_with(&path) || path.is_empty(), "{raw:?} {path:?}");
    }

    #[test]
    fn any_text_is_a_route(raw in any::<String>()) {
        let name = RepoName::parse(NAME).unwrap();
        route(&raw, &name);
    }

    #[test]
    fn any_name_of_a_source_gives_a_name_that_clients_take(source in any::<String>()) {
        let name = RepoName::of_source(&source);
        prop_assert_eq!(RepoName::parse(name.as_str()), Ok(name.clone()));
    }
}

#[test]
fn names_are_those_that_clients_take() {
    for name in ["a", "org/model", "Qwen/Qwen3-0.6B", "a_b/c.d-e"] {
        assert_eq!(RepoName::parse(name).unwrap().as_str(), name);
    }
    let long = "x".repeat(97);
    for name in [
        "", "/", "a/", "/a", "a/b/c", "a b", "a--b", "a..b", "-a", "a.", "api/x", "a.git", "ü",
        &long,
    ] {
        assert!(RepoName::parse(name).is_err(), "{name}");
    }
    assert_eq!(
        RepoName::of_source("gemma-3 270m").as_str(),
        "ckptfs/gemma-3-270m"
    );
    assert_eq!(RepoName::of_source("..").as_str(), "ckptfs/view");
}
