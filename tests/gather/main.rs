//! Tensors whose elements are those of others in another order, against the definition: which element
//! of which tensor each place has.

#[path = "../common/mod.rs"]
mod common;

mod arranged;
mod fixture;
mod refusals;
