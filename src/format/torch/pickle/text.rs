//! Texts and numbers as protocol 0 writes them, in lines.

use crate::format::torch::pickle::value::Value;

/// Text whose bytes are Latin-1, but for `\uXXXX` and `\UXXXXXXXX`.
pub(super) fn raw_unicode(line: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = match (byte, after.first()) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            _ => {
                text.push(char::from(byte));
                rest = after;
                continue;
            }
        };
        let code = std::str::from_utf8(after.get(1..1 + digits)?).ok()?;
        text.push(char::from_u32(u32::from_str_radix(code, 16).ok()?)?);
        rest = &after[1 + digits..];
    }
    Some(text)
}

/// A text as Python 2 shows it: in quotes. Those with other escapes than of quotes and backslashes are none
/// that names have.
pub(super) fn quoted(line: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(line).ok()?;
    let mut quotes = ['\'', '"'].into_iter();
    let inside = quotes.find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))?;
    let mut unescaped = String::with_capacity(inside.len());
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        unescaped.push(match c {
            '\\' => chars.next().filter(|c| matches!(c, '\\' | '\'' | '"'))?,
            c => c,
        });
    }
    Some(unescaped)
}

/// A number in decimal; `None` if it is none.
pub(super) fn number(line: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(line).ok()?.trim_ascii();
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().map_or(Value::Other("a long int"), Value::Int))
}
