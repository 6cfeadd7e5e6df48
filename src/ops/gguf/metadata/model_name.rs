//! The parts of a model's name: organization, base name, size, finetune, version.

use std::sync::LazyLock;

use regex::Regex;

/// What is known of a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ModelName {
    /// All of it, with words in title case.
    pub full: Option<String>,
    pub organization: Option<String>,
    pub basename: Option<String>,
    pub finetune: Option<String>,
    pub version: Option<String>,
    pub size_label: Option<String>,
}

/// What a part of a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Basename,
    SizeLabel,
    Finetune,
    Version,
    Type,
}

fn regex(pattern: &str) -> Regex {
    Regex::new(&format!("^(?i:{pattern})$")).expect("a valid expression")
}

static VERSION: LazyLock<Regex> = LazyLock::new(|| regex(r"(?:v|iter)?\d+(?:[.]\d+)*"));
static TYPE: LazyLock<Regex> = LazyLock::new(|| regex(r"i?q\d(?:_\w)*|b?fp?(?:16|32)"));
static SIZE: LazyLock<Regex> = LazyLock::new(|| {
    regex(r"(?:(?:[A]|\d+[x])?\d+(?:[._]\d+)?[KMBT][\d]?|small|mini|medium|large|x?xl)")
});
static FINETUNE: LazyLock<Regex> = LazyLock::new(|| regex("chat|instruct|vision|lora"));
static VERSION_WORD: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^(v\d+(?:\.\d+)*|\d.*)$").expect("a valid expression"));

impl ModelName {
    /// The parts of `id`, the name of a model of `total` weights: `org/Name-8B-Instruct-v0.1`.
    pub(super) fn parse(id: &str, total: u64) -> Self {
        if id.contains(' ') {
            return ModelName {
                full: Some(title(id)),
                ..ModelName::default()
            };
        }
        let (organization, full) = match id.split_once('/') {
            Some((organization, full)) => (Some(organization), full),
            None => (None, id),
        };
        let organization = organization.filter(|name| !name.starts_with('.'));
        let parts = full.split('-').filter(|part| !part.is_empty());
        let mut parts: Vec<(String, Vec<Kind>)> = parts
            .enumerate()
            .map(|(i, part)| annotated(i, part, total))
            .collect();
        drop_words_beside_numbers(&mut parts);
        let mut at_start = true;
        for (part, kinds) in &mut parts {
            let is_word = kinds.is_empty() && part.starts_with(char::is_alphabetic);
            if at_start && (is_word || kinds.contains(&Kind::Version)) {
                kinds.push(Kind::Basename);
                continue;
            }
            at_start = false;
            if kinds.is_empty() {
                kinds.push(Kind::Finetune);
            }
        }
        for (_, kinds) in parts.iter_mut().rev() {
            if !kinds.contains(&Kind::Basename) || kinds.len() == 1 {
                break;
            }
            kinds.retain(|kind| *kind != Kind::Basename);
        }
        let of = |wanted: &dyn Fn(&[Kind]) -> bool| {
            let parts = parts.iter().filter(|(_, kinds)| wanted(kinds));
            let parts: Vec<&str> = parts.map(|(part, _)| &**part).collect();
            parts
        };
        let joined = |parts: Vec<&str>| Some(parts.join("-")).filter(|name| !name.is_empty());
        let mut sizes = Vec::new();
        for size in of(&|kinds| kinds.contains(&Kind::SizeLabel)) {
            if !sizes.contains(&size) {
                sizes.push(size);
            }
        }
        let size_label = joined(sizes);
        let finetune = joined(of(&|kinds| kinds.contains(&Kind::Finetune)));
        let version = joined(of(&|kinds| {
            kinds.contains(&Kind::Version) && !kinds.contains(&Kind::Basename)
        }));
        let basename = joined(of(&|kinds| kinds.contains(&Kind::Basename)));
        let is_clear = size_label.is_some() || finetune.is_some() || version.is_some();
        ModelName {
            full: Some(title(full)),
            organization: organization.map(title),
            basename: basename.filter(|_| is_clear),
            finetune,
            version,
            size_label,
        }
    }

    /// Takes from `other` what is not known yet.
    pub(super) fn complete(&mut self, other: ModelName) {
        let pairs = [
            (&mut self.full, other.full),
            (&mut self.organization, other.organization),
            (&mut self.basename, other.basename),
            (&mut self.finetune, other.finetune),
            (&mut self.version, other.version),
            (&mut self.size_label, other.size_label),
        ];
        for (ours, theirs) in pairs {
            if ours.is_none() {
                *ours = theirs;
            }
        }
    }
}

