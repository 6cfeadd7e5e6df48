//! GGUF: files that are read and written, held against an account of the format that builds and
//! takes apart bytes by hand.

#[path = "../common/mod.rs"]
mod common;

mod bytes;
mod fp8;
mod header;
mod hostile;
mod imatrix;
mod layouts;
mod model;
mod output;
#[cfg(feature = "remote")]
mod remote;
mod source;
