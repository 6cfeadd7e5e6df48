//! The known name that was most likely meant by one that is not known.

/// The one of `known` that is spelled most like `word`, if it is hardly different: letters left out,
/// added, exchanged or in another order, one for each three that there are.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distances = known
        .into_iter()
        .map(|name| (strsim::osa_distance(word, name), name));
    let (distance, name) = distances.min_by_key(|(distance, _)| *distance)?;
    let allowed = (word.chars().count().max(name.chars().count()) / 3).max(1);
    (distance <= allowed && distance < name.chars().count()).then_some(name)
}

/// " (did you mean weight?)", to be added to a message about `word`; nothing if no name is near.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known).map_or(String::new(), |name| format!(" (did you mean {name}?)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_near_if_few_letters_are_wrong() {
        let known = ["weight", "normalize", "t", "density"];
        for (word, expected) in [
            ("wieght", Some("weight")),
            ("weigth", Some("weight")),
            ("weights", Some("weight")),
            ("normalise", Some("normalize")),
            ("Density", Some("density")),
            ("gamma", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }
}
