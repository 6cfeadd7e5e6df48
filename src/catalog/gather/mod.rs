//! Tensors whose elements are those of others in another order, as numbers: matrices that are put together of
//! columns of others. Where few long runs of elements move, they are ranges of bytes; else a kernel moves
//! elements. No number changes.

mod kernel;
mod matrix;
mod part;

pub(crate) use part::{Gather, Part};
