//! tokenizer.model: pieces, scores and types of SentencePiece.
//!
//! | field of the message | what |
//! |---|---|
//! | 1, repeated | a piece: 1 text, 2 score (f32), 3 type (1 without it) |
//!
//! Source: <https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto>.

use serde_json::{Map, Value as Json};

use crate::error::{Code, Error, Result};
use crate::ops::gguf::files::Files;
use crate::ops::gguf::tokenizer::vocabulary::{
    ADDED_FILE, TOKENIZER_MODEL, TokenType, Vocabulary, added_type, user_defined,
};

/// A piece of the model.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    text: Vec<u8>,
    score: f32,
    /// By the numbers of the format, which those of GGUF are too.
    kind: u64,
}

/// The most tokens that a model may have.
const MAX_TOKENS: u64 = 1 << 24;

/// The vocabulary, of `size` tokens if that is known; those without a piece stand for nothing.
pub(super) fn vocabulary(
    files: Files,
    tokenizer_config: Option<&Map<String, Json>>,
    size: Option<u64>,
) -> Result<Vocabulary> {
    let pieces = pieces(files)?;
    let size = match size {
        Some(size) if size > MAX_TOKENS => {
            let problem = format!("its vocab_size is {size}; at most {MAX_TOKENS} are read");
            return Err(Error::of_file(Code::OverLimit, files.directory(), problem));
        }
        Some(size) if size > 0 => size as usize,
        _ => pieces.len(),
    };
    let mut vocabulary = Vocabulary::default();
    for i in 0..size {
        match pieces.get(i) {
            Some(piece) => {
                let kind = match piece.kind {
                    2 => TokenType::Unknown,
                    3 => TokenType::Control,
                    5 => TokenType::Unused,
                    6 => TokenType::Byte,
                    // User-defined ones too, until the tokenizer's files name them.
                    _ => TokenType::Normal,
                };
                vocabulary.push(piece.text.clone(), kind);
                vocabulary.scores.push(piece.score);
            }
            None => {
                vocabulary.push(format!("[PAD{i}]"), TokenType::Unused);
                vocabulary.scores.push(-10000.0);
            }
        }
    }
    let mut replace = |id: u64, token: String, kind: TokenType| {
        let id = id as usize;
        if id < size {
            vocabulary.tokens[id] = token.into_bytes();
            vocabulary.scores[id] = -1000.0;
            vocabulary.types[id] = kind as i32;
        }
    };
    for (token, id) in files.object(ADDED_FILE)?.iter().flatten() {
        if let Some(id) = id.as_u64() {
            replace(id, token.clone(), TokenType::UserDefined);
        }
    }
    let added = tokenizer_config.and_then(|config| config.get("added_tokens_decoder"));
    for (id, token) in added.and_then(Json::as_object).into_iter().flatten() {
        let content = token.get("content").and_then(Json::as_str);
        let (Ok(id), Some(content)) = (id.parse(), content) else {
            continue;
        };
        let is_special = token.get("special").and_then(Json::as_bool) == Some(true);
        match added_type(content, is_special) {
            TokenType::Control => replace(id, content.to_owned(), TokenType::Control),
            kind => replace(id, user_defined(content), kind),
        }
    }
    Ok(vocabulary)
}

/// The pieces of tokenizer.model.
///
/// # Errors
/// If it is no such file.
pub(super) fn pieces(files: Files) -> Result<Vec<Piece>> {
    let bytes = files.bytes(TOKENIZER_MODEL)?.unwrap_or_default();
    parse(&bytes)
        .filter(|pieces| !pieces.is_empty())
        .ok_or_else(|| {
            let path = files.directory().join(TOKENIZER_MODEL);
            Error::of_file(Code::BadTokenizer, path, "it is no model of SentencePiece")
        })
}

fn parse(bytes: &[u8]) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut message = Message(bytes);
    while let Some((field, value)) = message.next()? {
        let (1, Value::Bytes(bytes)) = (field, value) else {
            continue;
        };
        let mut piece = Piece {
            text: Vec::new(),
            score: 0.0,
            kind: 1,
        };
        let mut message = Message(bytes);
        while let Some((field, value)) = message.next()? {
            match (field, value) {
                (1, Value::Bytes(text)) => piece.text = text.to_vec(),
                (2, Value::Fixed32(bits)) => piece.score = f32::from_bits(bits),
                (3, Value::Number(kind)) => piece.kind = kind,
                _ => {}
            }
        }
        pieces.push(piece);
    }
    Some(pieces)
}

/// What is left of a message of protocol buffers.
struct Message<'a>(&'a [u8]);

enum Value<'a> {
    Number(u64),
    Fixed32(u32),
    Fixed64,
    Bytes(&'a [u8]),
}

impl<'a> Message<'a> {
    /// The number of the next field and its value; nothing at the end. `None` if it is damaged.
    #[allow(clippy::type_complexity)]
    fn next(&mut self) -> Option<Option<(u64, Value<'a>)>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let tag = self.number()?;
        let value = match tag & 7 {
            0 => Value::Number(self.number()?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let len = usize::try_from(self.number()?).ok()?;
                Value::Bytes(self.take(len)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some(Some((tag >> 3, value)))
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = *self.take(1)? else {
                return None;
            };
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_have_text_score_and_type() {
        // Two pieces as the format has them, by hand, and a field that is not of interest.
        let mut bytes = vec![0x0a, 10, 0x0a, 3];
        bytes.extend_from_slice(b"<s>");
        bytes.extend_from_slice(&[0x15, 0, 0, 0, 0]);
        bytes.extend_from_slice(&[0x0a, 9, 0x0a, 2]);
        bytes.extend_from_slice(b"ab");
        bytes.push(0x15);
        bytes.extend_from_slice(&(-2.5f32).to_le_bytes());
        bytes.extend_from_slice(&[0x12, 2, 1, 2]);
        let pieces = parse(&bytes).unwrap();
        let piece = |text: &str, score, kind| Piece {
            text: text.as_bytes().to_vec(),
            score,
            kind,
        };
        assert_eq!(pieces, [piece("<s>", 0.0, 1), piece("ab", -2.5, 1)]);
        for cut in 1..bytes.len() {
            // No panic, whatever is missing.
            parse(&bytes[..cut]);
        }
        assert!(parse(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]).is_none());
    }
}
