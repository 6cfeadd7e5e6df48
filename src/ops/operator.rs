//! What an operator does to a catalog.

use std::fmt::Debug;

use crate::catalog::Catalog;
use crate::error::Result;

/// The plan half of an operator.
pub trait Operator: Debug {
    /// Rewrites `catalog`: names, dtypes, shapes, config edits, warnings.
    ///
    /// # Errors
    /// If the view asked for cannot exist; the catalog is then not to be used.
    fn apply(&self, catalog: &mut Catalog) -> Result<()>;

    /// Looks at what the operators after it made of what it did.
    ///
    /// # Errors
    /// If that contradicts what was asked.
    fn finish(&self, _catalog: &mut Catalog) -> Result<()> {
        Ok(())
    }
}
