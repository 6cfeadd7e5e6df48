//! Values that people choose by name: each name is written once.

/// A choice among values with names.
pub trait Named: Copy + PartialEq + Sized + 'static {
    /// The values.
    const VALUES: &'static [Self];
    /// What each of them is called: first the name that is shown, then others that are understood.
    const NAMES: &'static [&'static [&'static str]];

    /// The value called `name`, in any case.
    fn named(name: &str) -> Option<Self> {
        let is_it = |names: &&[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
        let position = Self::NAMES.iter().position(is_it)?;
        Some(Self::VALUES[position])
    }

    /// The name that is shown.
    fn name(self) -> &'static str {
        let position = Self::VALUES.iter().position(|value| *value == self);
        Self::NAMES[position.expect("every value has names")][0]
    }
}

/// Gives the values of an enum their names.
macro_rules! named {
    ($type:ty { $($value:ident: $first:literal $(| $other:literal)*),+ $(,)? }) => {
        impl $crate::named::Named for $type {
            const VALUES: &'static [Self] = &[$(<$type>::$value),+];
            const NAMES: &'static [&'static [&'static str]] = &[$(&[$first $(, $other)*]),+];
        }
        // Every value is among them, or this does not compile.
        const _: fn($type) = |value| match value {
            $(<$type>::$value => {})+
        };
    };
}
pub(crate) use named;
