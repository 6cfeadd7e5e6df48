//! Merges against naive accounts of what each method is.

#[path = "../common/mod.rs"]
mod common;

mod facts;
mod kernel;
mod methods;
mod several;