/// Part number `i` as names have it, and what it is.
fn annotated(i: usize, part: &str, total: u64) -> (String, Vec<Kind>) {
    if VERSION.is_match(part) {
        return (part.to_owned(), vec![Kind::Version]);
    }
    if TYPE.is_match(part) {
        return (part.to_uppercase(), vec![Kind::Type]);
    }
    if i > 0 && SIZE.is_match(part) {
        return size(part, total);
    }
    let is_finetune = i > 0 && FINETUNE.is_match(part);
    let kinds = is_finetune.then_some(Kind::Finetune).into_iter().collect();
    (part.to_owned(), kinds)
}

/// A part such as `8B`, `7b1` or `large`.
fn size(part: &str, total: u64) -> (String, Vec<Kind>) {
    let mut part = part.replace('_', ".");
    // bloom-7b1
    if part.ends_with(|c: char| c.is_ascii_digit()) {
        let at = part.len() - 2;
        let (unit, digit) = (part[at..=at].to_owned(), part[at + 1..].to_owned());
        part = format!("{}.{digit}{unit}", &part[..at]);
    }
    let before_last = part.len().checked_sub(2).map(|at| part.as_bytes()[at]);
    if before_last.is_some_and(|byte| byte.is_ascii_digit()) && part.ends_with(['k', 'm', 'b', 't'])
    {
        let unit = part.pop().expect("it has a unit");
        part.push(unit.to_ascii_uppercase());
    }
    let mut kind = Kind::SizeLabel;
    let (number, unit) = part.split_at(part.len() - 1);
    if total != 0
        && let Ok(number) = number.parse::<f64>()
    {
        let power = " KMBT".find(unit).map_or(-1, |power| power as i32);
        let weights = number * 1000f64.powi(power);
        if (weights - total as f64).abs() > (7 * u128::from(total) / 8) as f64 {
            // Likely the length of a context.
            kind = Kind::Finetune;
            part = format!(
                "{number_text}{}",
                unit.to_lowercase(),
                number_text = &part[..part.len() - 1]
            );
        }
    }
    (part, vec![kind])
}

/// Words such as `large` are no sizes where there is a number.
fn drop_words_beside_numbers(parts: &mut [(String, Vec<Kind>)]) {
    let is_size = |kinds: &[Kind]| kinds.contains(&Kind::SizeLabel);
    let has_digit = |part: &str| part.contains(|c: char| c.is_ascii_digit());
    if !parts
        .iter()
        .any(|(part, kinds)| is_size(kinds) && has_digit(part))
    {
        return;
    }
    for (part, kinds) in parts {
        if is_size(kinds) && part.chars().all(char::is_alphabetic) {
            kinds.retain(|kind| *kind != Kind::SizeLabel);
        }
    }
}

/// `text` as words in title case, but for those that have capitals or are versions.
pub(super) fn title(text: &str) -> String {
    let spaced = text.trim().replace('-', " ");
    let words = spaced.split_whitespace().map(|word| {
        let is_lower =
            word.chars().any(char::is_lowercase) && !word.chars().any(char::is_uppercase);
        if is_lower && !VERSION_WORD.is_match(word) {
            capitalized(word)
        } else {
            word.to_owned()
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Every letter that follows none is a capital, as Python has it.
fn capitalized(word: &str) -> String {
    let mut after_letter = false;
    let mut text = String::new();
    for c in word.chars() {
        if after_letter {
            text.push(c);
        } else {
            text.extend(c.to_uppercase());
        }
        after_letter = c.is_alphabetic();
    }
    text
}

/// The parts of `id`, a model's name on the hub, as keys have them.
pub(super) fn titled(id: &str, total: u64) -> ModelName {
    let mut name = ModelName::parse(id, total);
    name.full = name.full.map(|full| title(&full));
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_parts() {
        let parse = |id: &str, total: u64| {
            let name = ModelName::parse(id, total);
            let parts = [
                name.full,
                name.organization,
                name.basename,
                name.finetune,
                name.version,
                name.size_label,
            ];
            parts.map(|part| part.unwrap_or_default())
        };
        let llama = parse("meta-llama/Llama-3.1-8B-Instruct", 8_030_000_000);
        assert_eq!(
            llama,
            [
                "Llama 3.1 8B Instruct",
                "Meta Llama",
                "Llama-3.1",
                "Instruct",
                "",
                "8B"
            ]
        );
        let mistral = parse("Mistral-7B-Instruct-v0.3", 7_250_000_000);
        assert_eq!(
            mistral,
            [
                "Mistral 7B Instruct v0.3",
                "",
                "Mistral",
                "Instruct",
                "v0.3",
                "7B"
            ]
        );
        assert_eq!(parse("smollm2", 0), ["Smollm2", "", "", "", "", ""]);
        // Far from the size of the model: the length of a context.
        let long = parse("qwen-7b-chat-128k", 7_000_000_000);
        assert_eq!(
            long,
            ["Qwen 7b Chat 128k", "", "qwen", "chat-128k", "", "7B"]
        );
        assert_eq!(parse("a model", 0)[0], "A Model");
    }
}
