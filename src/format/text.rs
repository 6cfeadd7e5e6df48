//! Strings in the JSON of headers and indexes.

use std::borrow::Cow;

use serde::Deserialize;

/// A string that is borrowed from the JSON text where that is possible.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(in crate::format) Cow<'a, str>);
