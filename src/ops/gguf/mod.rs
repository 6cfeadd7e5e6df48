//! GGUF: what becomes of a checkpoint in Hugging Face's layout in the files of llama.cpp.

pub mod architecture;
