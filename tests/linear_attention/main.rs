//! The two forms of the input projections of linear attention, row by row.

#[path = "../common/mod.rs"]
mod common;

mod fixture;
mod forms;
mod refusals;
