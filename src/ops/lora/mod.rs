//! LoRA: PEFT adapters merged into the weights, as PEFT's `merge_and_unload` writes them.
//!
//! `W + s · B·A` with `s = α/r` (or `α/√r`) for linear layers; its transpose where the weight is
//! stored transposed (embeddings, Conv1D); scaled row by row to trained lengths with DoRA. Other
//! tensors of an adapter (`modules_to_save`, trained biases) replace the base's. The
//! numbers are defined in [`crate::kernels::low_rank`].

mod adapter;
mod addition;
mod column_parts;
mod columns;
mod embeddings;
mod expert_names;
mod experts;
mod factors;
mod kernels;
mod layers;
mod merging;
mod operator;
mod params;
mod renaming;
mod single_experts;
mod storage;
mod targets;
mod token_indices;
mod tokens;
mod tying;
mod writer;

pub use operator::AdapterReport;
pub(crate) use operator::Lora;
pub use params::{LoraParams, LoraRequest};
pub use writer::ExpertOrder;
