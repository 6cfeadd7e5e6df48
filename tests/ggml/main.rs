//! The block formats of GGUF: what blocks are made of rows, and what rows of blocks.

mod bounds;
mod oracle;
mod paths;
mod refusals;
mod rows_of_tests;
mod types;
