//! GGUF: what becomes of a checkpoint in Hugging Face's layout in the files of llama.cpp, and back.

pub mod architecture;
pub(in crate::ops) mod source;
