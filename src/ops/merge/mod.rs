//! Merges: every tensor of a view computed from the tensors of several checkpoints.
//!
//! A method is a [`Formula`] on f32 lanes; [`PointwiseKernel`] is the kernel of all of them.

mod formula;
mod linear;
mod model_stock;
mod nearswap;
mod nuslerp;
mod pointwise;
mod random_mask;
mod ranks;
mod slerp;
mod task_arithmetic;

pub use formula::{At, Extent, Formula, Lanes, RUN};
pub use linear::Linear;
pub use model_stock::{ModelStock, ModelStockByRow};
pub use nearswap::NearSwap;
pub use nuslerp::{Between, NuSlerp, NuSlerpByColumn, NuSlerpByRow};
pub use pointwise::PointwiseKernel;
pub use random_mask::RandomMask;
pub use slerp::Slerp;
pub use task_arithmetic::{Combination, Keep, Task, TaskArithmetic};
