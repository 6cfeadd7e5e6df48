//! What clients send along with a request: a query, or a form.

use crate::serve::routes::decoded;

/// The names and values of `text`, as `a=1&b=2`. What cannot be decoded is left out.
pub(super) fn fields(text: &str) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    text.split('&').filter_map(|field| {
        let (name, value) = field.split_once('=').unwrap_or((field, ""));
        let plain = |text: &str| decoded(&text.replace('+', " "));
        Some((plain(name)?, plain(value)?))
    })
}

/// Whether the field `name` of a query is set.
pub(super) fn is_set(query: Option<&str>, name: &str) -> bool {
    let mut fields = fields(query.unwrap_or_default());
    fields.any(|(field, value)| {
        let is_true = value == b"1" || value.eq_ignore_ascii_case(b"true");
        field == name.as_bytes() && is_true
    })
}

/// The paths that the body of a request for files names: a form, or JSON.
pub(super) fn paths(body: &[u8], is_json: bool) -> Option<Vec<Vec<u8>>> {
    if is_json {
        #[derive(serde::Deserialize)]
        struct Asked {
            paths: Vec<String>,
        }
        let asked: Asked = serde_json::from_slice(body).ok()?;
        return Some(asked.paths.into_iter().map(String::into_bytes).collect());
    }
    let fields = fields(std::str::from_utf8(body).ok()?);
    let paths = fields.filter(|(name, _)| name == b"paths");
    Some(paths.map(|(_, value)| value).collect())
}
