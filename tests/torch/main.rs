//! Files of `torch.save`, made byte by byte: what a view shows of them, and what is refused.

#[path = "../common/mod.rs"]
mod common;

mod adapters;
mod archives;
mod dcp;
mod directories;
mod file;
mod pickle;
mod pickles;
mod properties;
mod refusals;
mod state_dicts;
mod zip;
