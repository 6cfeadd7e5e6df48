//! Views of safetensors checkpoints: directories whose files are assembled lazily from other
//! checkpoints, to be mounted, written out, or read in process.
//!
//! Data goes one way: [`source`] opens checkpoints, [`ops`] rewrite a [`catalog`] of tensors,
//! [`layout`] arranges it as the files of a [`view`], [`read`] gives any byte range, and the
//! outlets [`fuse`] and [`materialize`] hand the bytes on. [`recipe`] turns a request into all of
//! that.

pub mod catalog;
pub mod diff;
pub mod error;
pub mod fast_paths;
pub mod fuse;
pub mod inspect;
pub mod jobs;
pub mod kernels;
pub mod layout;
pub mod manifest;
pub mod materialize;
mod memory;
pub mod ops;
pub mod provenance;
pub mod read;
pub mod recipe;
pub mod source;
pub mod tensor;
pub mod verify;
pub mod view;

pub use error::{Error, Result};
