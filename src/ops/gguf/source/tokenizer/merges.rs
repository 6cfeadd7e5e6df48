//! Merges: which two pieces become one, the first ones first.

use super::vocabulary::Vocabulary;
use crate::error::Result;
use crate::ops::gguf::source::metadata::Metadata;

const MERGES: &str = "tokenizer.ggml.merges";

/// The longest piece whose parts are looked for, in bytes.
const MAX_PIECE_BYTES: usize = 1024;

/// The merges that metadata lists; `None` if it lists none.
///
/// # Errors
/// If one is none.
pub(super) fn listed(metadata: Metadata<'_>) -> Result<Option<Vec<(&str, &str)>>> {
    let Some(value) = metadata.get(MERGES) else {
        return Ok(None);
    };
    let Some(strings) = value.as_array().and_then(|array| array.strings()) else {
        return Err(metadata.bad(MERGES, "is no array of texts"));
    };
    let merges = strings.iter().enumerate().map(|(i, bytes)| {
        let merge = std::str::from_utf8(bytes).ok();
        let parts = merge.and_then(|merge| merge.split_once(' '));
        let is_pair = |parts: &(&str, &str)| !parts.0.is_empty() && !parts.1.contains(' ');
        let problem = || format!("has {i}, which is not two pieces with a space between");
        parts
            .filter(is_pair)
            .ok_or_else(|| metadata.bad(MERGES, &problem()))
    });
    merges.collect::<Result<_>>().map(Some)
}

/// Every two pieces of `vocabulary` that together are a piece. Of the resulting pieces those of the lowest
/// `rank` come first; ties go to the longer first part.
///
/// # Errors
/// If a piece is too long to look for its parts.
pub(super) fn implied<'a>(
    metadata: Metadata,
    vocabulary: &'a Vocabulary,
    rank: impl Fn(usize) -> f64,
) -> Result<Vec<(&'a str, &'a str)>> {
    let mut merges = Vec::new();
    for (piece, id) in vocabulary.pieces() {
        if piece.len() > MAX_PIECE_BYTES {
            let problem = format!("token {id} has more than {MAX_PIECE_BYTES} bytes");
            return Err(metadata.unmade("tokenizer.json", &problem));
        }
        for (at, _) in piece.char_indices().skip(1) {
            let (left, right) = piece.split_at(at);
            if vocabulary.id(left).is_some() && vocabulary.id(right).is_some() {
                merges.push((rank(id), left, right));
            }
        }
    }
    let length = |text: &str| std::cmp::Reverse(text.chars().count());
    merges.sort_by(|a, b| {
        let by_rank = a.0.total_cmp(&b.0);
        by_rank.then_with(|| (length(a.1), length(a.2)).cmp(&(length(b.1), length(b.2))))
    });
    Ok(merges
        .into_iter()
        .map(|(_, left, right)| (left, right))
        .collect())
}
