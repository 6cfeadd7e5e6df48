//! Operators on top of each other: one request is what its steps are, one after another.

#[path = "../common/mod.rs"]
mod common;

mod fixture;
mod steps;
