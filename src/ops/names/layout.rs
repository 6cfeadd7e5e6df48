//! The two layouts.

use crate::named::named;
use crate::ops::names::families::Conversion;

/// Whose names the tensors have, and with them which tensors there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameLayout {
    /// As the model's authors released it, which is what transformers reads and, by default, writes.
    Released,
    /// As transformers 5 has the model in memory, which `save_pretrained(save_original_format=False)` writes.
    Transformers,
}

named!(NameLayout {
    Released: "released",
    Transformers: "transformers",
});

impl NameLayout {
    pub(super) fn other(self) -> Self {
        match self {
            NameLayout::Released => NameLayout::Transformers,
            NameLayout::Transformers => NameLayout::Released,
        }
    }

    /// Of two names of one thing, this layout's.
    pub(super) fn of<T>(self, released: T, transformers: T) -> T {
        match self {
            NameLayout::Released => released,
            NameLayout::Transformers => transformers,
        }
    }

    pub(super) fn patterns(self, conversion: &Conversion) -> &'static [&'static str] {
        self.of(conversion.released, conversion.transformers)
    }
}
