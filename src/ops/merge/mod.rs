//! Merges: every tensor of a view computed from the tensors of several checkpoints.
//!
//! A method is a [`Formula`] on f32 lanes; [`PointwiseKernel`] is the kernel of all of them.

mod formula;
mod linear;
mod pointwise;

pub use formula::{At, Extent, Formula, Lanes};
pub use linear::Linear;
pub use pointwise::PointwiseKernel;
