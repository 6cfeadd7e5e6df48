//! Tensors whose elements are those of others in another order. Where whole rows move, they are ranges of
//! bytes; else a kernel moves elements. No number changes.
//!
//! A dimension is named by its position. Tensors that come together have one dtype.

mod arrange;

pub use arrange::{
    chunk, concatenate, deinterleave, interleave, narrow, permute_for_rope, stack, transpose,
    unstack,
};
