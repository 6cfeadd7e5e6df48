//! The dtypes of numbers that no view has as they are stored.

use crate::error::Result;
use crate::kernels::lanes::Precision;
use crate::ops::cast::CastRules;
use crate::ops::conversions::Conversions;

/// The dtypes in which tensors are given that are stored in types which no view has.
#[derive(Debug)]
pub struct Numbers {
    to: Precision,
    /// Tensors that are to have others.
    others: CastRules,
}

impl Numbers {
    /// One dtype for all.
    pub fn all(to: Precision) -> Self {
        Numbers {
            to,
            others: CastRules::default(),
        }
    }

    /// The dtypes that a request asks for.
    ///
    /// # Errors
    /// If a rule is not a regular expression.
    pub(super) fn of(conversions: &Conversions) -> Result<Self> {
        Ok(Numbers {
            to: conversions.dtype.unwrap_or(conversions.undecided),
            others: CastRules::new(conversions.rules)?,
        })
    }

    /// That of the tensor called `name`.
    pub(super) fn dtype(&self, name: &str) -> Precision {
        let other = self.others.target(name);
        other.unwrap_or(self.to)
    }
}
