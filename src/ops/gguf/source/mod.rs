//! GGUF as a source: its tensors in the names and the layout of Hugging Face, and the files that belong to them.
//!
//! | tensor | becomes |
//! |---|---|
//! | F32, F16, BF16, F64, integers | as it is |
//! | blocks | numbers as llama.cpp decodes them in f32, rounded once to `--dtype`, or to BF16 |
//! | what the converter changed on its way into the file | changed back |

mod arithmetic;
mod config;
mod deepseek;
mod dequantize;
mod files;
mod forms;
mod hybrid;
mod metadata;
mod rope;
mod tensors;
mod tokenizer;

pub(in crate::ops::gguf) use dequantize::decoded;
pub(in crate::ops) use files::{make_files, take_files};
pub(in crate::ops) use tensors::opened;
