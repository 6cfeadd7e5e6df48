//! The two layouts of names of each family.

#[path = "../common/mod.rs"]
mod common;

mod docs;
mod fixture;
mod forms;
mod quantized;
mod refusals;
mod table;
