//! Views of safetensors checkpoints: directories whose files are assembled lazily from other
//! checkpoints, to be mounted, written out, or read in process.
//!
//! Data goes one way: [`source`] has the bytes of checkpoints, [`mod@format`] finds the tensors in them,
//! [`ops`] rewrite a [`catalog`] of tensors, [`layout`] arranges it as the files of a [`view`],
//! [`read`] returns any byte range, and the outlets `fuse` (with the feature of that name) and
//! [`materialize`] hand the bytes on.
//! [`recipe`] turns a request into all of that.
//!
//! No mount is needed to read a view:
//!
//! ```
//! use std::fs;
//!
//! use ckptfs::ops::QuantizeParams;
//! use ckptfs::read::Reader;
//! use ckptfs::recipe::ViewRequest;
//! use safetensors::Dtype::BF16;
//! use safetensors::tensor::{TensorView, serialize_to_file};
//!
//! // A checkpoint of one bf16 weight of ones, [256, 128].
//! let directory = tempfile::tempdir()?;
//! let ones: Vec<u8> = [0x80, 0x3f].repeat(256 * 128);
//! let weight = TensorView::new(BF16, vec![256, 128], &ones)?;
//! let name = "model.layers.0.mlp.up_proj.weight";
//! serialize_to_file([(name, weight)], None, &directory.path().join("model.safetensors"))?;
//! fs::write(directory.path().join("config.json"), "{}")?;
//!
//! // The view of it in block FP8: what is planned here was not computed yet.
//! let by_rules = QuantizeParams::by_rules();
//! let request = ViewRequest::new(directory.path()).with(|asked| asked.quantize = by_rules);
//! let plan = request.plan()?;
//! let (shard, _, content) = plan
//!     .view
//!     .files()
//!     .find(|(_, path, _)| path.ends_with("model.safetensors"))
//!     .expect("a view keeps the names of standard shards");
//!
//! // Sixteen codes in the middle of it, with at most 1 MiB of computed tiles kept.
//! let reader = Reader::new(plan.view.clone(), 1 << 20);
//! let scales = 2 * size_of::<f32>() as u64;
//! let mut codes = [0; 16];
//! let count = reader.read_at(shard, content.len() - scales - 16, &mut codes)?;
//! // 1 / 2⁻⁸ = 256 in E4M3: the largest power-of-two multiple of an amax of 1 within 448.
//! assert_eq!((count, codes), (16, [0x78; 16]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod catalog;
pub mod diff;
pub mod error;
pub mod fast_paths;
mod findings;
mod fingerprint;
pub mod format;
#[cfg(feature = "fuse")]
pub mod fuse;
pub mod inspect;
pub mod jobs;
pub mod json;
pub mod kernels;
pub mod layout;
pub mod manifest;
pub mod materialize;
mod memory;
pub mod named;
pub mod ops;
pub mod outputs;
pub mod provenance;
pub mod quant;
pub mod read;
pub mod recipe;
pub mod runs;
#[cfg(feature = "serve")]
pub mod serve;
pub mod shown;
mod size;
pub mod source;
pub mod spelling;
pub mod stats;
pub mod tensor;
pub mod text;
pub mod verify;
pub mod view;

pub use error::{Error, Result};
