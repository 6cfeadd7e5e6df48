//! Searches for scales of sub-blocks, one sub-block in each lane.
//!
//! They are written from `make_qx_quants` and its relatives in llama.cpp's `ggml-quants.c`, and do
//! every sum in their order.

mod positive;
mod scale;
mod scale_and_min;

pub(super) use positive::fit_positive;
pub(super) use scale::{Scaled, descend, fit_scale};
pub(super) use scale_and_min::{Fit, Steps, fit};

/// What is below this is zero, for all searches but [`fit`].
pub(super) const TINY: f32 = 1e-15;
