//! Patterns of names, as the tables write them: parts between dots, of which `#` is any number.
//! A pattern matches whole parts anywhere in a name; one that begins with `^` matches at its start only.

/// Where a pattern matches a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found<'n> {
    /// What is before the match, with the dot.
    pub before: &'n str,
    /// The numbers that `#` stands for, in order.
    pub numbers: Vec<&'n str>,
    /// What follows the match, with the dot.
    pub after: &'n str,
}

/// The first match of `pattern` in `name`.
pub(super) fn find<'n>(pattern: &str, name: &'n str) -> Option<Found<'n>> {
    let (is_first, pattern) = match pattern.strip_prefix('^') {
        Some(pattern) => (true, pattern),
        None => (false, pattern),
    };
    let dots = name.match_indices('.').map(|(dot, _)| dot + 1);
    let mut starts = std::iter::once(0).chain(dots.filter(|_| !is_first));
    starts.find_map(|start| {
        let (numbers, len) = match_at(pattern, &name[start..])?;
        Some(Found {
            before: &name[..start],
            numbers,
            after: &name[start + len..],
        })
    })
}

/// The match of `pattern` at the end of `name`.
pub(super) fn find_at_end<'n>(pattern: &str, name: &'n str) -> Option<Found<'n>> {
    let parts = pattern.split('.').count();
    let dots = name.rmatch_indices('.').map(|(dot, _)| dot + 1);
    let start = dots.chain(std::iter::once(0)).nth(parts - 1)?;
    let (numbers, _) = match_at(pattern, &name[start..])?;
    Some(Found {
        before: &name[..start],
        numbers,
        after: "",
    })
}

/// The numbers and the length of a match at the start of `name`.
fn match_at<'n>(pattern: &str, name: &'n str) -> Option<(Vec<&'n str>, usize)> {
    let mut numbers = Vec::new();
    let mut len = 0;
    let mut parts = name.split('.');
    for (i, expected) in pattern.split('.').enumerate() {
        let part = parts.next()?;
        match expected {
            "#" if is_number(part) => numbers.push(part),
            _ if part == expected => {}
            _ => return None,
        }
        len += part.len() + usize::from(i > 0);
    }
    Some((numbers, len))
}

/// Whether `part` is a number as one is written: without zeros before it.
fn is_number(part: &str) -> bool {
    part.parse::<u32>()
        .is_ok_and(|number| number.to_string() == part)
}

/// `pattern` with `numbers` for its `#`.
pub(super) fn filled(pattern: &str, numbers: &[&str]) -> String {
    let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
    let mut numbers = numbers.iter();
    let parts = pattern.split('.').map(|part| match part {
        "#" => numbers.next().expect("both sides have as many numbers"),
        part => part,
    });
    parts.collect::<Vec<_>>().join(".")
}

/// `name` with the first match of `from` replaced by `to`.
pub(super) fn replaced(name: &str, from: &str, to: &str) -> Option<String> {
    let found = find(from, name)?;
    let new = filled(to, &found.numbers);
    Some(format!("{}{new}{}", found.before, found.after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_parts_are_replaced_at_their_first_place() {
        let cases = [
            ("a.b.c.b.d", "b", "x", Some("a.x.c.b.d")),
            ("a.b.c", "b.c", "x.y.z", Some("a.x.y.z")),
            ("a.bb.c", "b", "x", None),
            ("a.b.c", "^b", "x", None),
            ("b.c", "^b", "^x.y", Some("x.y.c")),
            (
                "layers.7.f.w",
                "layers.#.f",
                "layers.#.g.h",
                Some("layers.7.g.h.w"),
            ),
            ("layers.x.f", "layers.#.f", "y", None),
            ("layers.07.f", "layers.#.f", "y", None),
            ("a", "a.b", "y", None),
        ];
        for (name, from, to, expected) in cases {
            assert_eq!(
                replaced(name, from, to).as_deref(),
                expected,
                "{name} {from}"
            );
        }
    }

    #[test]
    fn a_weight_is_found_by_the_end_of_its_name() {
        let name = "m.experts.3.w1.weight";
        let found = find_at_end("experts.#.w1.weight", name).unwrap();
        assert_eq!((found.before, &found.numbers[..]), ("m.", &["3"][..]));
        assert_eq!(find_at_end("w1.weight", "w1.weight").unwrap().before, "");
        for pattern in [
            "experts.#.w1",
            "experts.#.w2.weight",
            "a.m.experts.#.w1.weight",
        ] {
            assert_eq!(find_at_end(pattern, name), None, "{pattern}");
        }
    }
}
